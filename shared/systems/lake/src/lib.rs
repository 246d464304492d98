//! The lake sink: immutable Parquet files in a folder or an object store, named so that none can be written twice.
//!
//! ```
//! use arrow::{array::{Int64Array, RecordBatch}, datatypes::DataType};
//! use millstream_core::{Column, Fence, Result, Role, Sink, Table, TopicPartition};
//! use millstream_lake::LakeSink;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! # let folder = tempfile::tempdir().map_err(|error| millstream_core::Error::stop("no folder").caused_by(error))?;
//! # let folder = folder.path().to_string_lossy();
//! let amount = Column { name: "amount".into(), data_type: DataType::Int64, nullable: false, role: Role::Value };
//! let table = Table { name: "transactions".into(), columns: vec![amount], combine: None, view: None };
//! let lake = millstream_lake::open(&folder, &millstream_core::Env::default())?;
//! let sink = LakeSink::new(lake.store, lake.root, "bank.archive", table.clone());
//! sink.prepare(true).await?;
//!
//! let partition = TopicPartition::new("transaction", 1, 0);
//! let from = sink.create_fence(&partition, Fence::starting_at(0)).await?;
//! let to = Fence { next_offset: 2, last_timestamp_ms: Some(1_795_219_200_000), ..from.clone() };
//! let rows = RecordBatch::try_new(table.schema(), vec![std::sync::Arc::new(Int64Array::from(vec![5, 7]))])
//!     .map_err(|error| millstream_core::Error::stop("rows").caused_by(error))?;
//! sink.write(&partition, &from, &to, &[rows]).await?;
//!
//! // It is in transactions/log_date=2026-11-21/transaction-1-0-00000000000000000000.parquet
//! assert_eq!(sink.snapshot().await?.rows[0].num_rows(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # How a file can't be written twice
//! Each write puts one object, and only if none of its name is there (put-if-absent). The name is a function of the
//! *chain state*: the next offset and the date that files currently go to. The name never contains the offset range (100–199
//! and 100–250 would both be written), nor depends on the records (compaction changes which is the first). The footer of the
//! object holds the state after it, so the objects form one chain per partition. A writer with a stale state (a zombie, a
//! retry, a process that died between file and fence) finds that the name is taken, reads the footer and follows.
//!
//! On an object store, the answer "it exists" may be about the sink's own put, which its client has repeated: the footer names
//! the put. Or about nothing at all (S3's status 409, while another put is in progress): then the write is tried again.
//!
//! When the date changes, a *turn* is written first: a file of no rows, at the name of the old date, whose footer leads to
//! the new date at the same offset. One turn per offset: writers who disagree on the date can't turn in circles.
//! A fence object per partition says where a reader of the chain starts.
//!
//! # Who owns a table
//! The owner is an object beside the fences. Unlike in a database, a write doesn't prove that the owner is still the same:
//! before a table is adopted, the processes that fill it must have ended.
//!
//! # What lies where
//! | object | holds |
//! | --- | --- |
//! | `<table>/log_date=<day>/<topic>-<generation>-<partition>-<start>.parquet` | rows; the day is that of the log's (Kafka's) timestamp (UTC) of the write's *last* record. By hour, `log_hour=<hour>` follows the day |
//! | `<table>/_fences/<topic>-<generation>-<partition>.json` | a boundary of the chain, moved after each file |
//! | `<table>/_fences/<topic>-<generation>-<partition>-<start>.turn` | the first turn |
//! | `<table>/_owner.json` | the function that fills the table, and the plan that it fills it by |
//! | `<table>/_table.columns` | the columns, as Parquet without rows |
//!
//! `log_date` is when the log took a file's last record, not when its events happened: the other records may be of any day,
//! and a replay puts years of events into one day. A reader must not skip folders by the time of events. The statistics in
//! the files' footers let it skip files by any column, exactly.
//!
//! Readers (DuckDB, Spark, Arrow) take `<table>/**/*.parquet`: only what may hold rows ends in `.parquet`. A turn in a folder of a day is a file of the table's columns and no rows. Nothing
//! here is ever deleted; to remove old days, leave the last two of each partition, and `_fences` as it is.
//!
//! A table whose columns are in `_table.parquet` was created when folders were named `date=<day>`, and keeps these names: new
//! ones would break its chains. To move it, archive the topic into a table of another name.

mod bucket;
mod chain;
mod clouds;
mod failure;
mod fences;
mod file;
mod folder;
mod names;
mod open;
mod owner;
mod place;
mod sink;
mod store;
mod table;
mod writer;

pub use file::{MAX_READ_BYTES, read_parquet};
pub use object_store::{ObjectStore, path::Path};
pub use open::{Opened, open};
pub use sink::LakeSink;
pub use store::Lake;

use failure::store_error;
