use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use millstream_core::{
    Batch, BatchBuilder, Error, Handler, Limits, Log, NewRecord, Position, Producer, Result, Source, Subscription,
    TopicInfo, TopicPartition, Topics, Watermarks,
};
use tokio::{sync::Notify, task::JoinSet};

/// The timestamp of the first record that comes without one; each further one is a millisecond later.
const FIRST_STAMP_MS: i64 = 1_700_000_000_000;
/// How often a waiting consumer looks whether it is to stop; [`Handler::stopping`] allows 100 ms.
const STOPPING_POLL: Duration = Duration::from_millis(20);

/// A log in memory: topics, partitions, retention and compaction. As a [`Source`] it serves one member per group, which
/// gets every partition. Generations mean nothing to it: [`MemoryLog::recreate`] starts a topic over at offset 0.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    state: Arc<Mutex<State>>,
    appended: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<String, Vec<Partition>>,
    committed: HashMap<(String, String, i32), i64>,
    unkeyed: usize,
    stamped: i64,
    /// The id of each topic, where topics have one.
    ids: BTreeMap<String, String>,
    created: usize,
    without_ids: bool,
    /// Ends that are returned in place of the real one, for how many calls more.
    told_ends: HashMap<(String, i32), (i64, usize)>,
    failing_reads: usize,
    failing_watermarks: usize,
}

#[derive(Debug, Default)]
struct Partition {
    low: i64,
    high: i64,
    records: BTreeMap<i64, (i64, NewRecord)>,
}

impl MemoryLog {
    /// Without topics.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one topic.
    pub fn with_topic(topic: &str, partitions: i32) -> Self {
        let log = Self::new();
        log.recreate(topic, partitions);
        log
    }

    /// Appends values without keys to one partition, and returns the offset of the first. Panics when there is no such
    /// partition.
    pub fn append<V: AsRef<[u8]>>(&self, topic: &str, partition: i32, values: impl IntoIterator<Item = V>) -> i64 {
        let mut state = self.state.lock().unwrap();
        let first = state.topics[topic][partition as usize].high;
        for value in values {
            state.append(topic, partition, NewRecord { value: Some(value.as_ref().to_vec()), ..NewRecord::default() });
        }
        self.appended.notify_waiters();
        first
    }

    /// What retention does: everything below `offset` is gone.
    pub fn delete_below(&self, topic: &str, partition: i32, offset: i64) {
        self.with_partition(topic, partition, |partition| {
            partition.low = offset.clamp(partition.low, partition.high);
            partition.records = partition.records.split_off(&partition.low);
        });
    }

    /// What compaction does: the record at `offset` is gone, its neighbours stay.
    pub fn compact_away(&self, topic: &str, partition: i32, offset: i64) {
        self.with_partition(topic, partition, |partition| partition.records.remove(&offset));
    }

    /// Deletes the topic and creates it again, empty, from offset 0, and with another id.
    pub fn recreate(&self, topic: &str, partitions: i32) {
        let fresh = (0..partitions).map(|_| Partition::default()).collect();
        let mut state = self.state.lock().unwrap();
        state.topics.insert(topic.to_owned(), fresh);
        state.created += 1;
        let id = format!("id-{}", state.created);
        state.ids.insert(topic.to_owned(), id);
    }

    /// Its topics have no ids from now on (`false`: they have them again), as with an older broker.
    pub fn without_topic_ids(&self, without: bool) {
        self.state.lock().unwrap().without_ids = without;
    }

    /// The next `times` questions for the end of a partition are answered `end`, as by a broker that has just come back.
    pub fn tell_end(&self, topic: &str, partition: i32, end: i64, times: usize) {
        self.state.lock().unwrap().told_ends.insert((topic.to_owned(), partition), (end, times));
    }

    /// Loses the records from `end` on, and takes new ones there.
    pub fn lose_from(&self, topic: &str, partition: i32, end: i64) {
        self.with_partition(topic, partition, |partition| {
            partition.high = end.clamp(partition.low, partition.high);
            partition.records.split_off(&partition.high);
        });
    }

    /// The next `times` reads fail with `Retry`.
    pub fn fail_next_reads(&self, times: usize) {
        self.state.lock().unwrap().failing_reads = times;
    }

