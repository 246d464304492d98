//! Statements that nobody wrote, over records that nobody sent, through the real function in random cuts; what readers see is
//! compared with one query over everything by an engine that isn't ours.
//!
//! A *case* is made of a seed: topics, references, records, a statement. The statement prints itself for millstream, for
//! DuckDB (the first oracle) and for DataFusion as it is (the second). Batches of random sizes from random partitions,
//! some of them at once, some delivered twice, go through the function; the table is read as its readers do it: from
//! PostgreSQL in a session of another time zone, from the embedded store's file by a connection of our own. Nothing of
//! the code under test takes part in what it is compared with.

mod aggregates;
mod case;
mod compare;
mod data;
mod duckdb;
mod expr;
mod expressions;
mod generate;
mod numbers;
mod plain;
mod run;
mod shrink;
mod statement;
mod store;
mod value;

pub use run::{Setting, Summary, differential};
