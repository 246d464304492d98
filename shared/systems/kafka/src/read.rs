use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use millstream_core::{Batch, BatchBuilder, Error, Limits, Log, Result, TopicPartition, Watermarks};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode as Code,
};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    Kafka,
    control::{Control, blocking},
    link::Link,
    queue::{Notice, Queue},
    settings::{KafkaSettings, client_made},
};

/// How long a read waits for the next record or the end of the log before it fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it waits before it hears what else the client has to say.
const TICK: Duration = Duration::from_millis(100);

/// Readers of one process, at work or idle: each is a client with threads and connections of its own, and holds up to 8 MiB
/// while it stands in a log. More calls than this wait for one another: a function of 300 partitions looks into each at its
/// start.
const MAX_READERS: usize = 4;

/// Readers outside every group, kept for reuse. One that stopped at a limit stands where the next call goes on.
pub(crate) struct Readers {
    settings: Arc<KafkaSettings>,
    idle: Mutex<Vec<Reader>>,
    /// One permit for each reader that is at work.
    free: Arc<Semaphore>,
    /// Clients that there are now, and the most that there ever were.
    clients: Arc<Clients>,
}

/// Counts clients; for the test of their bound.
#[derive(Default)]
struct Clients {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Clients {
    fn one_more(self: &Arc<Self>) -> CountedClient {
        self.most.fetch_max(self.now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        CountedClient(self.clone())
    }
}

/// Counts for as long as it lives.
struct CountedClient(Arc<Clients>);

impl Drop for CountedClient {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Readers {
    pub(crate) fn new(settings: Arc<KafkaSettings>) -> Self {
        Self {
            settings,
            idle: Mutex::new(Vec::new()),
            free: Arc::new(Semaphore::new(MAX_READERS)),
            clients: Arc::default(),
        }
    }

    /// One that stands at `offset` already, or any, or a new one.
    fn take(&self, partition: &TopicPartition, offset: i64) -> Result<Reader> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = idle.iter().position(|reader| reader.stands_at(partition, offset));
        let free = standing.or_else(|| idle.iter().position(|reader| reader.at.is_none()));
        if let Some(found) = free {
            return Ok(idle.swap_remove(found));
        }
        // Those at work hold permits, as the caller does: with this many idle ones there would be too many.
        if idle.len() + self.at_work() > MAX_READERS && !idle.is_empty() {
            return Ok(idle.swap_remove(0));
        }
        drop(idle);
        let link = Link::new(&self.settings.brokers);
        let consumer: BaseConsumer<Link> = client_made(self.settings.reader().create_with_context(link))?;
        Ok(Reader { queue: Queue::new(&Arc::new(consumer)), at: None, _counted: self.clients.one_more() })
    }

    fn give_back(&self, reader: Reader) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if reader.link().refusal().is_none() {
            idle.push(reader);
        }
    }

    fn at_work(&self) -> usize {
        MAX_READERS - self.free.available_permits()
    }
}

/// A client that reads one partition at a time.
struct Reader {
    queue: Queue<Link>,
    /// Where it stands, if it is fetching.
    at: Option<(TopicPartition, i64)>,
    _counted: CountedClient,
}

impl Reader {
    fn stands_at(&self, partition: &TopicPartition, offset: i64) -> bool {
        self.at.as_ref().is_some_and(|(standing, at)| standing == partition && *at == offset)
    }

    fn read(
        &mut self,
        control: &Control,
        partition: &TopicPartition,
        range: &Range<i64>,
        limits: Limits,
    ) -> Result<Batch> {
        if !self.stands_at(partition, range.start) {
            self.begin(control, partition, range.start)?;
        }
        self.at = None;
        let mut builder = BatchBuilder::new(partition.clone());
        let outcome = self.collect(control, partition, range, limits, &mut builder);
        match outcome {
            Ok((end, more)) if more => self.at = Some((partition.clone(), end)),
            _ => self.queue.stop(),
        }
        let (end, _) = outcome?;
        Ok(builder.finish_read(range.start, end))
    }

