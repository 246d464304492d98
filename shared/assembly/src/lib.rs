//! From a pipeline file and connections to running functions: the one place that knows every adapter.
//!
//! ```no_run
//! # async fn example() -> millstream_core::Result<()> {
//! use std::sync::Arc;
//! use millstream_assembly::Systems;
//! use millstream_core::SystemClock;
//! use millstream_host::{Retries, Stop, stream};
//! use millstream_pipeline::{Connections, Pipeline};
//!
//! let pipeline = Pipeline::load("pipelines/bank".as_ref()).unwrap();
//! let connections = Connections::read(&|_| None)?; // nothing set: everything is embedded
//! let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock))?;
//! let flow = systems.function(&pipeline, "flow").await?;
//! stream::run(systems.source(), flow.subscription.clone(), flow.runner.clone(), Stop::default(), Retries::default()).await
//! # }
//! ```
//!
//! What is not connected is embedded: the log and the tables in one SQLite file, the lake in a folder beside it.

mod audit;
mod csv_cells;
mod csv_table;
mod decode;
mod fixtures;
mod function;
mod letters;
mod log_filter;
mod main_of;
mod partitions;
mod plan;
mod reference;
mod rows;
mod shown;
mod systems;
#[cfg(test)]
mod tests;
mod type_name;

pub use audit::{AuditProgress, AuditReport, Difference, audit, audit_telling};
pub use csv_cells::{Cell, Records, cell_of};
pub use csv_table::{read_csv, schema_of};
pub use fixtures::{FixtureReport, ReadGiven, run_fixtures, tables_of_given};
pub use function::{Function, NotRunnable};
pub use log_filter::log_filter;
pub use main_of::{Settings, function_main, keep_panics_to_their_place, log_to_stderr};
pub use partitions::{PartitionsDiffer, partitions_differ};
pub use plan::{FunctionPlan, plan_function, require_said, sql_of};
pub use rows::texts;
pub use systems::{Systems, dead_letter_topic};
pub use type_name::type_name;
