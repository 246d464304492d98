use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use millstream_core::{Error, Handler, Limits, Result, Source, Subscription, TopicPartition};
use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    types::RDKafkaRespErr,
};
use tokio::{runtime::Handle, sync::oneshot, time::Instant};

use crate::{
    Kafka,
    control::{Control, blocking},
    link::Link,
    queue::Queue,
    settings::client_made,
    worker::{Order, Worker},
};

/// How long the member waits for something from the group before it looks whether it is to stop.
const TICK: Duration = Duration::from_millis(50);

/// How long a broker is given to come to itself before it is judged, and before partitions begin again at their fences.
const PAUSE: Duration = Duration::from_millis(500);

/// How often in a row a partition begins again where it could not be read on, before a person is asked.
const MAX_BEGINNINGS: u32 = 10;

/// How often it is looked whether the topics are still those that they were.
const LOOK_AT_TOPICS: Duration = Duration::from_secs(10);

/// Partitions that are started at once: each asks the sink and the log a few things.
const STARTS_AT_ONCE: usize = 16;

/// What the batches in the making and in hand may hold, two of each partition: at more than 16 partitions with the default
/// `max_bytes` they become smaller.
const BATCHES_BYTES: usize = 512 << 20;
const LEAST_BATCH_BYTES: usize = 256 << 10;

/// How long batches in hand may take to finish when a partition goes or the function stops.
const GRACE: Duration = Duration::from_secs(10);

/// How long a batch that is let go of may take to notice, and the client to leave the group.
const LEAVING: Duration = Duration::from_secs(5);

/// A member of a consumer group, as its workers see it.
pub(crate) struct Member {
    link: Link,
    control: Control,
    handler: Arc<dyn Handler>,
    runtime: Handle,
    generations: HashMap<String, u32>,
    limits: Limits,
    failure: Mutex<Option<Error>>,
    /// The offset at which a partition could not be read on, and how often in a row. One entry per partition.
    stuck: Mutex<HashMap<TopicPartition, (i64, u32)>>,
    /// A partition can't be read on from where it stands.
    again: AtomicBool,
    /// The future of `consume` is gone, or something failed.
    ended: AtomicBool,
}

impl Member {
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    pub(crate) fn handler(&self) -> &dyn Handler {
        &*self.handler
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn partition(&self, topic: &str, number: i32) -> TopicPartition {
        TopicPartition::new(topic, self.generations.get(topic).copied().unwrap_or(1), number)
    }

    /// Ends the member; the first error is the one that `consume` returns.
    pub(crate) fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.ended.store(true, Ordering::Release);
    }

    /// Has all partitions begin again at their fences.
    pub(crate) fn begin_again(&self, why: &Error) {
        tracing::warn!("partitions begin again at their fences: {why}");
        self.again.store(true, Ordering::Release);
    }

    /// The same for one that could not be read on at `offset`; if that was so too often already, the function stops. An
    /// error that a person must see anyway is what it stops with.
    pub(crate) fn begin_again_at(&self, partition: &TopicPartition, offset: i64, why: Error) {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, times) = stuck.entry(partition.clone()).or_insert((offset, 0));
        *times = if *at == offset { *times + 1 } else { 1 };
        *at = offset;
        if *times < MAX_BEGINNINGS {
            return self.begin_again(&why);
        }
        self.fail(match why {
            Error::Retry(cause) => Error::stop(format!(
                "topic {}, partition {} can't be read on at offset {offset}, {MAX_BEGINNINGS} times in a row: {cause}",
                partition.topic, partition.partition
            )),
            why => why,
        });
    }

    /// Where a partition could not be read on, if it has not come further since.
    pub(crate) fn stuck_at(&self, partition: &TopicPartition) -> Option<i64> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).get(partition).map(|(at, _)| *at)
    }

    /// It has come further.
    pub(crate) fn unstuck(&self, partition: &TopicPartition) {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).remove(partition);
    }

    /// Gives a broker time to come to itself.
    pub(crate) fn pause(&self) {
        self.runtime.block_on(async { tokio::time::sleep(PAUSE).await });
    }

    fn outcome(&self) -> Result<()> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    fn stopping(&self) -> bool {
        self.ended.load(Ordering::Acquire) || self.handler.stopping()
    }
}

