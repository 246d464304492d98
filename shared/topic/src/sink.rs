use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::lock::{Mutex, MutexGuard};
use millstream_core::{
    Claim, Clock, Error, Fence, Holding, Limits, Log, Owner, OwnerRecord, Producer, Result, Rows, Sink, Table,
    TakeRows, TopicPartition, Topics, WHOLE_TOPIC, meta, term_ended,
};

use crate::{
    event::Event,
    kept::{Kept, Place, say_unsettled},
    prepare::only_more,
    rows::records_of,
    shape::{FencesTopic, Shape},
};

/// Writes a function's rows to a topic, on any log: each row is a record, whose header says what it was made of, and the fences
/// are records of another topic, which is compacted.
///
/// A write announces the records, sends them, and moves the fence then. A crash before the end sends the same records again:
/// readers of the topic that are functions drop what they have seen (see [`millstream_core::Lineage`]); others may see a record
/// twice.
///
/// Records go to the partitions that the topic had when the function began, so that what is sent again comes to the same one.
pub struct TopicSink<L: ?Sized> {
    pub(crate) log: Arc<L>,
    pub(crate) producer: Arc<dyn Producer>,
    pub(crate) fences_producer: Arc<dyn Producer>,
    clock: Arc<dyn Clock>,
    pub(crate) function: String,
    pub(crate) table: Table,
    pub(crate) shape: Shape,
    /// The topic that holds the fences.
    pub(crate) fences: TopicPartition,
    pub(crate) outbox: String,
    pub(crate) kept: Mutex<Kept>,
    pub(crate) term: AtomicI64,
    /// When this value was made, as a part of what no other one has.
    made_at_us: i64,
    /// When the topic's id was compared last.
    looked_at_us: AtomicI64,
}

/// How often a process that writes compares the topic's id.
const LOOK_EVERY_US: i64 = 10_000_000;

/// Numbers what a process writes.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// How much of the fences' topic is read at once.
pub(crate) const PAGE: Limits = Limits { max_records: 10_000, max_bytes: 16 << 20, max_wait_ms: 0 };

/// The columns of a table that are not in a record's value: where it comes from.
pub(crate) const CARRIED: [&str; 3] = [meta::OFFSET, meta::TIMESTAMP, meta::HEADERS];

impl<L: Log + Topics + ?Sized> TopicSink<L> {
    /// A sink of `function` (as `pipeline.function`). `producer` compresses as the topic says, and writes nothing after a record
    /// that has failed.
    pub fn new(
        log: Arc<L>,
        producer: Arc<dyn Producer>,
        fences: FencesTopic,
        function: &str,
        table: Table,
        shape: Shape,
    ) -> Self {
        let FencesTopic { name: fences, outbox, producer: fences_producer, clock } = fences;
        let (fences, function) = (TopicPartition::new(fences, 1, 0), function.to_owned());
        let (kept, term, made_at_us) = (Mutex::default(), AtomicI64::new(0), clock.now_us());
        let looked_at_us = AtomicI64::new(0);
        Self {
            log,
            producer,
            fences_producer,
            clock,
            function,
            table,
            shape,
            fences,
            outbox,
            kept,
            term,
            made_at_us,
            looked_at_us,
        }
    }

    /// A text that no other process, and no other call, has.
    pub(crate) fn unique(&self) -> String {
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        format!("{:x}-{:x}-{number:x}", self.made_at_us, std::process::id())
    }

