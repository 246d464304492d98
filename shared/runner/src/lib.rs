//! What happens to a batch: the page of code at the middle of everything.
//!
//! ```text
//! batch ─► trim to the fence ─► heal the gap ─► decode ─► transform ─► sink.write(rows, fence a → b)
//!                                                  └ bad records ─► dead letters (before the fence moves)
//! ```
//!
//! Hosts hand batches to [`Runner::process`], for several partitions at once but for one partition one at a time, and
//! acknowledge the offset it answers. It knows no host, no log and no sink but by their traits.
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

pub use runner::{Parts, Runner};
pub use stats::{PartitionStats, Stats};
pub use timeliness::Timeliness;
