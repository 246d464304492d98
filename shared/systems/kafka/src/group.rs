use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use futures::stream::{self, StreamExt, TryStreamExt};
use millstream_core::{Error, Limits, Result, TopicPartition};
use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    types::RDKafkaRespErr,
};
use tokio::time::Instant;

use crate::{
    member::Member,
    queue::Queue,
    worker::{self, Assigned, Order, Worker},
};

/// How long the member waits for something from the group before it checks whether it must stop.
const TICK: Duration = Duration::from_millis(50);

/// How many partitions start at once: each start asks the sink and the log a few things.
const STARTS_AT_ONCE: usize = 16;

/// What the batches being filled and in flight may hold, two of each partition: at more than 16 partitions with the default
/// `max_bytes` they become smaller.
const BATCHES_BYTES: usize = 512 << 20;
const LEAST_BATCH_BYTES: usize = 256 << 10;

/// How long batches in flight may take to finish when partitions are revoked or the function stops.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// How long an abandoned batch may take to notice, and the client to leave the group.
pub(crate) const LEAVING: Duration = Duration::from_secs(5);

/// The member and the partitions it has: what librdkafka calls when the group changes.
pub(crate) struct Group {
    member: Arc<Member>,
    /// The client that this is the context of; set right after the client is created.
    consumer: OnceLock<Weak<BaseConsumer<Group>>>,
    workers: Mutex<Vec<Worker>>,
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.member.link().log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.member.link().error(error, reason);
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, change: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        if change == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS && !self.member.is_stopping() {
            // librdkafka may hand out partitions twice and revoke none in between, if the topic's partitions have changed before
            // it had an answer to the first time. Two readers of one queue would each see holes in what the other one took.
            self.end_workers();
            if let Err(error) = self.take(partitions) {
                self.member.fail(error);
                // The group waits for an answer, even if it is "no partitions".
                let _ = consumer.unassign();
            }
        } else {
            self.release(consumer);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        match result {
            Ok(()) | Err(KafkaError::ConsumerCommit(Code::NoOffset)) => {}
            Err(error) => tracing::debug!("offsets not committed, which the next commit repairs: {error}"),
        }
    }
}