    fn begin(&mut self, control: &Control, partition: &TopicPartition, offset: i64) -> Result<()> {
        let TopicPartition { topic, partition: number, .. } = partition;
        let partitions = control.partitions(topic)?;
        if !(0..partitions).contains(number) {
            let message = format!("topic {topic} has no partition {number}: it has {partitions}");
            return Err(Error::stop(message));
        }
        if !self.queue.start(topic, *number, offset) {
            return Err(Error::retry(format!("topic {topic}, partition {number} can't be read from offset {offset}")));
        }
        Ok(())
    }

    /// Fills `builder`, and says where it ended and whether the reader stands there with more to come.
    fn collect(
        &mut self,
        control: &Control,
        partition: &TopicPartition,
        range: &Range<i64>,
        limits: Limits,
        builder: &mut BatchBuilder,
    ) -> Result<(i64, bool)> {
        let mut end = range.start;
        let mut deadline = Instant::now() + PATIENCE;
        loop {
            self.queue.fill(TICK);
            if self.queue.peek().is_some() {
                deadline = Instant::now() + PATIENCE;
            }
            while let Some(record) = self.queue.peek() {
                let record = match record {
                    Ok(record) => record,
                    Err(notice) => return self.notice(control, partition, range, end, notice),
                };
                let offset = record.offset();
                if offset >= range.end {
                    return Ok((range.end, false));
                }
                if !builder.is_empty() && builder.bytes() + record.bytes() > limits.max_bytes {
                    // Up to this record: what lies between the last one and this does not exist.
                    return Ok((offset, true));
                }
                builder.push(offset, record.timestamp_ms(), record.key(), record.value(), record.headers());
                self.queue.advance();
                end = end.max(offset + 1);
                if end == range.end {
                    return Ok((end, false));
                }
                if builder.len() >= limits.max_records || builder.bytes() >= limits.max_bytes {
                    return Ok((end, true));
                }
            }
            self.listen(partition, end)?;
            if Instant::now() >= deadline {
                return Err(self.link().failure(&reading(partition, end), Code::OperationTimedOut));
            }
        }
    }

    /// What stands in the place of a record: the end of the log, or an error.
    fn notice(
        &self,
        control: &Control,
        partition: &TopicPartition,
        range: &Range<i64>,
        end: i64,
        notice: Notice,
    ) -> Result<(i64, bool)> {
        match notice.code {
            // The end counts aborted records and transaction markers, which are never handed out.
            Code::PartitionEOF if notice.offset > range.start => Ok((notice.offset.min(range.end).max(end), false)),
            Code::PartitionEOF => Err(Error::retry(format!(
                "topic {}, partition {} ends at offset {}: offset {} is not there yet",
                partition.topic, partition.partition, notice.offset, range.start
            ))),
            Code::AutoOffsetReset => {
                let held = control.watermarks(partition).map_err(|error| error.context(reading(partition, end)))?;
                Err(out_of_range(partition, end, held))
            }
            code if damage(code).is_some() => Err(unreadable(partition, end, damage(code).unwrap_or_default())),
            code => Err(self.link().failure(&reading(partition, end), code)),
        }
    }

    fn link(&self) -> &Link {
        self.queue.consumer().context()
    }

