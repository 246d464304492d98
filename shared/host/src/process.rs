use async_trait::async_trait;
use millstream_core::{Batch, Result, TopicPartition};
use millstream_runner::Runner;

use crate::{Made, Stop};

/// What a host calls to bring records into a sink: the runner, and fakes in tests.
///
/// A host calls it for several partitions at once, but for one partition one call at a time. The host retries; after an
/// error nothing is lost and nothing is written twice, because the fence is in the sink.
#[async_trait]
pub trait Process: Send + Sync {
    /// The function, as `pipeline.function`: for log lines.
    fn function(&self) -> &str;

    /// The offset at which a partition is to be read: the sink's fence, which is created if there is none. Called by hosts
    /// that read the log themselves, before the first batch.
    ///
    /// # Errors
    /// `Retry`: call again later. `Stop`: a person must act.
    async fn start(&self, partition: &TopicPartition) -> Result<i64>;

    /// Brings a batch into the sink and returns the sink's next offset, up to which the host may acknowledge.
    ///
    /// # Errors
    /// `Retry`: call again with the same batch. `Stop`: a person must act.
    async fn process(&self, batch: Batch) -> Result<i64>;

    /// The sink's next offset of a partition as it is now; `None` where there is no fence yet. It must not create one: only
    /// a start or a first batch says where. Called by hosts that are given batches, after a failure.
    ///
    /// # Errors
    /// `Retry`: call again later. `Stop`: a person must act.
    async fn next_offset(&self, partition: &TopicPartition) -> Result<Option<i64>>;
}

#[async_trait]
impl Process for Runner {
    fn function(&self) -> &str {
        Self::function(self)
    }

    async fn start(&self, partition: &TopicPartition) -> Result<i64> {
        Self::start(self, partition).await
    }

    async fn process(&self, batch: Batch) -> Result<i64> {
        Self::process(self, batch).await
    }

    async fn next_offset(&self, partition: &TopicPartition) -> Result<Option<i64>> {
        Self::next_offset(self, partition).await
    }
}

/// What a host calls to make records: a function that writes to a topic and reads none.
///
/// It keeps no fence, so records are sent **at least once**: a send whose outcome is unknown is made again, and the topic may
/// then hold a record twice.
#[async_trait]
pub trait Make: Send + Sync {
    /// The function, as `pipeline.function`: for log lines.
    fn function(&self) -> &str;

    /// Makes and sends records until `stop` is requested, then waits for those that are under way. A host calls it once, or once for each event of a schedule, one call at a time. It
    /// retries transient errors itself.
    ///
    /// # Errors
    /// `Stop` when a person must act.
    async fn make(&self, stop: &Stop) -> Result<Made>;
}
