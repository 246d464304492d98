use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use millstream_core::{Batch, BatchBuilder, Error, Limits, Log, Result, TopicPartition, Watermarks};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode as Code,
};
use tokio::time::Instant;

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

/// Idle readers that are kept for the next call; each holds a connection, and up to 8 MiB while it stands in a log.
const MAX_IDLE: usize = 3;

/// Readers outside every group, kept for reuse. One that stopped at a limit stands where the next call goes on.
pub(crate) struct Readers {
    settings: Arc<KafkaSettings>,
    idle: Mutex<Vec<Reader>>,
}

impl Readers {
    pub(crate) fn new(settings: Arc<KafkaSettings>) -> Self {
        Self { settings, idle: Mutex::new(Vec::new()) }
    }

    /// One that stands at `offset` already, or any, or a new one.
    fn take(&self, partition: &TopicPartition, offset: i64) -> Result<Reader> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = idle.iter().position(|reader| reader.stands_at(partition, offset));
        let free = standing.or_else(|| idle.iter().position(|reader| reader.at.is_none()));
        if let Some(found) = free {
            return Ok(idle.swap_remove(found));
        }
        if idle.len() >= MAX_IDLE {
            return Ok(idle.swap_remove(0));
        }
        drop(idle);
        let link = Link::new(&self.settings.brokers);
        let consumer: BaseConsumer<Link> = client_made(self.settings.reader().create_with_context(link))?;
        Ok(Reader { queue: Queue::new(&Arc::new(consumer)), at: None })
    }

    fn give_back(&self, reader: Reader) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && reader.link().refusal().is_none() {
            idle.push(reader);
        }
    }
}

/// A client that reads one partition at a time.
struct Reader {
    queue: Queue<Link>,
    /// Where it stands, if it is fetching.
    at: Option<(TopicPartition, i64)>,
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
            Code::AutoOffsetReset => match control.watermarks(partition) {
                Ok(marks) if marks.high < end => Err(Error::retry(format!(
                    "topic {}, partition {} ends at offset {}: offset {end} is not there yet",
                    partition.topic, partition.partition, marks.high
                ))),
                _ => Err(out_of_range(control, partition, end)),
            },
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

/// Why the broker has nothing at `offset`: deleted by retention, or never written because the topic was made anew.
pub(crate) fn out_of_range(control: &Control, partition: &TopicPartition, offset: i64) -> Error {
    let TopicPartition { topic, generation, partition: number } = partition;
    match control.watermarks(partition) {
        Err(error) => error.context(reading(partition, offset)),
        Ok(Watermarks { low, .. }) if offset < low => Error::stop(format!(
            "topic {topic}, partition {number}: offsets {offset}..{low} were deleted by retention before this function \
             read them. Restore them upstream, or accept the loss: start the function anew (a new name) behind the gap, and \
             lengthen the topic's `retention.ms`"
        )),
        Ok(Watermarks { high, .. }) if high < offset => Error::stop(format!(
            "topic {topic}, partition {number} ends at offset {high}, but the fence is at {offset}: the topic was made \
             anew. Raise its `generation` in the pipeline file (it is {generation}) to read the new one from its beginning"
        )),
        Ok(_) => Error::retry(format!(
            "topic {topic}, partition {number}: the broker had nothing at offset {offset} for a moment"
        )),
    }
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
        blocking(move || {
            let mut reader = readers.take(&partition, range.start)?;
            let batch = reader.read(&control, &partition, &range, limits);
            readers.give_back(reader);
            batch
        })
        .await
    }
}