    fn listen(&self, partition: &TopicPartition, offset: i64) -> Result<()> {
        while let Some(Err(_)) = self.queue.consumer().poll(Duration::ZERO) {}
        match self.link().refusal() {
            Some(refusal) => Err(refusal.context(reading(partition, offset))),
            None => Ok(()),
        }
    }
}

fn reading(partition: &TopicPartition, offset: i64) -> String {
    format!("reading topic {}, partition {} at offset {offset}", partition.topic, partition.partition)
}

/// Why the broker, which holds `held` of it, has nothing at `offset`: deleted by retention, or not there (yet, or any more).
/// The first needs a person; what becomes of the second is known when the partition is started again.
pub(crate) fn out_of_range(partition: &TopicPartition, offset: i64, held: Watermarks) -> Error {
    let TopicPartition { topic, generation, partition: number } = partition;
    let Watermarks { low, high } = held;
    if offset < low {
        return Error::stop(format!(
            "topic {topic}, partition {number}: offsets {offset}..{low} were deleted by retention before this function read \
             them, so their records are lost to it unless they can be restored upstream. It goes on only behind them, when a \
             person has moved its fence there; there is no command for that yet. In PostgreSQL, while the function is \
             stopped: UPDATE millstream_fences SET next_offset = {low} WHERE topic = '{topic}' AND generation = {generation} \
             AND partition = {number} AND next_offset = {offset} AND function = '…' (pipeline.function). Another name for the \
             function is no way out: under it all that is left would be read once more into the same table. Lengthen the \
             topic's `retention.ms`"
        ));
    }
    if offset > high {
        return Error::retry(format!(
            "topic {topic}, partition {number} ends at offset {high}, but the fence is at {offset}: a broker that has just \
             come back may not know its end yet, or the topic was re-created or has lost records"
        ));
    }
    Error::retry(format!("topic {topic}, partition {number}: the broker had nothing at offset {offset} for a moment"))
}

/// What is wrong with the record batch that a broker gave out, if the batch itself is to blame.
pub(crate) fn damage(code: Code) -> Option<&'static str> {
    match code {
        Code::BadMessage | Code::InvalidMessage => Some("the broker gives out a record batch that is damaged"),
        Code::BadCompression => Some(
            "the broker gives out a record batch that can't be decompressed: it is damaged, or of an unknown codec",
        ),
        Code::NotImplemented => Some("the broker gives out a record batch of a version that this client does not know"),
        _ => None,
    }
}

/// A batch that can't be read, again and again: nothing behind it may be read before a person has acted.
pub(crate) fn unreadable(partition: &TopicPartition, offset: i64, what: &str) -> Error {
    Error::stop(format!(
        "topic {}, partition {}, offset {offset}: {what}. Nothing of this partition is read beyond it. Restore the partition's \
         log on the broker from a replica or a backup; there is no command yet to go on without these records",
        partition.topic, partition.partition
    ))
}

#[async_trait]
impl Log for Kafka {
    async fn partitions(&self, topic: &str) -> Result<i32> {
        let (control, topic) = (self.control.clone(), topic.to_owned());
        blocking(move || control.partitions(&topic)).await
    }

    async fn topic_id(&self, topic: &str) -> Result<Option<String>> {
        let (control, topic) = (self.control.clone(), topic.to_owned());
        blocking(move || control.topic_id(&topic)).await
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks> {
        let (control, partition) = (self.control.clone(), partition.clone());
        blocking(move || control.watermarks(&partition)).await
    }

    async fn read(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Result<Batch> {
        if range.is_empty() {
            return Err(Error::stop(format!("internal: asked to read nothing of {partition}, {range:?}")));
        }
        let (readers, control, partition) = (self.readers.clone(), self.control.clone(), partition.clone());
        let closed = |_| Error::stop("internal: the readers of Kafka are closed");
        let permit = readers.free.clone().acquire_owned().await.map_err(closed)?;
        blocking(move || {
            // The reader goes back before the permit is dropped.
            let _permit = permit;
            let mut reader = readers.take(&partition, range.start)?;
            let batch = reader.read(&control, &partition, &range, limits);
            readers.give_back(reader);
            batch
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::{Handler, NewRecord, Producer, Source, Subscription};
    use rdkafka::mocking::MockCluster;

    use super::*;

    const PARTITIONS: usize = 300;
    const LIMITS: Limits = Limits { max_records: 100, max_bytes: 1 << 20, max_wait_ms: 50 };

    /// Looks into each partition at its start, as a function does, and ends when a record of each has come.
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
        let subscription = Subscription { group: "g".into(), topics: vec![("many".into(), 1)], limits: LIMITS };
        let consumed = kafka.consume(subscription, looking.clone());
        tokio::time::timeout(Duration::from_secs(120), consumed).await.expect("all start in time").unwrap();
        assert_eq!(looking.started.load(Ordering::Relaxed), PARTITIONS);
        assert_eq!(kafka.readers.clients.most.load(Ordering::Relaxed), MAX_READERS);
    }
}