    /// The next `times` questions for watermarks fail with `Retry`.
    pub fn fail_next_watermarks(&self, times: usize) {
        self.state.lock().unwrap().failing_watermarks = times;
    }

    /// Adds partitions to a topic, up to `partitions`.
    pub fn grow(&self, topic: &str, partitions: i32) {
        let mut state = self.state.lock().unwrap();
        let held = state.topics.get_mut(topic).unwrap_or_else(|| panic!("no topic {topic}"));
        held.resize_with(partitions as usize, Partition::default);
    }

    /// What a group has committed for a partition.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        self.state.lock().unwrap().committed.get(&(group.to_owned(), topic.to_owned(), partition)).copied()
    }

    /// All of a partition that is there, as one batch. Panics when there is no such partition.
    pub fn all(&self, partition: &TopicPartition) -> Batch {
        let state = self.state.lock().unwrap();
        let held = &state.topics[&partition.topic][partition.partition as usize];
        held.read(partition, held.low..held.high, UNLIMITED)
    }

    fn with_partition<T>(&self, topic: &str, partition: i32, change: impl FnOnce(&mut Partition) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        let partitions = state.topics.get_mut(topic).unwrap_or_else(|| panic!("no topic {topic}"));
        change(&mut partitions[partition as usize])
    }

    /// Hands one partition to the handler until it says stop.
    async fn consume_partition(
        self,
        group: String,
        partition: TopicPartition,
        limits: Limits,
        handler: Arc<dyn Handler>,
    ) -> Result<()> {
        let mut next = handler.start(&partition).await?;
        while !handler.stopping() {
            let appended = self.appended.notified();
            let marks = self.watermarks(&partition).await?;
            if next >= marks.high {
                let _ = tokio::time::timeout(STOPPING_POLL, appended).await;
                continue;
            }
            let batch = self.read(&partition, next..marks.high, limits).await?;
            next = batch.range().end;
            let committed = handler.handle(batch).await?;
            let key = (group.clone(), partition.topic.clone(), partition.partition);
            self.state.lock().unwrap().committed.insert(key, committed);
            handler.acknowledged(&partition, committed);
        }
        Ok(())
    }
}

const UNLIMITED: Limits = Limits { max_records: usize::MAX, max_bytes: usize::MAX, max_wait_ms: 0 };

impl Partition {
    fn read(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Batch {
        let mut builder = BatchBuilder::new(partition.clone());
        let end = range.end.min(self.high);
        for (offset, (timestamp_ms, record)) in self.records.range(range.start..end) {
            let bytes = size(record);
            let full = builder.len() >= limits.max_records || builder.bytes() + bytes > limits.max_bytes;
            if full && !builder.is_empty() {
                return builder.finish_read(range.start, range.start);
            }
            let headers = record.headers.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
            builder.push(*offset, *timestamp_ms, record.key.as_deref(), record.value.as_deref(), headers);
        }
        builder.finish_read(range.start, end)
    }
}

fn size(record: &NewRecord) -> usize {
    let headers: usize = record.headers.iter().map(|(name, bytes)| name.len() + bytes.len()).sum();
    record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len) + headers
}

impl State {
    fn append(&mut self, topic: &str, partition: i32, record: NewRecord) -> i64 {
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(|| {
            self.stamped += 1;
            FIRST_STAMP_MS + self.stamped - 1
        });
        let held = &mut self.topics.get_mut(topic).expect("the caller looked")[partition as usize];
        let offset = held.high;
        held.records.insert(offset, (timestamp_ms, record));
        held.high += 1;
        offset
    }

    fn held(&self, partition: &TopicPartition) -> Result<&Partition> {
        let partitions = self.topics.get(&partition.topic).ok_or_else(|| missing(&partition.topic))?;
        let at = usize::try_from(partition.partition).ok().and_then(|at| partitions.get(at));
        at.ok_or_else(|| Error::stop(format!("topic {} has no partition {}", partition.topic, partition.partition)))
    }

    fn place(&mut self, partitions: i32, record: &NewRecord) -> i32 {
        let hash = match (&record.partition, &record.key) {
            (Some(partition), _) => return *partition,
            // FNV-1a: any function of the key will do.
            (None, Some(key)) => key
                .iter()
                .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)),
            (None, None) => {
                self.unkeyed += 1;
                self.unkeyed as u64
            }
        };
        (hash % partitions as u64) as i32
    }
}

