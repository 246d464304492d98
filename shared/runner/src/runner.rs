use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::array::{Array, BinaryArray, RecordBatch};
use millstream_core::{
    Bad, Batch, DeadLetter, DeadLetters, Decode, Decoded, Error, Fence, Late, Limits, Log, MAX_LETTER_KEY_BYTES,
    MAX_LETTER_VALUE_BYTES, OnGap, Result, Sink, Start, TopicPartition, Transform, fault,
};

use crate::{Stats, late};

/// How often one call reads the fence again before it leaves the retry to its host. Two writers that keep fencing each
/// other off each make progress, so a handful is plenty.
const MAX_FENCED: usize = 10;

/// What a runner is made of. Everything comes in from outside, so that tests decide all of it.
pub struct Parts {
    /// The function, as `pipeline.function`: the fence's key and the dead letters' sender.
    pub function: String,
    /// Bytes to columns, by topic.
    pub decoders: BTreeMap<String, Arc<dyn Decode>>,
    /// Columns to rows of the sink's table.
    pub transform: Arc<dyn Transform>,
    /// Where rows and fences live.
    pub sink: Arc<dyn Sink>,
    /// Where records go that can't be processed.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// The log itself, for gaps and first starts.
    pub log: Arc<dyn Log>,
    /// Where to begin without a fence.
    pub start: Start,
    /// What to do about missing records.
    pub on_gap: OnGap,
    /// What to do about late events.
    pub late: Late,
    /// By how much an event may be older than the newest one before it, in milliseconds.
    pub lateness_ms: i64,
    /// How much a gap is healed by at a time (`max_records` and `max_bytes`).
    pub limits: Limits,
}

/// Brings batches of any partitions of one function into its sink, exactly once.
pub struct Runner {
    parts: Parts,
    /// Fences while the instance is warm; read again after any error.
    fences: Mutex<HashMap<TopicPartition, Fence>>,
    /// How often in a row the log ended below the fence of a partition.
    beyond_the_end: Mutex<HashMap<TopicPartition, u32>>,
    stats: Stats,
}

/// What a batch became.
struct Transformed {
    rows: Vec<RecordBatch>,
    bad: Vec<Bad>,
    max_event_time_us: Option<i64>,
}

impl Runner {
    /// A runner of one function.
    pub fn new(parts: Parts) -> Self {
        Self { parts, fences: Mutex::default(), beyond_the_end: Mutex::default(), stats: Stats::default() }
    }

    /// What it has done so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The function, as `pipeline.function`.
    pub fn function(&self) -> &str {
        &self.parts.function
    }

    /// Where its rows and fences live.
    pub fn sink(&self) -> &Arc<dyn Sink> {
        &self.parts.sink
    }

    /// The offset at which a partition is to be read: the fence, created from the function's `start` if there is none.
    ///
    /// # Errors
    /// Those of the sink and the log; `Stop` when the log is not the one that the fence speaks of, because the topic was
    /// re-created or has lost records.
    pub async fn start(&self, partition: &TopicPartition) -> Result<i64> {
        self.forget(partition);
        let fence = self.fence(partition, i64::MAX).await?;
        self.check_records(partition, &fence).await?;
        Ok(fence.next_offset)
    }

    /// Brings a batch into the sink and answers the next offset that the sink expects: every record below it is in, and
    /// the source may be acknowledged up to it. Records below the fence are skipped, missing ones are read from the log.
    ///
    /// # Errors
    /// `Retry`: call again with the same batch. `Stop`: a person must act. Never `Poison` or `Fenced`, which are dealt
    /// with here.
    pub async fn process(&self, batch: Batch) -> Result<i64> {
        let partition = batch.partition().clone();
        let done = self.bring_in(&partition, &batch).await;
        match &done {
            Ok(_) => {}
            Err(_) => self.forget(&partition),
        }
        done.map_err(|error| error.context(format_args!("{} {partition}", self.parts.function)))
    }

