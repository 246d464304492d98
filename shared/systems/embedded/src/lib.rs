//! One SQLite file: log, tables, fences and dead letters for the laptop and the tests.
//!
//! ```
//! use std::sync::Arc;
//!
//! use millstream_core::{Limits, Log, NewRecord, Producer, SystemClock, TopicPartition, Topics};
//! use millstream_embedded::Embedded;
//!
//! # #[tokio::main]
//! # async fn main() -> millstream_core::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! let store = Embedded::open(&folder.path().join("millstream.db"), Arc::new(SystemClock))?;
//! store.create_topic("transaction", 3, &[]).await?;
//! let record = NewRecord { value: Some(b"{}".to_vec()), partition: Some(1), ..NewRecord::default() };
//! store.send("transaction", vec![record]).await?;
//!
//! let limits = Limits { max_records: 100, max_bytes: 1 << 20, max_wait_ms: 0 };
//! let batch = store.read(&TopicPartition::new("transaction", 1, 1), 0..1, limits).await?;
//! assert_eq!(batch.values().value(0), b"{}");
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//! - A call that returned `Ok` survives SIGKILL and a power cut: the file is in WAL mode with `synchronous = FULL`, so
//!   every commit is synced before it is answered. The one exception is the group's offsets, whose loss costs nothing
//!   because a function starts from its fence.
//! - Several processes may have the file open (a command and `dev`, or a zombie): each write takes SQLite's write
//!   lock, waits at most 5 s for it, and answers `Retry` after that. Fences decide who wins. The file must lie on a local
//!   disk, because WAL needs memory that all processes share.
//! - Rows and fence of a write are one SQLite transaction, and so are the records of a `send`.
//!
//! # What it does not do
//! Each member of a consumer group reads all partitions: fences keep the result exactly-once, at the cost of duplicate work.
//! Generations of a topic are not distinguished: the file has one topic of a name, and its offsets restart at 0 when it is
//! deleted and re-created. Nothing is deleted by age.

mod adapt;
mod checked_rows;
mod columns;
mod connections;
mod consume;
mod dead_letters;
mod feed;
mod fences;
mod fetched;
mod group_offsets;
mod headers;
mod log;
mod owner;
mod positions;
mod produce;
mod remove;
mod replace;
mod row_reader;
mod schema;
mod sink;
mod store;
mod tables;
#[cfg(test)]
mod tests;
mod topics;
mod view;
mod write;

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU32},
};

use arrow::datatypes::TimeUnit;
use millstream_core::{Clock, Result};
use tokio::sync::watch;

use crate::connections::Connections;
pub use crate::{remove::Removal, sink::EmbeddedSink};

/// An open file. Cloning shares it.
#[derive(Clone)]
pub struct Embedded {
    connections: Arc<Connections>,
    clock: Arc<dyn Clock>,
    /// Counts the sends of this process: wakes the consumers of this process at once.
    sent: watch::Sender<u64>,
    /// Where the next record without a key goes.
    next_partition: Arc<AtomicU32>,
    /// Who sends records.
    pipeline: Option<Arc<str>>,
}

impl Embedded {
    /// Opens the file at `path`, and creates it if it is missing; its folder must exist. `clock` stamps records that
    /// have no timestamp of their own. Blocks for some milliseconds.
    ///
    /// # Errors
    /// `Stop` when the file is not a SQLite file, is damaged, may not be written, or was written by another version of
    /// millstream or by another program; `Retry` when another process holds its lock for longer than 5 s.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let connections = Arc::new(Connections::open(path, schema::migrate)?);
        let (sent, next_partition) = (watch::Sender::new(0), Arc::new(AtomicU32::new(0)));
        Ok(Arc::new(Self { connections, clock, sent, next_partition, pipeline: None }))
    }

    /// The same file, for a pipeline: the file keeps to which topics it has sent records, see [`Embedded::pipelines`].
    pub fn for_pipeline(&self, name: &str) -> Arc<Self> {
        Arc::new(Self { pipeline: Some(name.into()), ..self.clone() })
    }

    /// Now, in the text form of all times in the file.
    fn now(&self) -> String {
        columns::timestamp_text(self.clock.now_us(), &TimeUnit::Microsecond).unwrap_or_default()
    }
}
