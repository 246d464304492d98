use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use arrow::array::{ArrayRef, RecordBatch};
use async_trait::async_trait;
use futures::lock::{Mutex, MutexGuard};
use millstream_core::{
    Claim, Clock, Decode, Encode, Error, Fence, Holding, Limits, Log, Owner, OwnerRecord, Producer, Result, Rows, Sink,
    Table, TakeRows, TopicPartition, Topics, WHOLE_TOPIC, fault, meta, term_ended, type_name,
};

use crate::{
    kept::{Event, Kept},
    rows::records_of,
};

/// How a function's rows are the records of a topic.
#[derive(Clone)]
pub struct Shape {
    /// The topic that it writes to.
    pub topic: String,
    /// The topic's generation in the pipeline file.
    pub generation: u32,
    /// How many partitions it gets if it is created.
    pub partitions: i32,
    /// What the record's key is made of; it decides the partition. Without it, records have no key, and those that are made of
    /// one partition go to one partition.
    pub key: Option<Key>,
    /// Makes the value of each record, of the columns that are not carried.
    pub encode: Arc<dyn Encode>,
    /// Reads what `encode` has made.
    pub decode: Arc<dyn Decode>,
}

/// The topic that holds fences, which several functions may share.
pub struct FencesTopic {
    /// Its name.
    pub name: String,
    /// Writes to it: a few small records, which need no compression.
    pub producer: Arc<dyn Producer>,
    /// Says when a function has become the owner of its topic.
    pub clock: Arc<dyn Clock>,
}

/// What a record's key is made of.
#[derive(Clone)]
pub struct Key {
    /// The column.
    pub column: String,
    /// Its values as keys; null has none.
    pub texts: Arc<Texts>,
}

/// The values of a column as bytes.
pub type Texts = dyn Fn(&ArrayRef) -> Result<Vec<Option<Vec<u8>>>> + Send + Sync;

/// Writes a function's rows to a topic, on any log: each row is a record, whose header says what it was made of, and the fences
/// are records of another topic, which is compacted.
///
/// A write sends the records first and moves the fence then, so a crash between the two sends them again: readers of the topic
/// that are functions drop what they have seen (see [`millstream_core::Lineage`]); others may see a record twice.
///
/// Records go to the partitions that the topic had when the function began, so that what is sent again comes to the same one.
pub struct TopicSink<L: ?Sized> {
    pub(crate) log: Arc<L>,
    producer: Arc<dyn Producer>,
    fences_producer: Arc<dyn Producer>,
    clock: Arc<dyn Clock>,
    function: String,
    pub(crate) table: Table,
    pub(crate) shape: Shape,
    /// The topic that holds the fences.
    fences: TopicPartition,
    kept: Mutex<Kept>,
    term: AtomicI64,
}

/// How much of the fences' topic is read at once.
const PAGE: Limits = Limits { max_records: 10_000, max_bytes: 16 << 20, max_wait_ms: 0 };

/// The columns of a table that are not in a record's value: where it comes from.
pub(crate) const CARRIED: [&str; 3] = [meta::OFFSET, meta::TIMESTAMP, meta::HEADERS];

impl<L: Log + Topics + ?Sized> TopicSink<L> {
    /// A sink of `function` (as `pipeline.function`). `producer` compresses as the topic says.
    pub fn new(
        log: Arc<L>,
        producer: Arc<dyn Producer>,
        fences: FencesTopic,
        function: &str,
        table: Table,
        shape: Shape,
    ) -> Self {
        let FencesTopic { name: fences, producer: fences_producer, clock } = fences;
        let (fences, function) = (TopicPartition::new(fences, 1, 0), function.to_owned());
        let (kept, term) = (Mutex::default(), AtomicI64::new(0));
        Self { log, producer, fences_producer, clock, function, table, shape, fences, kept, term }
    }