    async fn bring_in(&self, partition: &TopicPartition, batch: &Batch) -> Result<i64> {
        let delivered_from = batch.range().start;
        let mut fence = self.fence(partition, delivered_from).await?;
        // A warm fence may be long behind: what looks like a gap may be somebody else's work, and no longer in the log.
        let mut may_be_behind = true;
        let mut fenced = 0;
        let mut narrow = Narrow::default();
        if looks_new(batch, &fence) {
            self.check_topic_id(partition, &fence).await?;
            self.check_records(partition, &fence).await?;
        }
        while let Some(rest) = batch.after(fence.next_offset) {
            let work = match rest.gap(fence.next_offset) {
                Some(_) if self.parts.on_gap != OnGap::Skip && may_be_behind => {
                    may_be_behind = false;
                    self.forget(partition);
                    fence = self.fence(partition, delivered_from).await?;
                    continue;
                }
                Some(gap) if self.parts.on_gap != OnGap::Skip => self.heal(partition, gap).await?,
                _ => rest,
            };
            let work = narrow.cut(work);
            let refused = narrow.refused(&work);
            match self.write(&fence, &work, refused).await {
                Ok(moved) => {
                    may_be_behind = false;
                    narrow.passed();
                    self.remember(partition, &moved);
                    fence = moved;
                }
                Err(Error::Fenced { .. }) if fenced < MAX_FENCED => {
                    fenced += 1;
                    self.forget(partition);
                    fence = self.fence(partition, delivered_from).await?;
                }
                Err(Error::Fenced { .. }) => {
                    return Err(Error::retry("another writer keeps moving the fence of this partition"));
                }
                Err(Error::Poison(fault)) => narrow.poisoned(&work, fault.to_string()),
                Err(Error::TooLarge(_)) if work.len() > 1 => {
                    narrow.halve(&work);
                    // A write that took too long may have been made after all.
                    self.forget(partition);
                    fence = self.fence(partition, delivered_from).await?;
                }
                Err(Error::TooLarge(fault)) => return Err(Error::Retry(fault)),
                Err(error) => return Err(error),
            }
        }
        Ok(fence.next_offset)
    }

    /// The records that a host left out, straight from the log, as much as one batch may hold.
    async fn heal(&self, partition: &TopicPartition, gap: Range<i64>) -> Result<Batch> {
        if self.parts.on_gap == OnGap::Fail {
            return Err(Error::stop(format!(
                "offsets {}..{} were never delivered. Deliver them again, or set `on_gap: heal` to read them from the log",
                gap.start, gap.end
            )));
        }
        tracing::info!(function = %self.parts.function, %partition, from = gap.start, to = gap.end, "reading missing records");
        let healed = self.parts.log.read(partition, gap.clone(), self.parts.limits).await?;
        if healed.range().start != gap.start || healed.range().end <= gap.start {
            return Err(Error::retry(format!("the log answered {:?} for the missing {gap:?}", healed.range())));
        }
        self.stats.healed(healed.len());
        Ok(healed)
    }

