//! SQL over bounded batches: the only crate that names DataFusion.
//!
//! A statement is planned once. It describes a whole stream, and is computed batch by batch: rows one by one, or
//! aggregates as partial states that the sink merges.
//!
//! ```
//! use std::sync::Arc;
//! use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
//! use millstream_sql::{Input, Statement, plan};
//!
//! let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
//! let schema = Arc::new(Schema::new(vec![
//!     Field::new("branch", DataType::Utf8, false),
//!     Field::new("amount", DataType::Decimal128(18, 2), true),
//!     Field::new("at", utc, false),
//! ]));
//! let sql = "SELECT tumble(at, INTERVAL '2 seconds') AS curr_time, branch, sum(amount) AS batch_value
//!            FROM transaction GROUP BY 1, 2";
//! let planned = futures::executor::block_on(plan(&Statement {
//!     sql,
//!     inputs: vec![Input { name: "transaction".into(), schema }],
//!     references: vec![],
//!     into: "flow",
//!     carried: &[],
//! }))?;
//! let columns: Vec<_> = planned.table.columns.iter().map(|column| column.name.as_str()).collect();
//! assert_eq!(columns, ["curr_time", "branch", "batch_value"]);
//! assert!(planned.table.view.is_none(), "every column merges on its own: the table is the result");
//! # Ok::<(), millstream_sql::SqlError>(())
//! ```
//!
//! What can't be merged is refused with the reason: see [`plan`]. Overflow is an error, never a wrap.

mod above;
mod advice;
mod beside;
mod bound;
mod calendar;
mod carry;
mod casts;
mod checked;
mod compare;
mod depth;
mod dotted;
mod error;
mod exact;
mod extremes;
mod fault;
mod fingerprint;
mod finite;
mod hop;
mod keywords;
mod language;
mod lookup;
mod merging;
mod messages;
mod mixed;
mod names;
mod naming;
mod order;
mod parse;
mod plan;
mod query;
mod reference;
mod refuse;
mod rehearse;
mod rewrite;
mod run;
mod session;
mod size;
mod sketch;
mod slot;
mod statement;
mod states;
mod stored;
mod types;
mod unnest;
mod whole;
mod window;

pub use error::{Result, SqlError};
pub use fingerprint::hash;
pub use plan::{Planned, columns, plan};
pub use query::{WholeTable, query, tables_read};
pub use reference::ReferenceTable;
pub use statement::{Input, Statement};
pub use types::name as type_name;
pub use whole::{
    LogRows, Only, Origin, Precision, ReadFailed, Sample, Since, Whole, WholeColumn, WholeLimits, one_zero,
};
pub use window::MAX_WINDOWS_PER_EVENT;
