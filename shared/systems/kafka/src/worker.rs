use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use millstream_core::{Batch, BatchBuilder, Error, Limits, Result, TopicPartition};
use rdkafka::{Offset, TopicPartitionList, consumer::Consumer, error::RDKafkaErrorCode as Code};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{
    consume::{Group, Member},
    queue::{Notice, Queue},
    read::{damage, out_of_range, unreadable},
};

/// How long a worker waits for records before it looks at its orders again.
const TICK: Duration = Duration::from_millis(50);

/// The same while a batch is due, but the one before it is still being handled.
const DUE_TICK: Duration = Duration::from_millis(5);

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
        limits: Limits,
    ) -> Result<Self> {
        let (orders, receiver) = watch::channel(Order::Run);
        let (ending, ended) = mpsc::channel::<()>();
        let builder = BatchBuilder::new(partition.clone());
        let task = Task {
            member: member.clone(),
            queue,
            partition: partition.clone(),
            start,
            limits,
            seen_to: start,
            stuck_at: member.stuck_at(&partition),
            builder,
            orders: receiver,
            handling: None,
        };
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

/// The thread's own side: it reads one batch while the one before it is handled.
struct Task {
    member: Arc<Member>,
    queue: Queue<Group>,
    partition: TopicPartition,
    /// Where the next batch begins.
    start: i64,
    /// Where the log ended when it was last read to its end: nothing stands between the last record and this but aborted
    /// records and transaction markers.
    seen_to: i64,
    /// Where it could not be read on before it began again, until it has.
    stuck_at: Option<i64>,
    limits: Limits,
    builder: BatchBuilder,
    orders: watch::Receiver<Order>,
    /// The batch that is being handled. Librdkafka spends several times its bytes on each record, so they are better read
    /// than left waiting there.
    handling: Option<JoinHandle<Result<i64>>>,
}

impl Task {
    fn run(mut self) -> Result<()> {
        let ended = self.read_and_handle();
        // Whatever ended it: nobody else may take the partition while a batch of it is under way.
        let settled = self.settle();
        ended.and(settled.map(drop))
    }

    fn read_and_handle(&mut self) -> Result<()> {
        while let Some(batch) = self.next_batch()? {
            if !self.settle()? {
                break;
            }
            let member = self.member.clone();
            let handle = async move { member.handler().handle(batch).await };
            self.handling = Some(self.member.runtime().spawn(handle));
        }
        Ok(())
    }

    fn ordered(&self) -> Order {
        *self.orders.borrow()
    }

    /// Is a batch still being handled? One that no longer is hands on its offset.
    fn busy(&mut self) -> Result<bool> {
        match &self.handling {
            Some(handling) if !handling.is_finished() => Ok(true),
            _ => self.settle().map(|_| false),
        }
    }

    /// Reads until a limit is met; `None` when ordered to end.
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let limits = self.limits;
        let mut due: Option<Instant> = None;
        loop {
            match self.ordered() {
                Order::Run => {}
                Order::Finish if self.has_something() => return Ok(Some(self.seal())),
                Order::Finish | Order::Abandon => return Ok(None),
            }
            let left = due.map_or(TICK, |due| due.saturating_duration_since(Instant::now()));
            // A batch that is due and still here waits for the one before it.
            self.queue.fill(if left.is_zero() { DUE_TICK } else { left.min(TICK) });
            while let Some(record) = self.queue.peek() {
                let record = match record {
                    Ok(record) => record,
                    Err(Notice { code: Code::PartitionEOF, offset }) => {
                        self.seen_to = self.seen_to.max(offset);
                        self.passed(offset);
                        self.queue.advance();
                        continue;
                    }
                    // What was read before it is good; the notice is met again.
                    Err(_) if !self.builder.is_empty() => return Ok(Some(self.seal())),
                    Err(notice) => {
                        match self.survive(notice) {
                            After::BeginAgain(why) => self.member.begin_again(&why),
                            After::BeginAgainOrStop(why) => {
                                self.member.begin_again_at(&self.partition, self.start, why);
                            }
                            After::Stop(error) => return Err(error),
                        }
                        return Ok(None);
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
            let busy = self.busy()?;
            let now = Instant::now();
            match due {
                // While the one before it is handled it may as well grow.
                Some(due) if now >= due && !busy => return Ok(Some(self.seal())),
                None if self.has_something() => {
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
            self.passed(offset);
        }
        self.queue.advance();
    }

    /// Read up to here: was this where it was stuck before?
    fn passed(&mut self, offset: i64) {
        if self.stuck_at.is_some_and(|stuck_at| offset >= stuck_at) {
            self.stuck_at = None;
            self.member.unstuck(&self.partition);
        }
    }

    /// Is there a record, or the end of a transaction that the fence can be moved over? A fence that stood before one would
    /// look like a loss once retention has emptied the topic.
    fn has_something(&self) -> bool {
        !self.builder.is_empty() || self.seen_to > self.start
    }

    /// A batch from where the last one ended. Records are read in order from the fence, so what is missing in between
    /// does not exist.
    fn seal(&mut self) -> Batch {
        // Its end is one past its last record, or above.
        let batch = self.builder.finish_read(self.start, self.seen_to.max(self.start));
        self.start = batch.range().end;
        batch
    }

    /// Waits for the batch that is being handled and hands on its offset; false when ordered to let go of it.
    fn settle(&mut self) -> Result<bool> {
        let Some(mut handling) = self.handling.take() else { return Ok(true) };
        let orders = &mut self.orders;
        let handled = self.member.runtime().block_on(async {
            tokio::select! {
                biased;
                handled = &mut handling => Some(handled),
                _ = orders.wait_for(|order| *order == Order::Abandon) => {
                    handling.abort();
                    handling.await.ok().map(Ok)
                }
            }
        });
        match handled {
            Some(Ok(handled)) => self.store(handled?),
            Some(Err(lost)) if lost.is_panic() => {
                let partition = &self.partition;
                return Err(Error::stop(format!("internal: a batch of {partition} panicked; the log says where")));
            }
            // Let go of, or its runtime is gone.
            Some(Err(_)) | None => return Ok(false),
        }
        Ok(true)
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

    /// The queue holds something else than a record. librdkafka would go on behind it, and nothing must be skipped.
    fn survive(&self, notice: Notice) -> After {
        let TopicPartition { topic, partition, .. } = &self.partition;
        let doing = || format!("reading topic {topic}, partition {partition} at offset {}", self.start);
        let error = match notice.code {
            Code::AutoOffsetReset => {
                // A broker that has just come back may not know its own end yet: it is asked after a pause.
                self.member.pause();
                match self.member.control().watermarks(&self.partition) {
                    Ok(held) => out_of_range(&self.partition, self.start, held),
                    Err(error) if error.is_retry() => return After::BeginAgain(error.context(doing())),
                    Err(error) => error.context(doing()),
                }
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                // Word of a missing topic may be old: a broker that has just started knows less than the others. Or the
                // topic was re-created meanwhile, which the start of its partitions finds out.
                match self.member.control().partitions(topic) {
                    Err(error) if !error.is_retry() => error,
                    _ => {
                        let what = format!("topic {topic} was unknown to its broker for a moment");
                        return After::BeginAgain(Error::retry(what));
                    }
                }
            }
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::Resolve
            | Code::SSL => match self.member.link().failure(&doing(), notice.code) {
                error if error.is_retry() => return After::BeginAgain(error),
                error => error,
            },
            code => match damage(code) {
                Some(what) => return After::BeginAgainOrStop(unreadable(&self.partition, self.start, what)),
                None => self.member.link().failure(&doing(), code),
            },
        };
        if error.is_retry() { After::BeginAgainOrStop(error) } else { After::Stop(error) }
    }
}

/// What becomes of a partition whose queue holds something else than a record.
enum After {
    /// It begins again at its fence, however often: an outage, which the host's patience bounds.
    BeginAgain(Error),
    /// It begins again at its fence, and stops the function if it comes no further.
    BeginAgainOrStop(Error),
    /// A person must act.
    Stop(Error),
}
