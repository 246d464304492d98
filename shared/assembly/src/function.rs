use std::{fmt, sync::Arc};

use millstream_core::{Error, Limits, Result, Subscription, Table, TopicPartition};
use millstream_pipeline::{Pipeline, Reading};
use millstream_runner::Runner;
use millstream_sql::ReferenceTable;
use tokio::task::JoinSet;

/// A function that a host can run.
pub struct Function {
    /// Its name, as `pipeline.function`.
    pub id: String,
    /// Writes batches to its sink.
    pub runner: Arc<Runner>,
    /// Its consumer group, and the topics it reads with their generation.
    pub subscription: Subscription,
    /// Does it read an event store, which calls nobody?
    pub is_fed: bool,
    /// The table it writes.
    pub table: Table,
    /// The references that its SQL joins.
    pub references: Vec<Arc<ReferenceTable>>,
    /// The tasks that reload the references; they end with the function.
    pub(crate) refreshing: JoinSet<()>,
}

impl Function {
    pub(crate) fn new(
        pipeline: &Pipeline,
        reading: &Reading,
        (id, group): (String, String),
        runner: Arc<Runner>,
        table: Table,
        references: Vec<Arc<ReferenceTable>>,
    ) -> Self {
        let generation = |topic: &String| pipeline.topics.get(topic).map_or(1, |topic| topic.generation);
        let topics = reading.topics().map(|topic| (topic.clone(), generation(topic))).collect();
        let subscription = Subscription { group, topics, limits: reading.batch, every_ms: reading.every_ms };
        let is_fed = reading.topics().any(|topic| is_feed(pipeline, topic));
        Self { id, runner, subscription, is_fed, table, references, refreshing: JoinSet::new() }
    }

    /// All partitions of the topics that it reads.
    ///
    /// # Errors
    /// The errors of the log.
    pub async fn partitions(&self, log: &dyn millstream_core::Log) -> Result<Vec<TopicPartition>> {
        let mut partitions = Vec::new();
        for (topic, generation) in &self.subscription.topics {
            let count = log.partitions(topic).await?;
            partitions.extend((0..count).map(|partition| TopicPartition::new(topic, *generation, partition)));
        }
        Ok(partitions)
    }

    /// Processes everything that the log holds now, without a host: for tests of a pipeline.
    ///
    /// # Errors
    /// The errors of the runner and the log.
    pub async fn drain(&self, log: &dyn millstream_core::Log) -> Result<()> {
        self.drain_by(log, self.subscription.limits).await
    }

    /// Like [`Self::drain`], in batches within `limits`.
    pub(crate) async fn drain_by(&self, log: &dyn millstream_core::Log, limits: Limits) -> Result<()> {
        for partition in self.partitions(log).await? {
            let mut next = self.runner.start(&partition).await?;
            let high = log.watermarks(&partition).await?.high;
            while next < high {
                let batch = log.read(&partition, next..high, limits).await?;
                next = self.runner.process(batch).await?;
            }
        }
        Ok(())
    }
}

/// Is it an event store that is read like a topic?
pub(crate) fn is_feed(pipeline: &Pipeline, topic: &str) -> bool {
    pipeline.topics.get(topic).is_some_and(|topic| topic.feed_of.is_some())
}

/// The error that a function reads no topic, so that no host can run it.
#[derive(Debug)]
pub struct NotRunnable {
    /// Its name in the file.
    pub function: String,
}

impl fmt::Display for NotRunnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function `{}` reads no topic (it has no `from`)", self.function)
    }
}

impl From<NotRunnable> for Error {
    fn from(error: NotRunnable) -> Self {
        Self::stop(error.to_string())
    }
}