fn missing(topic: &str) -> Error {
    Error::stop(format!("topic {topic} does not exist: create it with `millstream up`"))
}

#[async_trait]
impl Log for MemoryLog {
    async fn partitions(&self, topic: &str) -> Result<i32> {
        let state = self.state.lock().unwrap();
        state.topics.get(topic).map(|partitions| partitions.len() as i32).ok_or_else(|| missing(topic))
    }

    async fn topic_id(&self, topic: &str) -> Result<Option<String>> {
        let state = self.state.lock().unwrap();
        let id = state.ids.get(topic).ok_or_else(|| missing(topic))?;
        Ok((!state.without_ids).then(|| id.clone()))
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks> {
        let mut state = self.state.lock().unwrap();
        if state.failing_watermarks > 0 {
            state.failing_watermarks -= 1;
            return Err(Error::retry("the log can't be reached (injected)"));
        }
        let held = state.held(partition)?;
        let mut marks = Watermarks { low: held.low, high: held.high };
        if let Some((end, times)) = state.told_ends.get_mut(&(partition.topic.clone(), partition.partition))
            && *times > 0
        {
            *times -= 1;
            marks.high = *end;
        }
        Ok(marks)
    }

    async fn first_since(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Option<i64>> {
        let state = self.state.lock().unwrap();
        let records = &state.held(partition)?.records;
        Ok(records.iter().find(|(_, (stamped_ms, _))| *stamped_ms >= timestamp_ms).map(|(offset, _)| *offset))
    }

    async fn read(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Result<Batch> {
        let mut state = self.state.lock().unwrap();
        if state.failing_reads > 0 {
            state.failing_reads -= 1;
            return Err(Error::retry("the log can't be reached (injected)"));
        }
        let held = state.held(partition)?;
        if range.start < held.low {
            return Err(Error::stop(format!(
                "{partition}: offset {} was deleted by retention; the oldest is {}",
                range.start, held.low
            )));
        }
        if range.start >= held.high {
            return Err(Error::retry(format!("{partition}: the log ends at {}, before {}", held.high, range.start)));
        }
        Ok(held.read(partition, range, limits))
    }
}

#[async_trait]
impl Topics for MemoryLog {
    async fn create_topic(&self, name: &str, partitions: i32, _config: &[(&str, &str)]) -> Result<()> {
        if !self.state.lock().unwrap().topics.contains_key(name) {
            self.recreate(name, partitions);
        }
        Ok(())
    }

    async fn raise_partitions(&self, name: &str, partitions: i32) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let held = state.topics.get_mut(name).ok_or_else(|| missing(name))?;
        held.resize_with(held.len().max(partitions as usize), Partition::default);
        Ok(())
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        let state = self.state.lock().unwrap();
        let info =
            |(name, held): (&String, &Vec<Partition>)| TopicInfo { name: name.clone(), partitions: held.len() as i32 };
        Ok(state.topics.iter().map(info).collect())
    }
}

#[async_trait]
impl Producer for MemoryLog {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        let mut state = self.state.lock().unwrap();
        let partitions = state.topics.get(topic).ok_or_else(|| missing(topic))?.len() as i32;
        let mut positions = Vec::with_capacity(records.len());
        for record in records {
            let to = TopicPartition::new(topic, 0, state.place(partitions, &record));
            state.held(&to)?;
            positions.push(to.at(state.append(topic, to.partition, record)));
        }
        drop(state);
        self.appended.notify_waiters();
        Ok(positions)
    }
}

#[async_trait]
impl Source for MemoryLog {
    async fn consume(&self, subscription: Subscription, handler: Arc<dyn Handler>) -> Result<()> {
        let mut tasks = JoinSet::new();
        for (topic, generation) in &subscription.topics {
            for partition in 0..self.partitions(topic).await? {
                let partition = TopicPartition::new(topic, *generation, partition);
                let (group, limits) = (subscription.group.clone(), subscription.limits);
                tasks.spawn(self.clone().consume_partition(group, partition, limits, handler.clone()));
            }
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|panic| Error::stop("a partition's task panicked").caused_by(panic))??;
        }
        Ok(())
    }
}
