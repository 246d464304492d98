//! Turns a pipeline file and connections into running functions. The only crate that knows every adapter.
//!
//! ```no_run
//! # async fn example() -> millstream_core::Result<()> {
//! use std::sync::Arc;
//! use millstream_assembly::{Connections, Making, Systems};
//! use millstream_core::{Env, Retries, SystemClock};
//! use millstream_host::{Host, Stop};
//! use millstream_pipeline::Pipeline;
//!
//! let pipeline = Pipeline::load("pipelines/bank".as_ref()).unwrap();
//! let connections = Connections::read(&Env::default())?; // nothing set: everything is embedded
//! let clock = Arc::new(SystemClock);
//! let systems = Systems::open(&pipeline, &connections, clock.clone())?;
//! let flow = systems.ready(&pipeline, "flow", &Making::new(clock)).await?;
//! millstream_host::run(Host::Stream, flow.work(&systems), Stop::default(), Retries::default()).await
//! # }
//! ```
//!
//! Systems without a connection are embedded: the log and the tables in one SQLite file, the lake in a folder next to
//! it.
//!
//! Each system is a cargo feature: `kafka`, `postgres`, `lake`, `embedded`. A binary links those that its functions use;
//! a pipeline that uses another one is refused with the feature to build with.

mod audit;
mod connections;
mod csv_cells;
mod csv_table;
mod decode;
mod embedded_file;
mod entry;
mod feeds;
mod fixtures;
mod function;
mod kept;
mod letters;
mod lookup;
mod maker;
mod open;
mod opened;
mod output;
mod ownership;
mod partitions;
mod patience;
mod plan;
mod preview;
mod ready;
mod rebuild;
mod redrive;
mod reference;
mod rows;
mod said;
mod systems;
#[cfg(test)]
mod tests;
mod type_name;
mod used;
mod variables;

pub use audit::{AuditOptions, AuditProgress, AuditReport, AuditSample, Difference, audit, audit_part};
pub use connections::Connections;
pub use csv_cells::{Cell, Records, cell_of};
pub use csv_table::{read_csv, schema_of};
pub use embedded_file::{EmbeddedFile, Removal};
pub use entry::function_main;
pub use feeds::{load, resolve};
pub use fixtures::{FixtureReport, run_fixtures, tables_of_given};
pub use function::{Function, NotRunnable};
pub use maker::{Acknowledged, Maker, Making};
pub use opened::Home;
pub use ownership::{Misfit, Rebuilding, Standing, Ways};
pub use partitions::{PartitionsDiffer, partitions_differ};
pub use plan::{FunctionPlan, plan_function};
pub use preview::{Change, Changes, Preview, PreviewOptions, preview};
pub use ready::Ready;
pub use rebuild::{Begun, ReadRange, Rebuild, RebuildProgress, beside};
pub use redrive::{LetterStanding, LetterState, RedriveOptions, Redrove};
pub use rows::{text, texts};
pub use said::require_said;
pub use systems::{Systems, dead_letter_topic, topics_beside};
pub use type_name::type_name;
pub use variables::describe_unknown;
