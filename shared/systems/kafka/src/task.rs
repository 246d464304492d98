use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use millstream_core::{Batch, BatchBuilder, Clock as _, Error, Limits, Result, SystemClock, TopicPartition};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{Consumer, ConsumerContext},
    error::RDKafkaErrorCode as Code,
};
use tokio::{
    sync::{
        oneshot::{self, error::TryRecvError},
        watch,
    },
    task::JoinHandle,
    time::Instant,
};

use crate::{
    bell::Bell,
    member::Member,
    queue::{Notice, Queue},
    unreadable::{damaged, find_damage, out_of_range, reading},
    worker::{Assigned, Order},
};

/// How long a thread waits at most before it looks after its tasks again.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// What is to be done after a step.
#[derive(Debug)]
pub(crate) enum Step {
    /// Another step.
    Again,
    /// Another step when the bell has rung, and at most so long from now.
    Wait(Duration),
    /// Nothing.
    Ended,
}

/// The reading of a partition: it fills one batch while the one before it is handled. Never waits, except for a broker that
/// must say what is wrong.
pub(crate) struct Task<C: ConsumerContext + 'static> {
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
    /// When the batch that is being filled is handled at the latest, if it can be.
    due: Option<Instant>,
    orders: watch::Receiver<Order>,
    bell: Arc<Bell>,
    /// The timestamp of the first record of the batch that is being filled: milliseconds since 1970, -1 where the log has none.
    first_ms: Option<i64>,
    /// How long the last batch took to be handled.
    handled_in: Duration,
    /// A full batch, which waits for the one before it.
    sealed: Option<Batch>,
    /// The batch that is being handled. librdkafka spends several times its bytes on each record, so we keep reading while a
    /// batch is handled.
    handling: Option<Handling>,
    /// How the reading has ended. The task ends when no batch is being handled any more: no other member may take the partition
    /// before that.
    ended: Option<Result<()>>,
}

struct Handling {
    began: Instant,
    task: JoinHandle<()>,
    outcome: oneshot::Receiver<Result<i64>>,
}

