//! What the docs of [`Sink`], [`Log`], [`Producer`], [`Topics`], [`Source`] and [`DeadLetters`](millstream_core::DeadLetters)
//! promise, as checks that every adapter runs. A check that fails panics, and its name is printed before it runs.

mod letters;
mod log;
mod sink;
mod sink_merge;
mod sink_tables;
mod source;

use std::{future::Future, sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_core::{Log, Producer, Sink, Source, Table, Topics};

pub use letters::dead_letters;
pub use log::log;
pub use sink::sink;
pub use source::source;

/// A check that takes longer than this hangs: a deadlock, most likely.
const CHECK_LIMIT: Duration = Duration::from_secs(60);

/// Opens sinks of the adapter under test.
#[async_trait]
pub trait SinkHarness: Send + Sync {
    /// Opens a sink of `function` into `table` in the store called `store` (letters, digits and `_`). A name that was
    /// not used before in this run is an empty store; the same name again is the same store as another process sees it:
    /// with connections and caches of its own. Does not prepare it.
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink>;

    /// Can it merge, or only append? An adapter that only appends runs no check of merging.
    fn merges(&self) -> bool;

    /// Does a write show its rows and move its fence in one step for everybody? A store without transactions says no: of two
    /// writers at one fence both may then be told that they wrote, since what they wrote is the same. It stays exact for
    /// those who read no further than the fence, as its own `snapshot` must.
    fn atomic(&self) -> bool {
        true
    }

    /// A row that the store refuses (a NUL character in PostgreSQL's text), with its table; none where it takes all.
    fn unstorable(&self) -> Option<(Table, RecordBatch)> {
        None
    }
}

/// The log adapter under test.
#[derive(Clone)]
pub struct LogUnderTest {
    /// Reads.
    pub log: Arc<dyn Log>,
    /// Writes.
    pub producer: Arc<dyn Producer>,
    /// Creates.
    pub topics: Arc<dyn Topics>,
    /// Begins the name of every topic and group, so that runs on one broker don't meet.
    pub prefix: String,
}

/// The source adapter under test.
#[derive(Clone)]
pub struct SourceUnderTest {
    /// One member of a group.
    pub source: Arc<dyn Source>,
    /// The log beneath.
    pub log: LogUnderTest,
}

/// Runs one check: says its name, and panics when it hangs.
async fn check(name: &str, check: impl Future<Output = ()>) {
    eprintln!("conformance: {name}");
    let ended = tokio::time::timeout(CHECK_LIMIT, check).await;
    assert!(ended.is_ok(), "conformance: {name}: still running after {} s", CHECK_LIMIT.as_secs());
}
