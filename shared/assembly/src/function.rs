use std::{collections::BTreeMap, fmt, sync::Arc};

use millstream_core::{Error, Limits, Result, Subscription, Table, TopicPartition};
use millstream_pipeline::{Pipeline, Reading};
use millstream_runner::Runner;
use millstream_sql::ReferenceTable;
use tokio::task::JoinSet;

/// A function, ready to be run by a host.
pub struct Function {
    /// Its name, as `pipeline.function`.
    pub id: String,
    /// What brings batches into its sink.
    pub runner: Arc<Runner>,
    /// Its consumer group and topics.
    pub subscription: Subscription,
    /// The topics it reads, with their generation.
    pub generations: BTreeMap<String, u32>,
    /// The table it writes.
    pub table: Table,
    /// The references that its SQL joins.
    pub references: Vec<Arc<ReferenceTable>>,
    /// What loads them again; it ends with the function.
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
        let generations: BTreeMap<_, _> = reading.topics().map(|topic| (topic.clone(), generation(topic))).collect();
        let subscription =
            Subscription { group, topics: generations.clone().into_iter().collect(), limits: reading.batch };
        Self { id, runner, subscription, generations, table, references, refreshing: JoinSet::new() }
    }

    /// Every partition of every topic that it reads.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn partitions(&self, log: &dyn millstream_core::Log) -> Result<Vec<TopicPartition>> {
        let mut partitions = Vec::new();
        for (topic, generation) in &self.generations {
            let count = log.partitions(topic).await?;
            partitions.extend((0..count).map(|partition| TopicPartition::new(topic, *generation, partition)));
        }
        Ok(partitions)
    }

    /// Brings in everything that the log holds now, without a host: for tests of a pipeline.
    ///
    /// # Errors
    /// Those of the runner and the log.
    pub async fn drain(&self, log: &dyn millstream_core::Log) -> Result<()> {
        self.drain_by(log, self.subscription.limits).await
    }

    /// As [`Self::drain`], in batches within `limits`.
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

/// A function that no host can run on a topic, because it reads none.
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