    /// What the fences' topic says now.
    pub(crate) async fn kept(&self) -> Result<MutexGuard<'_, Kept>> {
        let read = self.kept.lock().await.next;
        let high = self.log.watermarks(&self.fences).await?.high;
        if read <= high {
            return self.kept_up_to(high).await;
        }
        let known = self.kept.lock().await.topic_id.clone();
        self.check_fences_id(known).await?;
        Err(Error::retry(format!("topic {} ends at {high}, and was read up to {read} before", self.fences.topic)))
    }

    /// What the fences' topic says below offset `end`, or further.
    pub(crate) async fn kept_up_to(&self, end: i64) -> Result<MutexGuard<'_, Kept>> {
        let mut kept = self.kept.lock().await;
        while kept.next < end {
            let batch = self.log.read(&self.fences, kept.next..end, PAGE).await?;
            kept.read(&batch)?;
        }
        Ok(kept)
    }

    /// Appends `event`, and returns what is there after that. If two processes append at once, the first one counts.
    pub(crate) async fn tell(&self, event: &Event) -> Result<MutexGuard<'_, Kept>> {
        self.note(vec![event.record(&self.unique())?]).await
    }

    pub(crate) fn place(&self, partition: &TopicPartition) -> Place {
        (self.function.clone(), partition.clone())
    }

    pub(crate) fn table_name(&self) -> &str {
        self.table.public_name()
    }

    pub(crate) fn check_term(&self, kept: &Kept) -> Result<()> {
        let record = kept.owners.get(self.table_name());
        match record.map(|record| record.term) {
            Some(term) if term == self.term.load(Ordering::Relaxed) => Ok(()),
            // Its function writes to another topic by now, or has not begun a term yet.
            None if self.term.load(Ordering::Relaxed) == 0 => Ok(()),
            _ => Err(term_ended(self.table_name(), record)),
        }
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
        if !self.has_fences().await? {
            return Ok(Vec::new());
        }
        let (columns, place) = (self.columns(), (self.shape.topic.clone(), self.shape.generation));
        let made = self.kept().await?.made.get(&place).cloned();
        let other = made.filter(|made| !only_more(&made.columns, &columns) && !only_more(&columns, &made.columns));
        Ok(other.iter().map(|made| self.other_columns(&made.columns, &columns).to_string()).collect())
    }

    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        let known = self.kept.lock().await.topic_id.clone();
        self.check_fences_id(known).await?;
        self.check_made(self.kept().await?).await?;
        Ok(self.kept().await?.fence(&self.place(partition)).cloned())
    }

    async fn create_fence(&self, partition: &TopicPartition, fence: Fence) -> Result<Fence> {
        {
            let kept = self.kept().await?;
            if let Some(there) = kept.fence(&self.place(partition)) {
                return Ok(there.clone());
            }
            // Before its term begins, a function may look where it would start.
            if self.term.load(Ordering::Relaxed) != 0 {
                self.check_term(&kept)?;
            }
        }
        if partition.is_redrive() {
            self.make_outbox().await?;
        }
        let (function, at) = self.place(partition);
        let kept = self.tell(&Event::Start { function, partition: at, fence: fence.clone() }).await?;
        Ok(kept.fence(&self.place(partition)).cloned().unwrap_or(fence))
    }

    async fn settle(&self, partition: &TopicPartition) -> Result<()> {
        self.finish(partition).await
    }

    async fn unsettled(&self, owner: &Owner) -> Result<Vec<String>> {
        if !self.has_fences().await? {
            return Ok(Vec::new());
        }
        let kept = self.kept().await?;
        let filled_by = kept.owners.get(self.table_name()).map_or(&self.function, |record| &record.owner.function);
        let topic = (self.table_name(), self.shape.generation);
        Ok(kept.find_unsettled(filled_by, owner, topic).map(say_unsettled).into_iter().collect())
    }

    async fn write(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()> {
        // What is known already says so most of the time; what is announced then is judged by all that is there.
        let known = self.check_write(&*self.kept.lock().await, partition, from);
        let partitions = match known {
            Ok(partitions) => partitions,
            Err(_) => self.check_write(&*self.kept().await?, partition, from)?,
        };
        self.look_at_topic().await?;
        let records = match records_of(&self.shape, partitions, partition, rows) {
            Ok(records) => records,
            Err(error) => return Err(self.refused(partition, error).await),
        };
        if let Err(error) = self.producer.check_sizes(&self.shape.topic, &records).await {
            return Err(self.refused(partition, error).await);
        }
        self.bring_in(partition, from, to, records).await
    }

    async fn holding(&self) -> Result<Holding> {
        let rows = match self.has_topic(&self.shape.topic).await? {
            false => Rows::Missing,
            true if self.has_records().await? => Rows::Present,
            true => Rows::Empty,
        };
        if !self.has_fences().await? {
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
        let (since, topic) = (self.since(), (self.table_name(), self.shape.generation));
        let Some(event) = self.kept().await?.claimed(owner.clone(), topic, claim, since)? else {
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
        let own = kept.of(&self.function).filter(|(at, _)| at.partition != WHOLE_TOPIC);
        own.map(|(at, held)| (at.clone(), held.fence.clone())).collect()
    }

    /// Is the topic still the one that was prepared? A producer doesn't notice that it was deleted and created again.
    async fn look_at_topic(&self) -> Result<()> {
        let now_us = self.clock.now_us();
        if now_us.saturating_sub(self.looked_at_us.load(Ordering::Relaxed)) >= LOOK_EVERY_US {
            self.check_made(self.kept().await?).await?;
            self.looked_at_us.store(now_us, Ordering::Relaxed);
        }
        Ok(())
    }

    /// How many partitions are written to, if a write may begin at this fence.
    fn check_write(&self, kept: &Kept, partition: &TopicPartition, from: &Fence) -> Result<i32> {
        self.check_term(kept)?;
        let current = kept.fence(&self.place(partition)).map(|fence| fence.next_offset);
        if current != Some(from.next_offset) {
            return Err(Error::Fenced { current });
        }
        let made = kept.made.get(&(self.shape.topic.clone(), self.shape.generation));
        made.map(|made| made.partitions).ok_or_else(|| Error::stop("internal: a topic was not prepared"))
    }

    /// Why records aren't sent. If they are announced, the topic took them before, and a part of them may be there: so none
    /// becomes a dead letter.
    async fn refused(&self, partition: &TopicPartition, error: Error) -> Error {
        let is_announced = self.kept.lock().await.open(&self.place(partition)).next().is_some();
        match error {
            Error::Poison(cause) if is_announced => Error::stop(format!(
                "{cause}; the topic took these records before, and a part of them may be there: undo what has changed since in the \
                 topic's settings or in the pipeline file"
            )),
            error => error,
        }
    }

    async fn has_topic(&self, topic: &str) -> Result<bool> {
        self.log.has_topic(topic).await
    }

    async fn has_fences(&self) -> Result<bool> {
        self.has_topic(&self.fences.topic).await
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
