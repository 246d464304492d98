//! Generated statements over generated records go through the real function in random cuts. What readers see is
//! compared with one query over everything, run by another engine.
//!
//! A *case* is derived from a seed: topics, references, records, a statement. The statement prints itself for
//! millstream, for DuckDB (the first oracle) and for unmodified DataFusion (the second). Batches of random sizes from
//! random partitions go through the function, some of them at once, some delivered twice. The table is read as readers
//! do: from PostgreSQL in a session with another time zone, from the embedded store's file with a separate connection.
//! The expected result uses none of the code under test.

mod aggregates;
mod case;
mod compare;
mod data;
mod decimals;
mod duckdb;
mod expr;
mod expressions;
mod generate;
mod numbers;
mod plain;
mod run;
mod shrink;
mod source;
mod statement;
mod store;
mod value;

pub use run::{Setting, Summary, differential};
