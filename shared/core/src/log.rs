use std::{ops::Range, sync::Arc};

use async_trait::async_trait;

use crate::{Batch, Error, Position, Result, TopicPartition};

/// How much one batch may hold. Whichever limit is met first ends it; a single record larger than `max_bytes` is a batch
/// of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records.
    pub max_records: usize,
    /// Bytes of keys, values and headers.
    pub max_bytes: usize,
    /// Maximum wait after the first record, in milliseconds; then the batch is delivered even if it isn't full.
    pub max_wait_ms: u64,
}

/// The offsets that a partition holds: `low..high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The oldest offset that retention has left.
    pub low: i64,
    /// One past the newest record.
    pub high: i64,
}

/// A topic, for the `topics` command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
}

/// A log that can be read at any position, outside every consumer group: for healing gaps, audits and first starts.
///
/// Called by the runner, by hosts and by the command line; the caller retries.
#[async_trait]
pub trait Log: Send + Sync {
    /// How many partitions `topic` has; they are numbered from 0.
    ///
    /// # Errors
    /// `Stop` when the topic does not exist, `Retry` when the log can't be reached.
    async fn partitions(&self, topic: &str) -> Result<i32>;

    /// The identity that the log gave the topic when it was created: never the same for two topics, not even for one that
    /// was deleted and created again under its name. None where the log has no such thing (an older broker).
    ///
    /// # Errors
    /// `Stop` when the topic does not exist, `Retry` when the log can't be reached.
    async fn topic_id(&self, _topic: &str) -> Result<Option<String>> {
        Ok(None)
    }

    /// The offsets held now.
    ///
    /// # Errors
    /// `Retry` when the log can't be reached.
    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks>;

    /// Is there anything to be read of a partition yet? Only an event store's partitions begin later than they are known: when the
    /// function that keeps it begins. Until then, the other calls for the partition are `Retry`.
    ///
    /// # Errors
    /// `Retry` when the log can't be reached.
    async fn has_begun(&self, _partition: &TopicPartition) -> Result<bool> {
        Ok(true)
    }

    /// The smallest offset below which every record that the log still has is older than `timestamp_ms` (in milliseconds
    /// since 1970): that of the first record whose timestamp is not before it, in whatever order the timestamps are. `None`
    /// if there is no such record. Called by audits and previews that read only a part of the log.
    ///
    /// It is exact, never an estimate: what is below it may be left unread. A record that the log doesn't deliver, such as
    /// a transaction marker, may be the one that is found. A record without a timestamp (-1) counts as that old.
    ///
    /// # Errors
    /// `Stop` when the topic does not exist, `Retry` when the log can't be reached.
    async fn first_since(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Option<i64>>;

    /// Reads from `range.start` on, up to `range.end` or the limits, whichever comes first. The answer is a
    /// [`crate::Delivery::Read`] batch that starts at `range.start`, ends at or below `range.end`, covers at least one
    /// offset, and vouches for its holes. `limits.max_wait_ms` does not apply: the records are there.
    ///
    /// # Errors
    /// `Stop` when retention has already deleted `range.start`; `Retry` when the log can't be reached, or ends before
    /// `range.start`.
    async fn read(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Result<Batch>;
}

/// Topics by name: made by `millstream up` and `dev`, listed by `topics`.
#[async_trait]
pub trait Topics: Send + Sync {
    /// Creates the topic if it is not there. An existing one is left alone, with the partitions it has.
    /// `config` holds broker settings such as `max.message.bytes`; a log without them ignores it.
    async fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> Result<()>;

    /// Gives the topic more partitions, so that it has `partitions` in all; one that has as many or more is left alone, for
    /// partitions can't be taken away. Records stay where they are, and new ones of a key may go to another partition from
    /// now on.
    ///
    /// # Errors
    /// `Stop` when the topic does not exist or may not be changed, `Retry` when the log can't be reached.
    async fn raise_partitions(&self, name: &str, partitions: i32) -> Result<()>;

    /// All topics but the broker's own, by name.
    async fn topics(&self) -> Result<Vec<TopicInfo>>;

    /// Is there a topic of this name? A log that can't list its topics says so itself.
    ///
    /// # Errors
    /// Those of [`Topics::topics`].
    async fn has_topic(&self, name: &str) -> Result<bool> {
        Ok(self.topics().await?.iter().any(|topic| topic.name == name))
    }
}

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Decides the partition, unless `partition` is set: equal keys go to the same one.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Milliseconds since 1970; `None` lets the log stamp it.
    pub timestamp_ms: Option<i64>,
    /// A partition by number.
    pub partition: Option<i32>,
}

/// Appends records to topics.
#[async_trait]
pub trait Producer: Send + Sync {
    /// Appends all records in their order and returns when every one is durable, with its position (generation 0: a
    /// producer does not know generations). Records of one call that go to the same partition stand there in call order.
    ///
    /// # Errors
    /// On any error, any prefix per partition may have been written: the caller makes a second send harmless (a dead
    /// letter by its key, a hop by its source position) or accepts it (a generator).
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>>;

    /// Finds out whether the topic takes records of these sizes, before any of them is sent. A log without limits takes all.
    ///
    /// # Errors
    /// `Poison` for a record that is too large, whatever else it is sent with; those of [`Producer::send`].
    async fn check_sizes(&self, _topic: &str, _records: &[NewRecord]) -> Result<()> {
        Ok(())
    }
}

/// Which topics a member of a consumer group wants, and how batches are cut.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The consumer group: one per function.
    pub group: String,
    /// Topics with their generation.
    pub topics: Vec<(String, u32)>,
    /// What ends a batch.
    pub limits: Limits,
    /// How often a log that doesn't tell of new records is looked at, in milliseconds; `None` for as often as it thinks best.
    pub every_ms: Option<u64>,
}

impl Subscription {
    /// The generation of a topic; `None` for a topic that is not subscribed to.
    pub fn generation(&self, topic: &str) -> Option<u32> {
        self.topics.iter().find(|(name, _)| name == topic).map(|(_, generation)| *generation)
    }
}

/// A log that hands its partitions out to the members of a consumer group: what the stream host runs on.
#[async_trait]
pub trait Source: Log {
    /// Joins the group and calls `handler` until it says [`Handler::stopping`]; then finishes the batches in flight, commits
    /// and leaves. Partitions are handled in parallel; the batches of one partition come in order and one at a time. Records
    /// are read ahead within the limits of the subscription and no further: that is the backpressure.
    ///
    /// # Errors
    /// The error that `handler` returned, or `Retry` when the log is lost for good.
    async fn consume(&self, subscription: Subscription, handler: Arc<dyn Handler>) -> Result<()>;
}

/// The stream host's side of a [`Source`], which calls it.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Where to start a partition that has just been assigned: the sink's fence, which is created if this is the first
    /// time. Called inside the assignment, before any record is fetched: a seek afterwards would race.
    async fn start(&self, partition: &TopicPartition) -> Result<i64>;

    /// Brings a batch into the sink and returns the offset that may be committed, which is never above the fence.
    /// The handler retries transient errors; an error that it returns ends the source.
    async fn handle(&self, batch: Batch) -> Result<i64, Error>;

    /// Asked at least every 100 ms.
    fn stopping(&self) -> bool;

    /// After each look at a topic that doesn't wake its readers: all that it held is handled, or it can't be read now. For hosts
    /// that run until there is no more.
    fn looked(&self, _topic: &str, _outcome: Result<(), &Error>) {}

    /// After a commit was stored for `partition`; for metrics and fault points.
    fn acknowledged(&self, _partition: &TopicPartition, _next_offset: i64) {}
}
