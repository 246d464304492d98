use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use millstream_core::{Batch, BatchBuilder, Error, Result, TopicPartition};
use rdkafka::{Offset, TopicPartitionList, consumer::Consumer, error::RDKafkaErrorCode as Code};
use tokio::{sync::watch, time::Instant};

use crate::{
    consume::{Group, Member},
    queue::{Notice, Queue},
    read::out_of_range,
};

/// How long a worker waits for records before it looks at its orders again.
const TICK: Duration = Duration::from_millis(50);

/// What a worker is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Read and handle.
    Run,
    /// Handle what has been read, and end.
    Finish,
    /// Let go of the batch that is being handled, and end.
    Abandon,
}

/// The thread of one assigned partition, as its member sees it.
pub(crate) struct Worker {
    partition: TopicPartition,
    orders: watch::Sender<Order>,
    ended: mpsc::Receiver<()>,
}

impl Worker {
    /// Starts a thread that reads `queue` from `start` on.
    pub(crate) fn spawn(
        member: Arc<Member>,
        queue: Queue<Group>,
        partition: TopicPartition,
        start: i64,
    ) -> Result<Self> {
        let (orders, receiver) = watch::channel(Order::Run);
        let (ending, ended) = mpsc::channel::<()>();
        let builder = BatchBuilder::new(partition.clone());
        let task =
            Task { member: member.clone(), queue, partition: partition.clone(), start, builder, orders: receiver };
        let name = format!("{}-{}", partition.topic, partition.partition);
        let body = move || {
            let partition = task.partition.clone();
            let result = catch_unwind(AssertUnwindSafe(|| task.run())).unwrap_or_else(|_| {
                Err(Error::stop(format!("internal: the thread of partition {partition} panicked; the log says where")))
            });
            if let Err(error) = result {
                member.fail(error);
            }
            drop((member, ending));
        };
        thread::Builder::new()
            .name(name)
            .spawn(body)
            .map_err(|error| Error::retry("the system gives no more threads").caused_by(error))?;
        Ok(Self { partition, orders, ended })
    }

    pub(crate) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    pub(crate) fn order(&self, order: Order) {
        self.orders.send_replace(order);
    }

    /// Has it ended by `deadline`?
    pub(crate) fn ended_by(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        self.ended.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

/// The thread's own side.
struct Task {
    member: Arc<Member>,
    queue: Queue<Group>,
    partition: TopicPartition,
    /// Where the next batch begins.
    start: i64,
    builder: BatchBuilder,
    orders: watch::Receiver<Order>,
}

impl Task {
    fn run(mut self) -> Result<()> {
        while let Some(batch) = self.next_batch()? {
            let Some(next_offset) = self.handle(batch)? else { break };
            self.store(next_offset);
        }
        Ok(())
    }

    fn ordered(&self) -> Order {
        *self.orders.borrow()
    }

    /// Reads until a limit is met; `None` when ordered to end.
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let limits = self.member.limits();
        let mut due: Option<Instant> = None;
        loop {
            match self.ordered() {
                Order::Run => {}
                Order::Finish if !self.builder.is_empty() => return Ok(Some(self.seal())),
                Order::Finish | Order::Abandon => return Ok(None),
            }
            let left = due.map_or(TICK, |due| due.saturating_duration_since(Instant::now()).min(TICK));
            self.queue.fill(left);
            while let Some(record) = self.queue.peek() {
                let record = match record {
                    Ok(record) => record,
                    // What was read before it is good; the notice is met again.
                    Err(_) if !self.builder.is_empty() => return Ok(Some(self.seal())),
                    Err(notice) => {
                        self.survive(notice)?;
                        self.queue.advance();
                        continue;
                    }
                };
                if !self.builder.is_empty() && self.builder.bytes() + record.bytes() > limits.max_bytes {
                    return Ok(Some(self.seal()));
                }
                self.push();
                if self.builder.len() >= limits.max_records || self.builder.bytes() >= limits.max_bytes {
                    return Ok(Some(self.seal()));
                }
            }
            let now = Instant::now();
            match due {
                Some(due) if now >= due => return Ok(Some(self.seal())),
                None if !self.builder.is_empty() => {
                    self.member.link().works();
                    due = Some(now + Duration::from_millis(limits.max_wait_ms));
                }
                _ => {}
            }
        }
    }

    fn push(&mut self) {
        if let Some(Ok(record)) = self.queue.peek() {
            let (offset, timestamp_ms) = (record.offset(), record.timestamp_ms());
            self.builder.push(offset, timestamp_ms, record.key(), record.value(), record.headers());
        }
        self.queue.advance();
    }

    /// A batch from where the last one ended. Records are read in order from the fence, so what is missing in between
    /// does not exist.
    fn seal(&mut self) -> Batch {
        // Its end is one past its last record, which is above the start.
        let batch = self.builder.finish_read(self.start, self.start);
        self.start = batch.range().end;
        batch
    }

    /// The offset that may be committed; `None` when ordered to let go.
    fn handle(&mut self, batch: Batch) -> Result<Option<i64>> {
        let (member, orders) = (&self.member, &mut self.orders);
        member.runtime().block_on(async {
            tokio::select! {
                biased;
                handled = member.handler().handle(batch) => handled.map(Some),
                _ = orders.wait_for(|order| *order == Order::Abandon) => Ok(None),
            }
        })
    }

    /// Hands the offset to the client, which commits it within a second. The group's offsets decide nothing: a failure
    /// here costs a look at the wrong lag.
    fn store(&self, next_offset: i64) {
        if self.ordered() == Order::Abandon {
            return;
        }
        let TopicPartition { topic, partition, .. } = &self.partition;
        let mut offsets = TopicPartitionList::with_capacity(1);
        let stored = offsets
            .add_partition_offset(topic, *partition, Offset::Offset(next_offset))
            .and_then(|()| self.queue.consumer().store_offsets(&offsets));
        match stored {
            Ok(()) => self.member.handler().acknowledged(&self.partition, next_offset),
            Err(error) => tracing::debug!(partition = %self.partition, next_offset, "not stored: {error}"),
        }
    }

    /// The queue holds something else than a record. It goes on only where librdkafka does so at the same offset; what it
    /// would skip in any other case must not be skipped, so that the function ends, or begins again at its fence.
    fn survive(&self, notice: Notice) -> Result<()> {
        let TopicPartition { topic, partition, .. } = &self.partition;
        match notice.code {
            Code::AutoOffsetReset => Err(out_of_range(self.member.control(), &self.partition, self.start)),
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                // Word of a missing topic may be old: a broker that has just started knows less than the others.
                match self.member.control().partitions(topic) {
                    Err(error) if !error.is_retry() => Err(error),
                    _ => Ok(()),
                }
            }
            code => {
                let doing = format!("reading topic {topic}, partition {partition} at offset {}", self.start);
                Err(self.member.link().failure(&doing, code))
            }
        }
    }
}