/// The member and the partitions it has: what librdkafka calls when the group changes.
pub(crate) struct Group {
    member: Arc<Member>,
    /// The client that this is the context of; set right after it is made.
    consumer: OnceLock<Weak<BaseConsumer<Group>>>,
    workers: Mutex<Vec<Worker>>,
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.member.link.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.member.link.error(error, reason);
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, change: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        if change == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS && !self.member.stopping() {
            if let Err(error) = self.take(partitions) {
                self.member.fail(error);
                // The group waits for an answer, even for "none".
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
    /// Asks the sink where each partition starts, and starts it there. The offsets go into the assignment itself, and each
    /// partition's queue is split off before it, so that no record is read from anywhere else.
    fn take(&self, partitions: &mut TopicPartitionList) -> Result<()> {
        let Some(consumer) = self.consumer.get().and_then(Weak::upgrade) else {
            return Err(Error::retry("the group handed out partitions while this member left it"));
        };
        let wanted: Vec<TopicPartition> =
            partitions.elements().iter().map(|one| self.member.partition(one.topic(), one.partition())).collect();
        let starts = stream::iter(&wanted).map(|one| self.member.handler.start(one)).buffered(STARTS_AT_ONCE);
        let starts: Vec<i64> = self.member.runtime.block_on(starts.try_collect())?;
        let limits = shared_by(wanted.len(), self.member.limits);
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
        for ((one, start), queue) in wanted.into_iter().zip(starts).zip(queues) {
            tracing::info!(partition = %one, offset = start, "partition taken");
            workers.push(Worker::spawn(self.member.clone(), queue, one, start, limits)?);
        }
        self.member.link.works();
        Ok(())
    }

    /// Gives all partitions back: finishes the batches in hand, commits, and only then lets go.
    fn release(&self, consumer: &BaseConsumer<Self>) {
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in &workers {
            worker.order(Order::Finish);
        }
        let deadline = Instant::now() + GRACE;
        let late: Vec<&Worker> = workers.iter().filter(|worker| !worker.ended_by(deadline)).collect();
        for worker in &late {
            tracing::warn!(partition = %worker.partition(), "a batch did not finish within {GRACE:?}: let go of");
            worker.order(Order::Abandon);
        }
        let deadline = Instant::now() + LEAVING;
        for worker in late {
            // One that never yields keeps its thread; the fence keeps what it does harmless.
            worker.ended_by(deadline);
        }
        if !workers.is_empty() && !consumer.assignment_lost() {
            match consumer.commit_consumer_state(CommitMode::Sync) {
                Ok(()) | Err(KafkaError::ConsumerCommit(Code::NoOffset)) => {}
                Err(error) => tracing::debug!("last offsets not committed: {error}"),
            }
        }
        if let Err(error) = consumer.unassign() {
            tracing::debug!("partitions not given back: {error}");
        }
    }

    /// Begins again at the fences, after a pause in which a broker may come to itself.
    fn begin_again(&self, consumer: &BaseConsumer<Self>) -> Result<()> {
        self.member.pause();
        let partitions = consumer.assignment();
        self.release(consumer);
        match partitions {
            Ok(mut partitions) => self.take(&mut partitions),
            Err(error) => Err(Error::retry("the assignment is not known").caused_by(error)),
        }
    }

    /// Serves the group until the member is to stop.
    fn serve(&self, consumer: &BaseConsumer<Self>) {
        // `None` also says that a rebalance was served: it is no sign that nothing is there.
        while !self.member.stopping() {
            let result = match consumer.poll(TICK) {
                None => Ok(()),
                Some(Ok(record)) => {
                    let what = "a record came outside its partition's queue, where it may have overtaken others";
                    let partition = self.member.partition(record.topic(), record.partition());
                    self.member.begin_again_at(&partition, record.offset(), Error::retry(what));
                    Ok(())
                }
                Some(Err(error)) => self.judge(error),
            };
            let again = self.member.again.swap(false, Ordering::AcqRel);
            let result = if again { result.and_then(|()| self.begin_again(consumer)) } else { result };
            let result = result.and_then(|()| self.member.link.refusal().map_or(Ok(()), Err));
            if let Err(error) = result {
                self.member.fail(error);
            }
        }
        self.release(consumer);
    }

    /// Does an error of the client end the member? Most are librdkafka's to mend.
    fn judge(&self, error: KafkaError) -> Result<()> {
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => self.topics_exist(),
            Some(
                code @ (Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::Authentication
                | Code::SaslAuthenticationFailed),
            ) => Err(self.member.link.failure("reading as a consumer group", code)),
            Some(code) if fatal => Err(self.member.link.failure("the group's client gave up", code)),
            _ => {
                tracing::debug!("librdkafka: {error}");
                Ok(())
            }
        }
    }

    /// Word of a missing topic may be old: a broker that has just started knows less than the others.
    fn topics_exist(&self) -> Result<()> {
        for topic in self.member.generations.keys() {
            match self.member.control.partitions(topic) {
                Err(error) if !error.is_retry() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What a batch may hold where so many partitions make them at once.
fn shared_by(partitions: usize, limits: Limits) -> Limits {
    let share = (BATCHES_BYTES / 2 / partitions.max(1)).max(LEAST_BATCH_BYTES);
    Limits { max_bytes: limits.max_bytes.min(share), ..limits }
}

#[async_trait]
impl Source for Kafka {
    async fn consume(&self, subscription: Subscription, handler: Arc<dyn Handler>) -> Result<()> {
        let member = Arc::new(Member {
            link: Link::new(&self.settings.brokers),
            control: self.control.clone(),
            handler,
            runtime: Handle::current(),
            generations: subscription.topics.iter().cloned().collect(),
            limits: subscription.limits,
            failure: Mutex::new(None),
            stuck: Mutex::default(),
            again: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let _guard = EndWhenDropped(member.clone());
        let topics: Vec<String> = subscription.topics.iter().map(|(topic, _)| topic.clone()).collect();
        let Some(partitions) = count_partitions(&member, &topics).await? else { return Ok(()) };
        let group = Group { member: member.clone(), consumer: OnceLock::new(), workers: Mutex::new(Vec::new()) };
        let config = self.settings.member(&subscription.group, partitions);
        let consumer: Arc<BaseConsumer<Group>> = Arc::new(client_made(config.create_with_context(group))?);
        let _ = consumer.context().consumer.set(Arc::downgrade(&consumer));
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(|error| {
            Error::stop(format!("these topics can't be read: {}", topics.join(", "))).caused_by(error)
        })?;
        // An idempotent producer takes half a second to begin: the first dead letter should not wait for that.
        self.sender.begin()?;
        let (served, left) = serve_on_a_thread(consumer)?;
        tokio::select! {
            never = watch_topics(&member, &topics) => match never {},
            _ = served => {}
            () = overdue(&member) => tracing::warn!("the partitions were not given back in time: left as they are"),
        }
        let outcome = member.outcome();
        // The client's own goodbye is bounded as well: a broker that is gone must not keep a process alive.
        if tokio::time::timeout(LEAVING, left).await.is_err() {
            tracing::warn!("the consumer group was not left within {LEAVING:?}; its session will time out");
        }
        outcome
    }
}

/// Two signals: the partitions are given back, and the group is left.
fn serve_on_a_thread(consumer: Arc<BaseConsumer<Group>>) -> Result<(oneshot::Receiver<()>, oneshot::Receiver<()>)> {
    let (serving, served) = oneshot::channel::<()>();
    let (leaving, left) = oneshot::channel::<()>();
    let body = move || {
        consumer.context().serve(&consumer);
        drop(serving);
        drop(consumer);
        drop(leaving);
    };
    thread::Builder::new()
        .name("consumer-group".into())
        .spawn(body)
        .map_err(|error| Error::retry("the system gives no more threads").caused_by(error))?;
    Ok((served, left))
}

/// How many partitions the topics have, asked until the brokers answer; none when the member is to stop before they do. A
/// missing topic shows here: librdkafka would wait for it for good.
async fn count_partitions(member: &Member, topics: &[String]) -> Result<Option<usize>> {
    let mut count = 0;
    for topic in topics {
        loop {
            let (control, name) = (member.control.clone(), topic.clone());
            let asked = tokio::select! {
                asked = blocking(move || control.partitions(&name)) => asked,
                () = stopping(member) => return Ok(None),
            };
            match asked {
                Ok(partitions) => break count += partitions as usize,
                // It has waited for some seconds, and its client has told of the outage.
                Err(error) if error.is_retry() => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Some(count))
}

/// A topic that is deleted and re-created while it is read is read on by librdkafka at the same offset, as if nothing had
/// happened. So its id is looked at now and then, and when it is another the partitions begin again, where it is judged.
async fn watch_topics(member: &Member, topics: &[String]) -> Infallible {
    let mut known: HashMap<&String, String> = HashMap::new();
    loop {
        for topic in topics {
            let (control, name) = (member.control.clone(), topic.clone());
            // What can't be asked now is asked the next time.
            let Ok(Some(id)) = blocking(move || Ok(control.topic_id_now(&name))).await else { continue };
            if known.insert(topic, id.clone()).is_some_and(|known| known != id) {
                member.begin_again(&Error::retry(format!("topic {topic} has another id: it was re-created")));
            }
        }
        tokio::time::sleep(LOOK_AT_TOPICS).await;
    }
}

/// Ends when the member is to stop.
async fn stopping(member: &Member) {
    while !member.stopping() {
        tokio::time::sleep(TICK).await;
    }
}

/// Ends when the member should have stopped long ago: calls into librdkafka that wait for a broker have no limit of their own.
async fn overdue(member: &Member) {
    stopping(member).await;
    tokio::time::sleep(GRACE + LEAVING + LEAVING).await;
}

/// Ends the member's threads when nobody waits for them any more.
struct EndWhenDropped(Arc<Member>);

impl Drop for EndWhenDropped {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_partitions_share_what_batches_may_hold() {
        let limits = Limits { max_records: 7, max_bytes: 16 << 20, max_wait_ms: 9 };
        for (partitions, max_bytes) in [(0, 16 << 20), (16, 16 << 20), (64, 4 << 20), (9_999, 256 << 10)] {
            assert_eq!(shared_by(partitions, limits), Limits { max_bytes, ..limits }, "{partitions}");
        }
        // A user's smaller limit stays.
        assert_eq!(shared_by(9_999, Limits { max_bytes: 5, ..limits }).max_bytes, 5);
    }
}
