//! The event store on Azure Cosmos DB for NoSQL: each row of a function's table by the position of the record that it was made of,
//! the newest row of each entity, and a change feed. `millstream-cassandra` is the same store on another database.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use arrow::{array::{Int64Array, RecordBatch, StringArray}, datatypes::DataType};
//! use millstream_core::{Column, Connect, Env, Error, Fence, Result, Role, Table, TableStore, TopicPartition, meta};
//! use millstream_cosmos::Cosmos;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let column = |name: &str, data_type, role| Column { name: name.into(), data_type, nullable: false, role };
//! let columns = vec![column("user", DataType::Utf8, Role::Entity), column(meta::OFFSET, DataType::Int64, Role::Carried)];
//! let table = Table { name: "logins".into(), columns, combine: None, view: None };
//!
//! let env = Env::of([
//!     ("MILLSTREAM_COSMOS_ENDPOINT", "https://ACCOUNT.documents.azure.com"),
//!     ("MILLSTREAM_COSMOS_DATABASE", "bank"),
//!     ("MILLSTREAM_COSMOS_KEY", "a2V5"),
//! ]);
//! let store = Cosmos::open(&env)?.ok_or_else(|| Error::stop("no address"))?;
//! let sink = store.sink("bank.logins", table.clone())?;
//! sink.prepare(true).await?; // creates the containers, as `millstream up` does
//!
//! let partition = TopicPartition::new("login", 1, 0);
//! let from = sink.create_fence(&partition, Fence::starting_at(0)).await?;
//! let to = Fence { next_offset: 2, ..from.clone() };
//! let (users, offsets) = (StringArray::from(vec!["ann", "bo"]), Int64Array::from(vec![0, 1]));
//! let rows = RecordBatch::try_new(table.schema(), vec![Arc::new(users), Arc::new(offsets)])
//!     .map_err(|error| Error::stop("rows").caused_by(error))?;
//! sink.write(&partition, &from, &to, &[rows]).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Settings
//! | variable | |
//! | --- | --- |
//! | `MILLSTREAM_COSMOS_ENDPOINT` | `https://ACCOUNT.documents.azure.com`, or `embedded` |
//! | `MILLSTREAM_COSMOS_KEY` | a read-write key of the account |
//! | `MILLSTREAM_COSMOS_DATABASE` | the database, which must exist: whether its containers share throughput is for its owner to say |
//! | `MILLSTREAM_COSMOS_MAX_RU` | the most request units a second that each container which is created scales up to (autoscale, multiples of 1,000). By default none is asked for: for serverless accounts, and databases with a throughput of their own |
//!
//! # What lies where
//! Every container is partitioned by `/pk`.
//!
//! | container | `pk` | `id` | holds |
//! | --- | --- | --- | --- |
//! | `<name>` | `topic:generation:partition:bucket` | the offset, 19 digits | all rows, each in `row`; the bucket is the offset / 10,000 |
//! | `<name>` | `_columns` | `_columns` | the columns of the table |
//! | `<name>_newest` | the entity | the entity | the newest row of each, in `row`, where a column is the entity |
//! | `<name>_newest` | `_columns` | `_columns` | the columns of the table, as in `<name>` |
//! | `millstream_fences` | the function | `topic:generation:partition` | the fences |
//! | `millstream_owners` | `owners` | the table | the function that fills a table, and its plan |
//!
//! A key that the service would refuse, or that clients are known to trip over, is `sha256:` and the hash of its text: one with any
//! other character than printable ASCII, with one of `/ \ ? # % +`, or with more than 1,023 bytes; `.` and `..`; and `_columns`. The
//! text itself is in the item.
//!
//! # How it is exactly once
//! There is no transaction over several containers. A write reads the fence, writes the rows (in transactional batches of one bucket)
//! and then the newest rows, and moves the fence by a replace with `If-Match` on the ETag that it read: whoever has moved the fence in
//! the meantime, or raised its term, has changed the ETag. Rows are functions of the position, so a row that is written twice
//! is the same, and what a process has left above the fence is written again just so. Readers who must be exact (the change feed,
//! an audit) read up to the fence and no further; one who asks `<name>` by hand may see a few rows above it.
//! A request whose time was up has an unknown outcome: `Retry`.
//!
//! A record gives at most one row.
//!
//! # Which accounts
//! A reader that sees a fence must see all rows below it, in a process and on a connection of its own. The rows were acknowledged
//! before the fence was written, so it is enough that a read sees every write that was acknowledged before it began.
//! Session consistency, the default of new accounts, promises that within one session alone: another process may read the fence from
//! one replica and miss the rows on another. So at its first request a process asks the service for the account's properties, and
//! stops unless they are one of these:
//!
//! | default consistency | regions | why |
//! | --- | --- | --- |
//! | Strong | any number, one of them written to | reads are linearizable |
//! | Bounded staleness | one | in the region that is written to, reads are as those of Strong |
//!
//! (<https://learn.microsoft.com/azure/cosmos-db/consistency-levels>.) Session tokens that are stored with the fence would do for
//! readers too, but not for the owners and terms, which a process must see before it writes under them; and after a failover
//! of several regions without Strong, acknowledged rows may be gone while the fence is there. An `If-Match` is one order in one region:
//! an account with several write regions is refused. Both levels cost twice the request units for reads. An account that is changed
//! while a process runs is not noticed.
//!
//! # The newest row of an entity
//! It is the one with the highest generation, offset and partition, which are its `position`. It is read and then created, or replaced
//! if nobody has changed it since; an old row that comes late changes nothing.
//! The topic should be keyed by the entity: of two partitions no one can say whose offset is newer.
//!
//! Once a plan without an entity writes to the table, the newest rows are out of date for good: the columns that are noted have no
//! entity any more, lookups by it are refused, and a plan with the entity needs a table of another name.
//!
//! # Values
//! Every value comes back exactly. JSON numbers are doubles in the service, so what a double can't hold is a text:
//!
//! | SQL | JSON |
//! | --- | --- |
//! | booleans | `true`, `false` |
//! | integers | a number; beyond ±(2^53 − 1) a text of the digits |
//! | decimals | a text with all digits of the column's scale: `"12.50"` |
//! | floats | a number; `"NaN"`, `"Infinity"`, `"-Infinity"` and `"-0.0"` |
//! | texts | a text |
//! | binaries | a text: base64 |
//! | dates, times | a text: `"2024-05-01"`, `"12:30:00"` |
//! | timestamps | a text: RFC 3339 in UTC with all digits (`"2024-05-01T12:30:00.000001Z"`), so that texts are in the order of the times |
//! | lists, objects | a text: their JSON, in which numbers stay exact |
//!
//! As a reference, any container can be read: an item with an object `row` has the columns in it, and another one has its own properties.
//! A reference with `lookup` is asked for the newest rows of entities, by the entity alone: a text, an integer or a date.
//!
//! # Limits of the service
//! From <https://learn.microsoft.com/azure/cosmos-db/concepts-limits>: an item has at most 2 MB, so a row of more than 2,000,000
//! bytes as JSON is a dead letter; a transactional batch has at most 100 operations, 2 MB and 5 s; an id has at most 1,023 bytes; a
//! logical partition has at most 20 GB, which a bucket of 10,000 rows of that size just fits into; a physical partition gives 10,000
//! request units a second. A write to `<name>` goes to one logical partition for 10,000 offsets, so a topic's partition is written
//! as fast as one physical partition takes it.
//!
//! What the service refuses because of its throughput (status 429) is sent again within the write, when the service says, for up to
//! 30 s; fewer requests are under way at once meanwhile. Then it is `TooLarge`, and the runner tries fewer records. Batches that the
//! service has no time for (408) are sent again as smaller ones. A page of a query is asked for again, when the service says, for up
//! to 15 s, so a scan goes on where it was. Other requests that are throttled are a `Retry` that waits as long as the service says.
//!
//! # Never tried
//! No test has met the service. They run on the emulator that comes with Microsoft's client, in the process of the test: its keys,
//! ETags, batches, queries, throttling (3200) and injected faults. What it doesn't show: the service's own limits of time and
//! size, that `ORDER BY c.id` needs no index of ours, how numbers are written back, failovers, and how the account's properties look
//! there. Sign-in is by key alone.
//!
//! # Known limits
//! - A process of an ended term that was suspended in the middle of a write may, when it goes on, put rows of the old plan over
//!   those of the new one; it moves no fence. End a function's processes before its table is adopted by another plan.
//! - A write that was interrupted before the fence has left rows above it, which another plan would not write over: such a table
//!   isn't adopted until the previous plan has moved the fence. Of rows that lie more than 20,000 offsets above the fence, nothing
//!   is seen.
//! - Rows that were redriven are in `<name>` and `<name>_newest`, and not in the change feed.
//! - A column can't get a wider type.

mod account;
mod by_key;
mod client;
mod error;
mod feed;
mod fences;
mod form;
mod json;
mod layout;
mod owners;
mod pace;
mod read;
mod schema;
mod selected;
mod settings;
mod sink;
mod store;
mod unsettled;
mod write;

pub use store::Cosmos;
