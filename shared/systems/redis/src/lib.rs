//! The cache: the newest value of each entity, by position; or events, as a stream for each partition.
//!
//! ```no_run
//! use arrow::datatypes::DataType;
//! use millstream_core::{Column, Result, Role, Table, TableStore, meta, timestamp_type};
//! use millstream_redis::Redis;
//!
//! # async fn example() -> Result<()> {
//! let column = |name: &str, data_type, role| Column { name: name.into(), data_type, nullable: false, role };
//! let columns = vec![
//!     column("account", DataType::Utf8, Role::Entity), // without one, the rows are events
//!     column("amount", DataType::Decimal128(18, 2), Role::Value),
//!     column(meta::OFFSET, DataType::Int64, Role::Carried),
//!     column(meta::TIMESTAMP, timestamp_type(), Role::Carried),
//! ];
//! let table = Table { name: "balance".into(), columns, combine: None, view: None };
//! let sink = Redis::at("redis://localhost:6379")?.sink("bank.balances", table)?;
//! sink.prepare(true).await?;
//! // After a write: HGETALL balance:{ann}  →  account ann, amount 12.50, _topic transaction, _offset 41, …
//! # Ok(())
//! # }
//! ```
//!
//! # How it is exact without transactions
//! A write puts the rows and then moves the fence: two steps, since no step spans several nodes of a cluster. Each row's place
//! and content are a function of its record's position, so writing it twice changes nothing, and what is ahead of a fence is
//! written again by the next process. A script compares positions for each entity, so an older row never replaces a newer one;
//! Redis itself refuses an entry of a stream that isn't above the last one.
//!
//! The fence moves only from the expected offset and in a term that hasn't ended, and nothing but a start creates it. The
//! fence's time of creation is in every entry of a stream: after the store was emptied, what a late process has appended at the
//! lost fence makes way for the rows below it.
//!
//! The README says what the keys are called and what the texts of values are.
//!
//! What this crate does not do: it merges no rows, it is no source, and it removes nothing but what expires.

mod connection;
mod error;
mod fence;
mod keys;
mod nested;
mod newest;
mod owner;
mod reader;
mod rows;
mod scan;
mod scripts;
mod settings;
mod sink;
mod store;
mod stream;
mod table;
mod text;

pub use reader::{Fields, Reader, ReaderSettings};
pub use sink::RedisSink;
pub use store::Redis;
