//! The path of a batch: the central code of millstream.
//!
//! ```text
//! batch ─► trim to the fence ─► heal the gap ─► decode ─► transform ─► sink.write(rows, fence a → b)
//!                                                  └ bad records ─► dead letters (before the fence moves)
//! ```
//!
//! Hosts pass batches to [`Runner::process`] and acknowledge the offset that it returns. Several partitions may be
//! processed at once, but only one batch at a time for each partition. The runner knows hosts, logs and sinks only by
//! their traits.
//!
//! ```no_run
//! # async fn example(runner: millstream_runner::Runner, batch: millstream_core::Batch) -> millstream_core::Result<()> {
//! let next_offset = runner.process(batch).await?; // every record below is in the sink, exactly once
//! # Ok(()) }
//! ```

mod narrow;
mod partition;
mod runner;
mod same_topic;
mod start;
mod stats;
mod timeliness;

pub use runner::{Parts, REFUSED_BY_STORE, Runner};
pub use stats::{PartitionStats, Stats};
pub use timeliness::{FIRST_TIMESTAMP_MS, Timeliness};
