use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use millstream_core::{Batch, BatchBuilder, Error, Limits, Result, TopicPartition};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode as Code,
};
use tokio::time::Instant;

use crate::{
    control::Control,
    link::Link,
    queue::{Notice, Queue},
    unreadable::{damaged, find_damage, out_of_range, reading},
};

/// How long a read waits for the next record or the end of the log before it fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it goes on without a record while the broker answers that the log goes on: what lies between may be aborted, and is
/// read through without a word.
const LONG_PATIENCE: Duration = Duration::from_secs(300);

/// How long it waits for records before it looks for errors of the client.
const TICK: Duration = Duration::from_millis(100);

/// A client that reads one partition at a time.
pub(crate) struct Reader {
    queue: Queue<Link>,
    /// Where it stands, if it is fetching.
    at: Option<(TopicPartition, i64)>,
    _counted: CountedClient,
}

impl Reader {
    pub(crate) fn new(consumer: BaseConsumer<Link>, clients: &Arc<Clients>) -> Self {
        Self { queue: Queue::new(&Arc::new(consumer)), at: None, _counted: clients.count_one() }
    }

    pub(crate) fn is_fetching(&self) -> bool {
        self.at.is_some()
    }

    /// Would a read at `offset` go on where the last one stopped?
    pub(crate) fn stands_at(&self, partition: &TopicPartition, offset: i64) -> bool {
        self.at.as_ref().is_some_and(|(standing, at)| standing == partition && *at == offset)
    }

    /// Reads one batch of `range`, from its start; blocks the thread.
    pub(crate) fn read(
        &mut self,
        control: &Control,
        partition: &TopicPartition,
        range: &Range<i64>,
        limits: Limits,
    ) -> Result<Batch> {
        if !self.stands_at(partition, range.start) || self.has_old_end(range.start) {
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

    /// Has the client met the end of the log here, at some time since the last read? The log may have grown since.
    fn has_old_end(&mut self, offset: i64) -> bool {
        self.queue.fill(Duration::ZERO);
        matches!(self.queue.peek(), Some(Err(Notice { code: Code::PartitionEOF, offset: end })) if end <= offset)
    }

    fn begin(&mut self, control: &Control, partition: &TopicPartition, offset: i64) -> Result<()> {
        let TopicPartition { topic, partition: number, .. } = partition;
        let partitions = control.partitions(topic)?;
        if !(0..partitions).contains(number) {
            let message = format!("topic {topic} has no partition {number}: it has {partitions}");
            return Err(Error::stop(message));
        }
        // Another queue: what librdkafka says of offsets that are out of range survives in the old one.
        self.queue = Queue::new(&Arc::clone(self.queue.consumer()));
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
        let last = Instant::now() + LONG_PATIENCE;
        loop {
            self.queue.fill(TICK);
            if self.queue.peek().is_some() {
                deadline = Instant::now() + PATIENCE;
            }
            while let Some(record) = self.queue.peek() {
                let record = match record {
                    Ok(record) => record,
                    Err(notice) => return self.judge(control, partition, range, end, notice),
                };
                let offset = record.offset();
                if offset >= range.end {
                    return Ok((range.end, false));
                }
                if !builder.is_empty() && builder.bytes() + record.bytes() > limits.max_bytes {
                    // The batch ends at this record: offsets between the last one and this do not exist.
                    return Ok((offset, true));
                }
                record.push_to(builder);
                self.queue.advance();
                end = end.max(offset + 1);
                if end == range.end {
                    return Ok((end, false));
                }
                if builder.len() >= limits.max_records || builder.bytes() >= limits.max_bytes {
                    return Ok((end, true));
                }
            }
            self.check_client(partition, end)?;
            if Instant::now() >= deadline {
                if Instant::now() < last && control.watermarks(partition).is_ok_and(|held| held.high > end) {
                    deadline = Instant::now() + PATIENCE;
                    continue;
                }
                return Err(self.link().failure(&reading(partition, end), Code::OperationTimedOut));
            }
        }
    }

    /// What an event in the place of a record means: the end of the log, or an error.
    fn judge(
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
            code => Err(match find_damage(code) {
                Some(what) => damaged(partition, end, what),
                None => self.link().failure(&reading(partition, end), code),
            }),
        }
    }

    pub(crate) fn link(&self) -> &Link {
        self.queue.consumer().context()
    }

    /// Lets the client report its errors; fails when the brokers refuse it.
    fn check_client(&self, partition: &TopicPartition, offset: i64) -> Result<()> {
        while let Some(Err(_)) = self.queue.consumer().poll(Duration::ZERO) {}
        match self.link().refusal() {
            Some(refusal) => Err(refusal.context(reading(partition, offset))),
            None => Ok(()),
        }
    }
}

/// Counts the clients that exist now; for the test of their bound.
#[derive(Default)]
pub(crate) struct Clients {
    now: AtomicUsize,
    /// The most that there ever were.
    most: AtomicUsize,
}

impl Clients {
    #[cfg(test)]
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    fn count_one(self: &Arc<Self>) -> CountedClient {
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
