//! The PostgreSQL sink: one statement merges a batch's rows into their table and moves the fence.
//!
//! ```no_run
//! use millstream_core::{Column, Role, Sink, Table};
//! # use arrow::datatypes::DataType;
//! # async fn example() -> millstream_core::Result<()> {
//! let pool = millstream_postgres::pool("postgres://millstream@db.example.org/bank?sslmode=verify-full", 4)?;
//! let column = Column { name: "seen".into(), data_type: DataType::Utf8, nullable: true, role: Role::Value };
//! let table = Table { name: "log".into(), columns: vec![column], combine: None, view: None };
//! let sink = millstream_postgres::PostgresSink::new(pool, "bank.log", table)?;
//! sink.prepare(true).await?; // creates the tables, as `millstream up` does
//! # Ok(())
//! # }
//! ```
//!
//! How it is exactly once, for PostgreSQL 15 and newer: the fence is a row of `millstream_fences`, and a write is
//! `UPDATE … WHERE next_offset = <expected>` whose result the `INSERT … ON CONFLICT` of the same statement is joined
//! with. A zombie's UPDATE waits for the row's lock, looks at the row again, finds another offset and inserts nothing.
//!
//! It works through PgBouncer in transaction mode, of any version: there are no named statements and no session state.
//!
//! What this crate does not do: it alters no table that a person has not adopted for another plan, and it knows no SQL but its own.

mod by_key;
mod catalog;
mod connect;
mod decode;
mod definition;
mod encode;
mod error;
mod fence;
mod limits;
mod merge;
mod newest;
mod numeric;
mod owner;
mod replace;
mod schema;
mod sink;
mod statement;
mod store;
mod transaction;
mod types;
mod widen;

pub use connect::{Pool, pool};
pub use decode::read_table;
pub use newest::newest_rows;
pub use sink::PostgresSink;
pub use store::Postgres;