impl Group {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        Self { member, consumer: OnceLock::new(), workers: Mutex::new(Vec::new()) }
    }

    /// Tells the group the client that it is the context of.
    pub(crate) fn set_consumer(&self, consumer: &Arc<BaseConsumer<Self>>) {
        let _ = self.consumer.set(Arc::downgrade(consumer));
    }

    /// Asks the sink where each partition starts, and starts it there. The offsets are part of the assignment, and each
    /// partition's queue is split off before the assignment, so that no record is read from anywhere else.
    fn take(&self, partitions: &mut TopicPartitionList) -> Result<()> {
        let Some(consumer) = self.consumer.get().and_then(Weak::upgrade) else {
            return Err(Error::retry("the group handed out partitions while this member left it"));
        };
        let wanted: Vec<TopicPartition> =
            partitions.elements().iter().map(|one| self.member.partition(one.topic(), one.partition())).collect();
        let starts = stream::iter(&wanted).map(|one| self.member.handler().start(one)).buffered(STARTS_AT_ONCE);
        let starts: Vec<i64> = self.member.runtime().block_on(starts.try_collect())?;
        let limits = share_limits(wanted.len(), self.member.limits());
        let mut queues = Vec::with_capacity(wanted.len());
        for (one, start) in wanted.iter().zip(&starts) {
            partitions
                .set_partition_offset(&one.topic, one.partition, Offset::Offset(*start))
                .map_err(|error| Error::stop(format!("partition {one} can't start at offset {start}: {error}")))?;
            let queue = Queue::split(&consumer, &one.topic, one.partition)
                .ok_or_else(|| Error::retry(format!("the Kafka client has no room for partition {one}")))?;
            queues.push(queue);
        }
        consumer
            .assign(partitions)
            .map_err(|error| Error::retry("the partitions handed out were not taken").caused_by(error))?;
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let assigned = wanted.into_iter().zip(starts).zip(queues).map(|((partition, start), queue)| {
            tracing::info!(%partition, offset = start, "partition taken");
            Assigned { partition, start, queue }
        });
        worker::spawn(&self.member, assigned.collect(), limits, &mut workers)?;
        self.member.link().mark_reachable();
        Ok(())
    }

    /// Gives all partitions back: finishes the batches in flight, commits, and only then unassigns.
    fn release(&self, consumer: &BaseConsumer<Self>) {
        let had_workers = self.end_workers();
        if had_workers && !consumer.assignment_lost() {
            match consumer.commit_consumer_state(CommitMode::Sync) {
                Ok(()) | Err(KafkaError::ConsumerCommit(Code::NoOffset)) => {}
                Err(error) => tracing::debug!("last offsets not committed: {error}"),
            }
        }
        if let Err(error) = consumer.unassign() {
            tracing::debug!("partitions not given back: {error}");
        }
    }

    /// Finishes the batches in flight. Were there any workers?
    fn end_workers(&self) -> bool {
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in &workers {
            worker.order(Order::Finish);
        }
        let deadline = Instant::now() + GRACE;
        let late: Vec<&Worker> = workers.iter().filter(|worker| !worker.ended_by(deadline)).collect();
        for worker in &late {
            tracing::warn!(partition = %worker.partition(), "a batch did not finish within {GRACE:?}: abandoned");
            worker.order(Order::Abandon);
        }
        let deadline = Instant::now() + LEAVING;
        for worker in late {
            // A batch that never yields keeps its thread; the fence makes its write harmless.
            worker.ended_by(deadline);
        }
        !workers.is_empty()
    }

    /// Restarts all partitions from their fences, after a pause in which a broker may recover.
    fn restart(&self, consumer: &BaseConsumer<Self>) -> Result<()> {
        self.member.pause();
        let partitions = consumer.assignment();
        self.release(consumer);
        match partitions {
            Ok(mut partitions) => self.take(&mut partitions),
            Err(error) => Err(Error::retry("the assignment is not known").caused_by(error)),
        }
    }

    /// Serves the group until the member is to stop.
    pub(crate) fn serve(&self, consumer: &BaseConsumer<Self>) {
        // `None` may also mean that a rebalance was served, so it does not mean that the queue is empty.
        while !self.member.is_stopping() {
            let result = match consumer.poll(TICK) {
                None => Ok(()),
                Some(Ok(record)) => {
                    let what = "a record came outside its partition's queue, where it may have overtaken others";
                    let partition = self.member.partition(record.topic(), record.partition());
                    self.member.ask_restart_at(&partition, record.offset(), Error::retry(what));
                    Ok(())
                }
                Some(Err(error)) => self.check_client_error(error),
            };
            let again = self.member.take_restart();
            let result = if again { result.and_then(|()| self.restart(consumer)) } else { result };
            let result = result.and_then(|()| self.member.link().refusal().map_or(Ok(()), Err));
            if let Err(error) = result {
                self.member.fail(error);
            }
        }
        self.release(consumer);
    }

    /// An error of the client that ends the member. librdkafka recovers from most of them itself.
    fn check_client_error(&self, error: KafkaError) -> Result<()> {
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => self.check_topics(),
            Some(
                code @ (Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::Authentication
                | Code::SaslAuthenticationFailed),
            ) => Err(self.member.link().failure("reading as a consumer group", code)),
            Some(code) if fatal => Err(self.member.link().failure("the group's client gave up", code)),
            _ => {
                tracing::debug!("librdkafka: {error}");
                Ok(())
            }
        }
    }

    /// Metadata may be stale: a broker that has just started knows less than the others.
    fn check_topics(&self) -> Result<()> {
        for topic in self.member.topics() {
            match self.member.control().partitions(topic) {
                Err(error) if !error.is_retry() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The limits of one batch where so many partitions fill batches at once.
fn share_limits(partitions: usize, limits: Limits) -> Limits {
    let share = (BATCHES_BYTES / 2 / partitions.max(1)).max(LEAST_BATCH_BYTES);
    Limits { max_bytes: limits.max_bytes.min(share), ..limits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_partitions_share_what_batches_may_hold() {
        let limits = Limits { max_records: 7, max_bytes: 16 << 20, max_wait_ms: 9 };
        for (partitions, max_bytes) in [(0, 16 << 20), (16, 16 << 20), (64, 4 << 20), (9_999, 256 << 10)] {
            assert_eq!(share_limits(partitions, limits), Limits { max_bytes, ..limits }, "{partitions}");
        }
        // A user's smaller limit stays.
        assert_eq!(share_limits(9_999, Limits { max_bytes: 5, ..limits }).max_bytes, 5);
    }
}