    /// What the fences' topic says now.
    pub(crate) async fn kept(&self) -> Result<MutexGuard<'_, Kept>> {
        let mut kept = self.kept.lock().await;
        let high = self.log.watermarks(&self.fences).await?.high;
        while kept.next < high {
            let batch = self.log.read(&self.fences, kept.next..high, PAGE).await?;
            kept.read(&batch)?;
        }
        Ok(kept)
    }

    /// Appends `event`, and returns what is there after that. If two processes append at once, the first one counts.
    async fn tell(&self, event: &Event) -> Result<MutexGuard<'_, Kept>> {
        self.fences_producer.send(&self.fences.topic, vec![event.record()?]).await?;
        self.kept().await
    }

    pub(crate) fn place(&self, partition: &TopicPartition) -> (String, TopicPartition) {
        (self.function.clone(), partition.clone())
    }

    fn table_name(&self) -> &str {
        self.table.public_name()
    }

    fn columns(&self) -> Vec<(String, String)> {
        let columns = self.table.columns.iter();
        columns.map(|column| (column.name.clone(), type_name(&column.data_type))).collect()
    }

    fn check_term(&self, kept: &Kept) -> Result<()> {
        let record = kept.owners.get(self.table_name());
        match record.map(|record| record.term) {
            Some(term) if term != self.term.load(Ordering::Relaxed) => Err(term_ended(self.table_name(), record)),
            _ => Ok(()),
        }
    }

    async fn make(&self, create: bool, adapts: bool) -> Result<()> {
        if create {
            self.log.create_topic(&self.shape.topic, self.shape.partitions, &[]).await?;
            self.log.create_topic(&self.fences.topic, 1, &[("cleanup.policy", "compact")]).await?;
        }
        let partitions = self.log.partitions(&self.shape.topic).await?;
        let missing = |error: Error| error.context("the topic of the fences");
        let of_fences = self.log.partitions(&self.fences.topic).await.map_err(missing)?;
        if of_fences != 1 {
            return Err(Error::stop(format!(
                "topic {} has {of_fences} partitions, and the fences need one, for their order counts: delete it if it holds nothing, \
                 and let `millstream up` create it",
                self.fences.topic
            )));
        }
        let place = (self.shape.topic.clone(), self.shape.generation);
        let columns = self.columns();
        let made = self.kept().await?.made.get(&place).cloned();
        match made {
            Some(made) if made.columns == columns => Ok(()),
            Some(made) if !adapts || !only_more(&made.columns, &columns) => {
                Err(self.other_columns(&made.columns, &columns))
            }
            made => {
                let partitions = made.map_or(partitions, |made| made.partitions);
                let (topic, generation) = place;
                self.tell(&Event::Made { topic, generation, partitions, columns }).await.map(drop)
            }
        }
    }

    fn other_columns(&self, held: &[(String, String)], own: &[(String, String)]) -> Error {
        let show = |columns: &[(String, String)]| {
            columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect::<Vec<_>>().join(", ")
        };
        Error::stop(format!(
            "the records of topic {} have the fields {}, and the function now makes {}: readers would meet both. Let the function \
             write to a new topic, under a new name of its own; only fields that are added can be adopted",
            self.shape.topic,
            show(held),
            show(own)
        ))
    }
}

#[async_trait]
impl<L: Log + Topics + ?Sized> Sink for TopicSink<L> {
    async fn prepare(&self, create: bool) -> Result<()> {
        self.make(create, false).await
    }

    async fn adopt(&self, owner: &Owner, record: Option<&OwnerRecord>) -> Result<Option<OwnerRecord>> {
        self.make(true, true).await?;
        self.claim(owner, &Claim::Adopt(record.cloned())).await
    }