    /// Moves the fence over `work` with everything that comes of it. `refused` is why the only record of `work` can't be
    /// stored.
    async fn write(&self, fence: &Fence, work: &Batch, refused: Option<String>) -> Result<Fence> {
        fault::point("runner.before_decode");
        let done = match refused {
            Some(reason) => self.refuse(work, reason),
            None => self.transform(fence, work).await?,
        };
        let without_rows = done.rows.iter().all(|rows| rows.num_rows() == 0);
        if !done.bad.is_empty() {
            fault::point("runner.before_dead_letters");
            // A letter that can't be kept is no fault of a record's: to narrow it down would never end.
            let kept = self.parts.dead_letters.put(&self.letters(work, &done.bad)).await;
            kept.map_err(|error| match error {
                Error::Poison(fault) => Error::stop(format!("the dead letters refuse a letter: {fault}")),
                error => error,
            })?;
            fault::point("runner.after_dead_letters");
        }
        let mut to = fence.clone();
        to.next_offset = work.range().end;
        to.last_timestamp_ms = work.timestamps_ms().values().last().copied().or(fence.last_timestamp_ms);
        to.max_event_time_us = fence.max_event_time_us.max(done.max_event_time_us);
        self.parts.sink.write(work.partition(), fence, &to, &done.rows).await.map_err(|error| match error {
            Error::Poison(fault) if without_rows => {
                Error::stop(format!("the sink refuses a write without rows: {fault}"))
            }
            error => error,
        })?;
        fault::point("runner.after_write");
        let rows = done.rows.iter().map(RecordBatch::num_rows).sum();
        self.stats.written(work.partition(), &to, work.len(), rows, done.bad.len());
        Ok(to)
    }

    /// A record that can't be stored becomes a dead letter. Its event time counts all the same: the records behind it
    /// were judged by it when they were tried together, and some of them may have become late letters then.
    fn refuse(&self, work: &Batch, reason: String) -> Transformed {
        let event_time = self.decode(work).ok().map(|decoded| decoded.event_time);
        let max_event_time_us = event_time.as_ref().and_then(arrow::compute::max);
        Transformed { rows: vec![], bad: vec![Bad { index: 0, reason }], max_event_time_us }
    }

    fn decode(&self, work: &Batch) -> Result<Decoded> {
        let topic = &work.partition().topic;
        let decoder = self.parts.decoders.get(topic).ok_or_else(|| {
            Error::stop(format!("{} does not read topic {topic}; its `from` names others", self.parts.function))
        })?;
        decoder.decode(work)
    }

    async fn transform(&self, fence: &Fence, work: &Batch) -> Result<Transformed> {
        if work.is_empty() {
            return Ok(Transformed { rows: vec![], bad: vec![], max_event_time_us: None });
        }
        let mut decoded = self.decode(work)?;
        let max_event_time_us = arrow::compute::max(&decoded.event_time);
        if self.parts.late == Late::DeadLetter {
            decoded = late::split(decoded, fence.max_event_time_us, self.parts.lateness_ms)?;
        }
        let Decoded { rows, bad, .. } = decoded;
        let topic = &work.partition().topic;
        let rows = if rows.num_rows() == 0 { vec![] } else { self.parts.transform.apply(topic, rows).await? };
        Ok(Transformed { rows, bad, max_event_time_us })
    }

    fn letters(&self, work: &Batch, bad: &[Bad]) -> Vec<DeadLetter> {
        let letter = |bad: &Bad| {
            let index = bad.index;
            let at = |column: &BinaryArray, max_bytes: usize| {
                let bytes = column.is_valid(index).then(|| column.value(index));
                bytes.map(|bytes| bytes[..bytes.len().min(max_bytes)].to_vec())
            };
            let mut headers = work.headers_of(index);
            if headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_LETTER_KEY_BYTES {
                headers.clear();
            }
            let value = work.values();
            DeadLetter {
                function: self.parts.function.clone(),
                position: work.partition().at(work.offsets().value(index)),
                timestamp_ms: work.timestamps_ms().value(index),
                key: at(work.keys(), MAX_LETTER_KEY_BYTES),
                value: at(value, MAX_LETTER_VALUE_BYTES),
                headers,
                value_bytes: if value.is_valid(index) { value.value_length(index) as usize } else { 0 },
                reason: bad.reason.clone(),
            }
        };
        bad.iter().map(letter).collect()
    }

