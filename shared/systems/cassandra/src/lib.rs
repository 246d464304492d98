//! The event store on the Cassandra API: each row of a function's table by the position of the record that it was made of,
//! the newest row of each entity, and a change feed.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use arrow::{array::{Int64Array, RecordBatch, StringArray}, datatypes::DataType};
//! use millstream_core::{Column, Connect, Env, Error, Fence, Result, Role, Table, TableStore, TopicPartition, meta};
//! use millstream_cassandra::Cassandra;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let column = |name: &str, data_type, role| Column { name: name.into(), data_type, nullable: false, role };
//! let columns = vec![column("user", DataType::Utf8, Role::Entity), column(meta::OFFSET, DataType::Int64, Role::Carried)];
//! let table = Table { name: "logins".into(), columns, combine: None, view: None };
//!
//! let env = Env::of([("MILLSTREAM_CASSANDRA_CONTACT_POINTS", "127.0.0.1:9042"), ("MILLSTREAM_CASSANDRA_KEYSPACE", "bank")]);
//! let store = Cassandra::open(&env)?.ok_or_else(|| Error::stop("no address"))?;
//! let sink = store.sink("bank.logins", table.clone())?;
//! sink.prepare(true).await?; // creates the tables, as `millstream up` does
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
//! | `MILLSTREAM_CASSANDRA_CONTACT_POINTS` | `host:port,host:port`, or `embedded` |
//! | `MILLSTREAM_CASSANDRA_KEYSPACE` | the keyspace, which must exist: how it is replicated is for its owner to say |
//! | `MILLSTREAM_CASSANDRA_PROFILE` | `cassandra` (the default), `cosmos` or `keyspaces` |
//! | `MILLSTREAM_CASSANDRA_USER`, `…_PASSWORD` | both or none; for Keyspaces the service-specific credentials |
//! | `MILLSTREAM_CASSANDRA_DATACENTER` | the data centre whose nodes are asked; all processes must have the same one. Must be set where the cluster has several |
//! | `MILLSTREAM_CASSANDRA_TLS` | `true` or `false`; by default true for the services, and where there is a CA |
//! | `MILLSTREAM_CASSANDRA_CA_FILE` | PEM certificates; the system's by default. A server's certificate must be for its address, or for the name of a contact point |
//!
//! # What lies where
//! | table | primary key | holds |
//! | --- | --- | --- |
//! | `<name>` | `(("_topic", "_generation", "_partition", "_bucket"), "_offset")` | all rows; the bucket is the offset / 10,000 |
//! | `<name>_newest` | the entity | the newest row of each, where a column is the entity |
//! | `millstream_fences` | `((function), topic, generation, partition)` | the fences |
//! | `millstream_owners` | `table_name` | the function that fills a table, and its plan |
//!
//! # How it is exactly once
//! There are no transactions. A write reads the fence, writes the rows and then the newest rows, and moves the fence by one
//! compare-and-swap (`IF next_offset = ? AND term = ?`). Rows are functions of the position, so a row that is written twice
//! is the same, and what a process has left above the fence is written again just so. Readers who must be exact (the change feed,
//! an audit) read up to the fence and no further; one who asks `<name>` by hand may see a few rows above it.
//! Rows of fences and owners are touched by compare-and-swap alone. One whose time was up has an unknown outcome: `Retry`.
//!
//! A record gives at most one row.
//!
//! # The newest row of an entity
//! It is the one with the highest generation and offset. Cassandra and Cosmos decide by the writetime, which is made of them
//! (`USING TIMESTAMP`): an old row that comes late changes nothing. Keyspaces takes no such writetimes, so each of these rows
//! costs a compare-and-swap or two there, which compares `"_position"`. Rows are written whole, nulls too.
//! Since these writetimes are not times, a DELETE by hand must have one too (`USING TIMESTAMP`): with the time of day it
//! would also hide rows that come later, or hide nothing.
//! The topic should be keyed by the entity: of two partitions no one can say whose offset is newer.
//!
//! # The servers
//! `MILLSTREAM_CASSANDRA_PROFILE` says which it is: [`Profile`]. The tests run on Cassandra alone. For the other two, the same
//! suites run on Cassandra behind a stand-in ([`Gate`]) that refuses what their documentation says that they refuse; no test has
//! met the services themselves. Compare-and-swap holds within one data centre (LOCAL_SERIAL): all processes of a function must write in the
//! same one, and a Cosmos account with several write regions can't be used.
//!
//! The driver retries nothing. An `Overloaded` is a `Retry` that waits as long as the server says.
//!
//! # Values
//! Every value comes back exactly: integers as CQL's integers of their size (unsigned ones in the next size, 64 bits as `varint`),
//! decimals as `decimal`, floats with NaN and infinities, dates and times as `date` and `time`, lists and objects as JSON `text`.
//! A timestamp is a `bigint`, the microseconds since 1970 (UTC), because CQL's `timestamp` cuts them to milliseconds; only
//! `_timestamp`, the log's own milliseconds, is a `timestamp`. A column can't become one of a wider CQL type.
//!
//! # Known limits
//! - A process of an ended term that was suspended in the middle of a write may, when it goes on, put rows of the old plan over
//!   those of the new one; it moves no fence. End a function's processes before its table is adopted by another plan.
//! - A write that was interrupted before the fence has left rows above it, which another plan would not write over: such a table
//!   isn't adopted until the previous plan has moved the fence. Of rows that have not come to a majority of the replicas,
//!   or that lie more than 20,000 offsets above the fence, nothing is seen.
//! - Rows that were redriven are in `<name>` and `<name>_newest`, and not in the change feed.

mod by_key;
mod client;
mod error;
mod feed;
mod fences;
mod kind;
mod layout;
mod owners;
mod profile;
mod read;
mod schema;
mod selected;
mod settings;
mod sink;
mod statement;
mod store;
mod tls;
mod unsettled;
mod write;

pub use profile::Profile;
pub use statement::{Does, Gate, Statement, Verdict};
pub use store::Cassandra;