impl<C: ConsumerContext + 'static> Task<C> {
    pub(crate) fn new(
        member: Arc<Member>,
        assigned: Assigned<C>,
        limits: Limits,
        orders: watch::Receiver<Order>,
        bell: Arc<Bell>,
    ) -> Self {
        let Assigned { partition, start, mut queue } = assigned;
        queue.ring(bell.clone());
        Self {
            queue,
            start,
            seen_to: start,
            stuck_at: member.stuck_at(&partition),
            limits,
            builder: BatchBuilder::new(partition.clone()),
            due: None,
            first_ms: None,
            handled_in: Duration::ZERO,
            orders,
            bell,
            sealed: None,
            handling: None,
            ended: None,
            partition,
            member,
        }
    }

    pub(crate) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// Does what there is to do.
    pub(crate) fn step(&mut self) -> Result<Step> {
        let busy = self.settle().unwrap_or_else(|error| {
            self.end(Err(error));
            false
        });
        if let Some(ended) = self.ended.take_if(|_| !busy) {
            return ended.map(|()| Step::Ended);
        }
        if busy && (self.ended.is_some() || self.sealed.is_some()) {
            return Ok(Step::Wait(TICK));
        }
        if let Some(batch) = self.sealed.take() {
            self.handle(batch);
        }
        Ok(self.read(self.handling.is_some()).unwrap_or_else(|error| self.end(Err(error))))
    }

    /// Ends the reading; the first error counts.
    fn end(&mut self, outcome: Result<()>) -> Step {
        self.ended = Some(self.ended.take().unwrap_or(Ok(())).and(outcome));
        Step::Again
    }

    fn handle(&mut self, batch: Batch) {
        let (member, bell, (done, outcome)) = (self.member.clone(), self.bell.clone(), oneshot::channel());
        let task = self.member.runtime().spawn(async move {
            // If nobody is there to hear it, the task was abandoned.
            let _ = done.send(member.handler().handle(batch).await);
            bell.ring();
        });
        self.handling = Some(Handling { began: Instant::now(), task, outcome });
    }

    fn order(&self) -> Order {
        *self.orders.borrow()
    }

    /// Is a batch still being handled? Of one that has been, the offset is stored.
    fn settle(&mut self) -> Result<bool> {
        let is_abandoned = self.order() == Order::Abandon;
        let Some(mut handling) = self.handling.take() else { return Ok(false) };
        match handling.outcome.try_recv() {
            Ok(handled) => {
                self.handled_in = handling.began.elapsed();
                self.store(handled?);
            }
            Err(TryRecvError::Closed) if handling.task.is_finished() => match handling.task.now_or_never() {
                Some(Err(lost)) if lost.is_panic() => {
                    let partition = &self.partition;
                    return Err(Error::stop(format!("internal: a batch of {partition} panicked; the log says where")));
                }
                // Abandoned, or the runtime is gone.
                _ => drop(self.end(Ok(()))),
            },
            Err(_) => {
                if is_abandoned {
                    handling.task.abort();
                }
                self.handling = Some(handling);
            }
        }
        Ok(self.handling.is_some())
    }

    /// Takes the records that are there, until a limit is met; `busy` says whether the batch before is still being handled.
    fn read(&mut self, busy: bool) -> Result<Step> {
        match self.order() {
            Order::Run => {}
            Order::Finish if self.has_progress() => return Ok(self.seal()),
            Order::Finish | Order::Abandon => return Ok(self.end(Ok(()))),
        }
        let limits = self.limits;
        let mut step = Step::Wait(TICK);
        self.queue.fill(Duration::ZERO);
        while let Some(record) = self.queue.peek() {
            step = Step::Again;
            let record = match record {
                Ok(record) => record,
                Err(Notice { code: Code::PartitionEOF, offset }) => {
                    self.seen_to = self.seen_to.max(offset);
                    self.note_read(offset);
                    self.queue.advance();
                    continue;
                }
                // The records before the notice are good; the next step meets the notice again.
                Err(_) if !self.builder.is_empty() => return Ok(self.seal()),
                Err(notice) => {
                    match self.judge(notice) {
                        Verdict::Restart(why) => self.member.ask_restart(&why),
                        Verdict::RestartOrStop(why) => self.member.ask_restart_at(&self.partition, self.start, why),
                        Verdict::Stop(error) => return Err(error),
                    }
                    return Ok(self.end(Ok(())));
                }
            };
            if !self.builder.is_empty() && self.builder.bytes() + record.bytes() > limits.max_bytes {
                return Ok(self.seal());
            }
            self.push();
            if self.builder.len() >= limits.max_records || self.builder.bytes() >= limits.max_bytes {
                return Ok(self.seal());
            }
        }
        let now = Instant::now();
        match self.due {
            Some(due) if now < due => Ok(shorter(step, due - now)),
            Some(_) if !busy => Ok(self.seal()),
            // While the previous batch is being handled, this one may as well grow.
            Some(_) => Ok(step),
            None if self.has_progress() => {
                self.member.link().mark_reachable();
                let wait = self.wait();
                self.due = Some(now + wait);
                Ok(shorter(step, wait))
            }
            None => Ok(step),
        }
    }

    /// How long the batch that has begun waits for more records.
    fn wait(&self) -> Duration {
        let is_known = |first_ms: &i64| *first_ms >= 0;
        let age_ms = self.first_ms.filter(is_known).map_or(0, |first_ms| SystemClock.now_us() / 1_000 - first_ms);
        wait(self.limits.max_wait_ms, age_ms, self.handled_in)
    }

    fn push(&mut self) {
        if let Some(Ok(record)) = self.queue.peek() {
            let offset = record.offset();
            self.first_ms.get_or_insert_with(|| record.timestamp_ms().0);
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

    /// Ends the batch: it begins where the last one ended. Records are read in order from the fence, so what is missing in
    /// between does not exist.
    fn seal(&mut self) -> Step {
        // Its end is one past its last record, or above.
        let batch = self.builder.finish_read(self.start, self.seen_to.max(self.start));
        self.start = batch.range().end;
        (self.sealed, self.due, self.first_ms) = (Some(batch), None, None);
        Step::Again
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

/// How long a batch waits for more records whose first one was produced `age_ms` ago, if writing the last batch took `handled_in`.
/// It ends before `max_wait` by both: so its first record is in the sink about `max_wait` after it was produced. But at most by a
/// fifth, since clocks differ, a backlog is old, and a record's timestamp may be that of its event.
fn wait(max_wait_ms: u64, age_ms: i64, handled_in: Duration) -> Duration {
    let wait = Duration::from_millis(max_wait_ms);
    let age = Duration::from_millis(age_ms.max(0).unsigned_abs());
    wait - age.saturating_add(handled_in).min(wait / 5)
}

/// The step, after at most `most`.
fn shorter(step: Step, most: Duration) -> Step {
    match step {
        Step::Wait(wait) => Step::Wait(wait.min(most)),
        step => step,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_early_by_at_most_a_fifth() {
        let written = Duration::from_millis(3);
        for (age_ms, waits_ms) in [(0, 97), (8, 89), (17, 80), (60_000, 80), (i64::MAX, 80), (-1, 97), (i64::MIN, 97)] {
            assert_eq!(wait(100, age_ms, written), Duration::from_millis(waits_ms), "{age_ms}");
        }
        assert_eq!(wait(0, 5, written), Duration::ZERO);
        assert_eq!(wait(100, 0, Duration::MAX), Duration::from_millis(80));
    }
}
