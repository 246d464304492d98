use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use millstream_core::{Batch, BatchBuilder, Error, Limits, Result, TopicPartition};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{Consumer, ConsumerContext},
    error::RDKafkaErrorCode as Code,
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{
    member::Member,
    queue::{Notice, Queue},
    unreadable::{damaged, find_damage, out_of_range, reading},
};

/// How long a worker waits for records before it checks its orders again.
const TICK: Duration = Duration::from_millis(50);

/// The same while a batch is due, but the one before it is still being handled.
const DUE_TICK: Duration = Duration::from_millis(5);

/// What a worker must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Read and handle.
    Run,
    /// Handle what has been read, and end.
    Finish,
    /// Abandon the batch that is being handled, and end.
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
    pub(crate) fn spawn<C: ConsumerContext + 'static>(
        member: Arc<Member>,
        queue: Queue<C>,
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
struct Task<C: ConsumerContext + 'static> {
    member: Arc<Member>,
    queue: Queue<C>,
    partition: TopicPartition,
    /// Where the next batch begins.
    start: i64,
    /// Where the log ended when it was last read to its end: nothing stands between the last record and this but aborted
    /// records and transaction markers.
    seen_to: i64,
    /// The offset that could not be read before the restart, until it has been read.
    stuck_at: Option<i64>,
    limits: Limits,
    builder: BatchBuilder,
    orders: watch::Receiver<Order>,
    /// The batch that is being handled. librdkafka spends several times its bytes on each record, so we keep reading while a
    /// batch is handled.
    handling: Option<JoinHandle<Result<i64>>>,
}

impl<C: ConsumerContext + 'static> Task<C> {
    fn run(mut self) -> Result<()> {
        let ended = self.read_and_handle();
        // However it ended: no other member may take the partition while a batch of it is in flight.
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

    fn order(&self) -> Order {
        *self.orders.borrow()
    }

    /// Is a batch still being handled? A batch that has finished has its offset stored.
    fn is_busy(&mut self) -> Result<bool> {
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
            match self.order() {
                Order::Run => {}
                Order::Finish if self.has_progress() => return Ok(Some(self.seal())),
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
                        self.note_read(offset);
                        self.queue.advance();
                        continue;
                    }
                    // The records before the notice are good; the next call meets the notice again.
                    Err(_) if !self.builder.is_empty() => return Ok(Some(self.seal())),
                    Err(notice) => {
                        match self.judge(notice) {
                            Verdict::Restart(why) => self.member.ask_restart(&why),
                            Verdict::RestartOrStop(why) => {
                                self.member.ask_restart_at(&self.partition, self.start, why);
                            }
                            Verdict::Stop(error) => return Err(error),
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
            let busy = self.is_busy()?;
            let now = Instant::now();
            match due {
                // While the previous batch is being handled, this one may as well grow.
                Some(due) if now >= due && !busy => return Ok(Some(self.seal())),
                None if self.has_progress() => {
                    self.member.link().mark_reachable();
                    due = Some(now + Duration::from_millis(limits.max_wait_ms));
                }
                _ => {}
            }
        }
    }

    fn push(&mut self) {
        if let Some(Ok(record)) = self.queue.peek() {
            let offset = record.offset();
            record.push_to(&mut self.builder);
            self.note_read(offset);
        }
        self.queue.advance();
    }

    /// Notes that the partition was read up to `offset`, which may be beyond where it was stuck.
    fn note_read(&mut self, offset: i64) {
        if self.stuck_at.is_some_and(|stuck_at| offset >= stuck_at) {
            self.stuck_at = None;
            self.member.clear_stuck(&self.partition);
        }
    }

    /// Is there a record, or a transaction marker that the fence can be moved past? A fence that stayed below a marker would
    /// look like a loss once retention has emptied the topic.
    fn has_progress(&self) -> bool {
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

    /// Waits for the batch that is being handled and stores its offset; false when ordered to abandon it.
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
            // Abandoned, or the runtime is gone.
            Some(Err(_)) | None => return Ok(false),
        }
        Ok(true)
    }

    /// Hands the offset to the client, which commits it within a second. Nothing depends on the group's offsets: after a
    /// failure here, the lag that tools show is wrong for a while.
    fn store(&self, next_offset: i64) {
        if self.order() == Order::Abandon {
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

    /// The queue holds an event that isn't a record. librdkafka would go on after it, but no record may be skipped.
    fn judge(&self, notice: Notice) -> Verdict {
        let doing = || reading(&self.partition, self.start);
        let error = match notice.code {
            Code::AutoOffsetReset => {
                // A broker that has just come back may not know the end of its log yet: ask after a pause.
                self.member.pause();
                match self.member.control().watermarks(&self.partition) {
                    Ok(held) => out_of_range(&self.partition, self.start, held),
                    Err(error) if error.is_retry() => return Verdict::Restart(error.context(doing())),
                    Err(error) => error.context(doing()),
                }
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                // Metadata may be stale: a broker that has just started knows less than the others. Or the topic was
                // re-created meanwhile, which the start of its partitions finds out.
                match self.member.control().partitions(&self.partition.topic) {
                    Err(error) if !error.is_retry() => error,
                    _ => {
                        let what = format!("topic {} was unknown to its broker for a moment", self.partition.topic);
                        return Verdict::Restart(Error::retry(what));
                    }
                }
            }
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::Resolve
            | Code::SSL => match self.member.link().failure(&doing(), notice.code) {
                error if error.is_retry() => return Verdict::Restart(error),
                error => error,
            },
            code => match find_damage(code) {
                Some(what) => return Verdict::RestartOrStop(damaged(&self.partition, self.start, what)),
                None => self.member.link().failure(&doing(), code),
            },
        };
        if error.is_retry() { Verdict::RestartOrStop(error) } else { Verdict::Stop(error) }
    }
}

/// What happens to a partition whose queue holds an event that isn't a record.
enum Verdict {
    /// It restarts from its fence, however often: an outage, which the host's patience bounds.
    Restart(Error),
    /// It restarts from its fence, and stops the function if it gets no further.
    RestartOrStop(Error),
    /// A person must act.
    Stop(Error),
}