    /// The fence, warm or from the sink. One that has to be created at the log's end begins no later than the records that
    /// a host has delivered already: on Lambda the first of them is what wakes the function.
    async fn fence(&self, partition: &TopicPartition, delivered_from: i64) -> Result<Fence> {
        let cached = self.fences.lock().unwrap_or_else(PoisonError::into_inner).get(partition).cloned();
        if let Some(fence) = cached {
            return Ok(fence);
        }
        let fence = match self.parts.sink.fence(partition).await? {
            Some(mut fence) => {
                let topic_id = self.check_topic_id(partition, &fence).await?;
                if fence.topic_id.is_none() && topic_id.is_some() {
                    // A fence from before: the next write stores the id, if this is the fence's topic.
                    self.check_records(partition, &fence).await?;
                    fence.topic_id = topic_id;
                }
                fence
            }
            None => {
                // Before its offsets: if it is re-created in between, the next look at the id says so.
                let topic_id = self.parts.log.topic_id(&partition.topic).await?;
                let held = self.parts.log.watermarks(partition).await?;
                let start = match self.parts.start {
                    Start::Earliest => held.low,
                    Start::Latest => held.high.min(delivered_from),
                };
                self.parts.sink.create_fence(partition, Fence { topic_id, ..Fence::starting_at(start) }).await?
            }
        };
        self.remember(partition, &fence);
        Ok(fence)
    }

    pub(crate) fn log(&self) -> &dyn Log {
        &*self.parts.log
    }

    pub(crate) fn limits(&self) -> Limits {
        self.parts.limits
    }

    /// Counts how often in a row the log ended below the fence; begins at 1.
    pub(crate) fn one_look_more(&self, partition: &TopicPartition) -> u32 {
        let mut looks = self.beyond_the_end.lock().unwrap_or_else(PoisonError::into_inner);
        let looks = looks.entry(partition.clone()).or_default();
        *looks += 1;
        *looks
    }

    pub(crate) fn reaches_the_fence(&self, partition: &TopicPartition) {
        self.beyond_the_end.lock().unwrap_or_else(PoisonError::into_inner).remove(partition);
    }

    fn remember(&self, partition: &TopicPartition, fence: &Fence) {
        self.fences.lock().unwrap_or_else(PoisonError::into_inner).insert(partition.clone(), fence.clone());
    }

    fn forget(&self, partition: &TopicPartition) {
        self.fences.lock().unwrap_or_else(PoisonError::into_inner).remove(partition);
    }
}

/// The records below the fence are a redelivery, or of another topic of the same name: then all of them are newer than the
/// last one known.
fn looks_new(batch: &Batch, fence: &Fence) -> bool {
    let below = batch.offsets().values().partition_point(|offset| *offset < fence.next_offset);
    let oldest_ms = batch.timestamps_ms().values()[..below].iter().min();
    fence.last_timestamp_ms.zip(oldest_ms).is_some_and(|(known_ms, oldest_ms)| *oldest_ms > known_ms)
}

/// Finds the record that can't be stored: after each refusal half as many records are tried, after each success twice as
/// many. Other cuts give the same tables, so this changes nothing but the pace.
#[derive(Default)]
struct Narrow {
    records: Option<usize>,
    /// The record that was refused alone, and why.
    refused: Option<(i64, String)>,
}

impl Narrow {
    fn cut(&self, work: Batch) -> Batch {
        match self.records {
            Some(records) => work.first(records),
            None => work,
        }
    }

    /// Why the only record of `work` is to be left out, if it was refused just before. It may be another one by now: a gap
    /// is read again each time, and compaction goes on.
    fn refused(&mut self, work: &Batch) -> Option<String> {
        let (offset, reason) = self.refused.take()?;
        (work.offsets().values()[..] == [offset]).then_some(reason)
    }

    fn poisoned(&mut self, work: &Batch, reason: String) {
        if let [offset] = work.offsets().values()[..] {
            self.refused = Some((offset, reason));
        }
        self.halve(work);
    }

    fn halve(&mut self, work: &Batch) {
        self.records = Some((work.len() / 2).max(1));
    }

    fn passed(&mut self) {
        self.records = self.records.map(|records| records.saturating_mul(2));
    }
}
