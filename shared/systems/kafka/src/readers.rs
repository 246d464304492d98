use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use millstream_core::{Batch, Error, Limits, Result, TopicPartition};
use tokio::sync::Semaphore;

use crate::{
    control::{Control, blocking},
    link::Link,
    reader::{Clients, Reader},
    settings::{KafkaSettings, settings_error},
};

/// Readers of one process, at work or idle: each is a client with threads and connections of its own, and holds up to 8 MiB
/// of records. More calls than this wait for one another: a function of 300 partitions reads from each at its start.
const MAX_READERS: usize = 4;

/// Readers outside every group, kept for reuse. A reader that stopped at a limit stands where the next call goes on.
pub(crate) struct Readers {
    settings: Arc<KafkaSettings>,
    idle: Mutex<Vec<Reader>>,
    /// One permit for each reader that is at work.
    permits: Arc<Semaphore>,
    clients: Arc<Clients>,
}

impl Readers {
    pub(crate) fn new(settings: Arc<KafkaSettings>) -> Self {
        Self {
            settings,
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(MAX_READERS)),
            clients: Arc::default(),
        }
    }

    /// Reads one batch of `range` by a reader of its own, which it waits for; blocks no thread of the runtime.
    pub(crate) async fn read(
        self: Arc<Self>,
        control: Control,
        partition: TopicPartition,
        range: Range<i64>,
        limits: Limits,
    ) -> Result<Batch> {
        let closed = |_| Error::stop("internal: the readers of Kafka are closed");
        let permit = self.permits.clone().acquire_owned().await.map_err(closed)?;
        blocking(move || {
            // The reader goes back before the permit is dropped.
            let _permit = permit;
            let mut reader = self.take(&partition, range.start)?;
            let batch = reader.read(&control, &partition, &range, limits);
            self.give_back(reader);
            batch
        })
        .await
    }

    /// A reader that stands at `offset` already, or any idle one, or a new one.
    fn take(&self, partition: &TopicPartition, offset: i64) -> Result<Reader> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = idle.iter().position(|reader| reader.stands_at(partition, offset));
        let free = standing.or_else(|| idle.iter().position(|reader| !reader.is_fetching()));
        if let Some(found) = free {
            return Ok(idle.swap_remove(found));
        }
        // Readers at work hold permits, as the caller does: with the idle ones there would be too many.
        if idle.len() + self.at_work() > MAX_READERS && !idle.is_empty() {
            return Ok(idle.swap_remove(0));
        }
        drop(idle);
        let link = Link::new(&self.settings.brokers);
        let consumer = self.settings.reader().create_with_context(link).map_err(settings_error)?;
        Ok(Reader::new(consumer, &self.clients))
    }

    fn give_back(&self, reader: Reader) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if reader.link().refusal().is_none() {
            idle.push(reader);
        }
    }

    fn at_work(&self) -> usize {
        MAX_READERS - self.permits.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use async_trait::async_trait;
    use millstream_core::{Handler, Log, NewRecord, Producer, Source, Subscription};
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::Kafka;

    const PARTITIONS: usize = 300;
    const LIMITS: Limits = Limits { max_records: 100, max_bytes: 1 << 20, max_wait_ms: 50 };

    /// Reads from each partition at its start, as a function does, and ends when a record of each has come.
    struct Looking {
        kafka: Kafka,
        started: AtomicUsize,
        handled: AtomicUsize,
    }

    #[async_trait]
    impl Handler for Looking {
        async fn start(&self, partition: &TopicPartition) -> Result<i64> {
            let batch = self.kafka.read(partition, 0..1, LIMITS).await?;
            self.started.fetch_add(batch.len(), Ordering::Relaxed);
            Ok(0)
        }

        async fn handle(&self, batch: Batch) -> Result<i64> {
            self.handled.fetch_add(batch.len(), Ordering::Relaxed);
            Ok(batch.range().end)
        }

        fn stopping(&self) -> bool {
            self.handled.load(Ordering::Relaxed) >= PARTITIONS
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_partitions_start_with_few_clients() {
        let cluster = MockCluster::new(1).unwrap();
        let kafka = Kafka::new(KafkaSettings {
            brokers: cluster.bootstrap_servers(),
            config: [].into(),
            profile: crate::Profile::Default,
            compression: millstream_core::Compression::None,
            client_id: "test".into(),
        })
        .unwrap();
        cluster.create_topic("many", PARTITIONS as i32, 1).unwrap();
        let record = |partition| NewRecord { value: Some(vec![7]), partition: Some(partition), ..NewRecord::default() };
        kafka.send("many", (0..PARTITIONS as i32).map(record).collect()).await.unwrap();
        let looking =
            Arc::new(Looking { kafka: kafka.clone(), started: AtomicUsize::new(0), handled: AtomicUsize::new(0) });
        let subscription =
            Subscription { group: "g".into(), topics: vec![("many".into(), 1)], limits: LIMITS, every_ms: None };
        let consumed = kafka.consume(subscription, looking.clone());
        tokio::time::timeout(Duration::from_secs(120), consumed).await.expect("all start in time").unwrap();
        assert_eq!(looking.started.load(Ordering::Relaxed), PARTITIONS);
        assert_eq!(kafka.readers.clients.most(), MAX_READERS);
    }
}
