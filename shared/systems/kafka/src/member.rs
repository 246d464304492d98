use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use millstream_core::{Error, Handler, Limits, Result, Subscription, TopicPartition};
use tokio::runtime::Handle;

use crate::{control::Control, link::Link};

/// How long a broker gets to recover before it is judged, and before partitions restart from their fences.
const PAUSE: Duration = Duration::from_millis(500);

/// How many times in a row a partition restarts at an offset that can't be read before the function stops.
const MAX_RESTARTS: u32 = 10;

/// A member of a consumer group, as its workers see it.
pub(crate) struct Member {
    link: Link,
    control: Control,
    handler: Arc<dyn Handler>,
    runtime: Handle,
    generations: HashMap<String, u32>,
    limits: Limits,
    failure: Mutex<Option<Error>>,
    /// The offset that could not be read in each partition, and how many times in a row. One entry per partition.
    stuck: Mutex<HashMap<TopicPartition, (i64, u32)>>,
    /// The partitions have to restart from their fences.
    restart: AtomicBool,
    /// The future of `consume` is gone, or something failed.
    ended: AtomicBool,
}

impl Member {
    /// A member that reads the topics of `subscription`. Must be called within a tokio runtime, which runs `handler`.
    pub(crate) fn new(brokers: &str, control: Control, subscription: &Subscription, handler: Arc<dyn Handler>) -> Self {
        Self {
            link: Link::new(brokers),
            control,
            handler,
            runtime: Handle::current(),
            generations: subscription.topics.iter().cloned().collect(),
            limits: subscription.limits,
            failure: Mutex::new(None),
            stuck: Mutex::default(),
            restart: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

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

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = &String> {
        self.generations.keys()
    }

    pub(crate) fn partition(&self, topic: &str, number: i32) -> TopicPartition {
        TopicPartition::new(topic, self.generations.get(topic).copied().unwrap_or(1), number)
    }

    /// Ends the member; the first error is the one that `consume` returns.
    pub(crate) fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.end();
    }

    /// Ends the member without an error.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Asks for a restart of all partitions from their fences.
    pub(crate) fn ask_restart(&self, why: &Error) {
        tracing::warn!("restarting partitions from their fences: {why}");
        self.restart.store(true, Ordering::Release);
    }

    /// The same for a partition that could not be read at `offset`. After too many times in a row the function stops: with
    /// `why` itself if that isn't transient.
    pub(crate) fn ask_restart_at(&self, partition: &TopicPartition, offset: i64, why: Error) {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, times) = stuck.entry(partition.clone()).or_insert((offset, 0));
        *times = if *at == offset { *times + 1 } else { 1 };
        *at = offset;
        if *times < MAX_RESTARTS {
            return self.ask_restart(&why);
        }
        self.fail(match why {
            Error::Retry(cause) => Error::stop(format!(
                "topic {}, partition {} can't be read on at offset {offset}, {MAX_RESTARTS} times in a row: {cause}",
                partition.topic, partition.partition
            )),
            why => why,
        });
    }

    /// Was a restart asked for since the last call?
    pub(crate) fn take_restart(&self) -> bool {
        self.restart.swap(false, Ordering::AcqRel)
    }

    /// The offset at which a partition could not be read, unless it has been read beyond it since.
    pub(crate) fn stuck_at(&self, partition: &TopicPartition) -> Option<i64> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).get(partition).map(|(at, _)| *at)
    }

    /// The partition has been read beyond the offset where it was stuck.
    pub(crate) fn clear_stuck(&self, partition: &TopicPartition) {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).remove(partition);
    }

    /// Gives a broker time to recover. Blocks the thread.
    pub(crate) fn pause(&self) {
        self.runtime.block_on(async { tokio::time::sleep(PAUSE).await });
    }

    /// The first error that the member failed with.
    pub(crate) fn outcome(&self) -> Result<()> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.ended.load(Ordering::Acquire) || self.handler.stopping()
    }
}