    async fn misfits(&self) -> Result<Vec<String>> {
        if !self.log.topics().await?.iter().any(|info| info.name == self.fences.topic) {
            return Ok(Vec::new());
        }
        let (columns, place) = (self.columns(), (self.shape.topic.clone(), self.shape.generation));
        let made = self.kept().await?.made.get(&place).cloned();
        let other = made.filter(|made| !only_more(&made.columns, &columns));
        Ok(other.iter().map(|made| self.other_columns(&made.columns, &columns).to_string()).collect())
    }

    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        Ok(self.kept().await?.fences.get(&self.place(partition)).cloned())
    }

    async fn create_fence(&self, partition: &TopicPartition, fence: Fence) -> Result<Fence> {
        {
            let kept = self.kept().await?;
            if let Some(there) = kept.fences.get(&self.place(partition)) {
                return Ok(there.clone());
            }
            // Before its term begins, a function may look where it would start.
            if self.term.load(Ordering::Relaxed) != 0 {
                self.check_term(&kept)?;
            }
        }
        let (function, at) = self.place(partition);
        let kept = self.tell(&Event::Start { function, partition: at, fence: fence.clone() }).await?;
        Ok(kept.fences.get(&self.place(partition)).cloned().unwrap_or(fence))
    }

    async fn write(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()> {
        let partitions = {
            let kept = self.kept().await?;
            self.check_term(&kept)?;
            let current = kept.fences.get(&self.place(partition)).map(|fence| fence.next_offset);
            if current != Some(from.next_offset) {
                return Err(Error::Fenced { current });
            }
            let made = kept.made.get(&(self.shape.topic.clone(), self.shape.generation));
            made.map(|made| made.partitions).ok_or_else(|| Error::stop("internal: a topic was not prepared"))?
        };
        let records = records_of(&self.shape, partitions, partition, rows)?;
        fault::point("topic.before_send");
        if !records.is_empty() {
            self.producer.send(&self.shape.topic, records).await?;
        }
        fault::point("topic.after_send");
        let (function, at) = self.place(partition);
        let term = self.term.load(Ordering::Relaxed);
        let moved = Event::Moved { function, partition: at, fence: to.clone(), term };
        self.fences_producer.send(&self.fences.topic, vec![moved.record()?]).await?;
        fault::point("topic.after_fence");
        Ok(())
    }

    async fn holding(&self) -> Result<Holding> {
        let there = self.log.topics().await?;
        let is_there = |topic: &str| there.iter().any(|info| info.name == topic);
        let rows = match is_there(&self.shape.topic) {
            false => Rows::Missing,
            true if self.has_records().await? => Rows::Present,
            true => Rows::Empty,
        };
        if !is_there(&self.fences.topic) {
            return Ok(Holding { record: None, others: Vec::new(), fences: Vec::new(), rows });
        }
        let kept = self.kept().await?;
        let is_other =
            |record: &&OwnerRecord| record.table != self.table_name() && record.owner.function == self.function;
        Ok(Holding {
            record: kept.owners.get(self.table_name()).cloned(),
            others: kept.owners.values().filter(is_other).cloned().collect(),
            fences: self.own_fences(&kept),
            rows,
        })
    }

    async fn claim(&self, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>> {
        let since = self.since();
        let Some(event) = self.kept().await?.claimed(owner.clone(), self.table_name(), claim, since)? else {
            return Ok(None);
        };
        let kept = self.tell(&event).await?;
        let found = kept.owners.get(self.table_name()).cloned();
        let Event::Claimed { record, .. } = event else { return Ok(None) };
        Ok(found.filter(|found| *found == record))
    }

    fn begin_term(&self, term: i64) {
        self.term.store(term, Ordering::Relaxed);
    }

    async fn scan(&self, take: TakeRows) -> Result<Vec<(TopicPartition, Fence)>> {
        self.read_all(take).await
    }
}

impl<L: Log + Topics + ?Sized> TopicSink<L> {
    pub(crate) fn own_fences(&self, kept: &Kept) -> Vec<(TopicPartition, Fence)> {
        let own =
            kept.fences.iter().filter(|((function, at), _)| *function == self.function && at.partition != WHOLE_TOPIC);
        own.map(|((_, at), fence)| (at.clone(), fence.clone())).collect()
    }

    pub(crate) async fn partitions(&self) -> Result<Vec<TopicPartition>> {
        let count = self.log.partitions(&self.shape.topic).await?;
        Ok((0..count).map(|number| TopicPartition::new(&self.shape.topic, self.shape.generation, number)).collect())
    }

    async fn has_records(&self) -> Result<bool> {
        for partition in self.partitions().await? {
            let held = self.log.watermarks(&partition).await?;
            if held.high > held.low {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn since(&self) -> String {
        // The years 0001 to 9999 are within a clock's microseconds.
        chrono::DateTime::from_timestamp_micros(self.clock.now_us()).unwrap_or_default().format("%F %T UTC").to_string()
    }
}

/// Are all columns there as they were?
fn only_more(before: &[(String, String)], now: &[(String, String)]) -> bool {
    before.iter().all(|column| now.contains(column))
}
