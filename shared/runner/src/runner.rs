use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use arrow::array::{Array, BinaryArray, RecordBatch};
use futures::FutureExt;
use millstream_core::{
    Bad, Batch, DeadLetter, DeadLetters, Decode, Decoded, Error, Fence, Limits, Log, OnGap, Result, Sink, Start,
    TopicPartition, Transform, fault,
};

use crate::{
    Stats, Timeliness,
    narrow::Narrow,
    partition::{Outcome, Partitions},
    same_topic::compare_topic_ids,
};

/// How many times one call reads the fence again before it leaves the retry to its host. Writers that fence each other
/// still make progress, so a few re-reads suffice.
const MAX_FENCED: usize = 10;
/// What the reason of a dead letter begins with if the store has refused the record, and not the statement.
pub const REFUSED_BY_STORE: &str = "refused by the store: ";

/// The parts of a runner. The caller provides all of them, so that tests can replace any.
pub struct Parts {
    /// The function, as `pipeline.function`: the key of its fences, and the sender of its dead letters.
    pub function: String,
    /// Turn bytes into columns, by topic.
    pub decoders: BTreeMap<String, Arc<dyn Decode>>,
    /// The topics that functions of the pipeline make out of others: only there a record's header says what it was made of,
    /// and what was sent again is dropped. Anybody may have copied such a header to another topic.
    pub hops: BTreeSet<String>,
    /// Turns columns into rows of the sink's table.
    pub transform: Arc<dyn Transform>,
    /// Stores rows and fences.
    pub sink: Arc<dyn Sink>,
    /// Takes the records that can't be processed.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// The log itself, for gaps and first starts.
    pub log: Arc<dyn Log>,
    /// Where to begin if there is no fence.
    pub start: Start,
    /// What to do about missing records.
    pub on_gap: OnGap,
    /// Which events are late, and which are too far ahead.
    pub timeliness: Timeliness,
    /// Does the function stop when it refuses nearly all records, since the mistake must then be in its file? Not when dead
    /// letters are redriven.
    pub stops_when_refused: bool,
    /// How much of a gap is healed at a time (`max_records` and `max_bytes`).
    pub limits: Limits,
}

/// Writes batches of any partitions of one function to its sink, exactly once.
pub struct Runner {
    pub(crate) parts: Parts,
    pub(crate) known: Partitions,
    /// How many partitions each topic and generation had when the function began to read it, as far as that was asked.
    pub(crate) first_partitions: Mutex<HashMap<(String, u32), i32>>,
    stats: Stats,
}

/// The result of transforming a batch.
struct Transformed {
    rows: Vec<RecordBatch>,
    bad: Vec<Bad>,
    outcome: Outcome,
    max_event_time_us: Option<i64>,
}

impl Runner {
    /// A runner for one function.
    pub fn new(parts: Parts) -> Self {
        Self { parts, known: Partitions::default(), first_partitions: Mutex::default(), stats: Stats::default() }
    }

    /// What the runner has done so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The function, as `pipeline.function`.
    pub fn function(&self) -> &str {
        &self.parts.function
    }

    /// The sink with its rows and fences.
    pub fn sink(&self) -> &Arc<dyn Sink> {
        &self.parts.sink
    }

    /// Writes a batch to the sink and returns the next offset that the sink expects: every record below it is in the
    /// sink, and the source may be acknowledged up to it. Records below the fence are skipped; missing ones are read
    /// from the log.
    ///
    /// # Errors
    /// `Retry`: call again with the same batch. `Stop`: a person must act. Never `Poison` or `Fenced`, which are
    /// handled here.
    pub async fn process(&self, batch: Batch) -> Result<i64> {
        let partition = batch.partition().clone();
        let done = self.bring_in(&partition, &batch).await;
        if done.is_err() {
            self.known.forget(&partition);
        }
        done.map_err(|error| error.context(format_args!("{} {partition}", self.parts.function)))
    }

    async fn bring_in(&self, partition: &TopicPartition, batch: &Batch) -> Result<i64> {
        let delivered_from = batch.range().start;
        let mut fence = self.fence(partition, delivered_from).await?;
        // A cached fence may be far behind: what looks like a gap may have been written by another process, and may no
        // longer be in the log.
        let mut may_be_behind = true;
        let mut fenced = 0;
        let mut narrow = Narrow::default();
        if looks_new(batch, &fence) {
            compare_topic_ids(partition, &fence, self.parts.log.topic_id(&partition.topic).await?.as_ref())?;
            self.check_records(partition, &fence).await?;
        }
        while let Some(rest) = batch.after(fence.next_offset) {
            let work = match rest.gap(fence.next_offset) {
                Some(_) if self.parts.on_gap != OnGap::Skip && may_be_behind => {
                    may_be_behind = false;
                    self.known.forget(partition);
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
                    self.known.remember(partition, &moved);
                    fence = moved;
                }
                Err(Error::Fenced { .. }) if fenced < MAX_FENCED => {
                    fenced += 1;
                    self.known.forget(partition);
                    fence = self.fence(partition, delivered_from).await?;
                }
                Err(Error::Fenced { .. }) => {
                    return Err(Error::retry("another writer keeps moving the fence of this partition"));
                }
                Err(Error::Poison(cause)) => narrow.poisoned(&work, cause.to_string()),
                Err(Error::TooLarge(_)) if work.len() > 1 => {
                    narrow.too_large(&work);
                    // A write that timed out may still have succeeded.
                    self.known.forget(partition);
                    fence = self.fence(partition, delivered_from).await?;
                }
                Err(Error::TooLarge(cause)) => return Err(Error::Retry(cause)),
                Err(error) => return Err(error),
            }
        }
        Ok(fence.next_offset)
    }

    /// Reads the records that a host left out from the log, at most as many as one batch may hold.
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

    /// Writes the rows of `work` and moves the fence past it. `refused` is the reason why the only record of `work`
    /// can't be stored.
    async fn write(&self, fence: &Fence, work: &Batch, refused: Option<String>) -> Result<Fence> {
        fault::point("runner.before_decode");
        let is_hop = self.parts.hops.contains(&work.partition().topic);
        let hop = is_hop.then(|| fence.find_new(work)).flatten();
        let new = hop.as_ref().map(|(new, _)| new.as_slice());
        let done = match refused {
            Some(reason) => self.refuse(fence, work, reason),
            None => self.transform(fence, work, new).await?,
        };
        let without_rows = done.rows.iter().all(|rows| rows.num_rows() == 0);
        let _in_flight = match done.bad.first() {
            Some(first) => {
                let in_flight = match self.parts.stops_when_refused {
                    true => self.known.check(work, done.outcome, first)?,
                    false => None,
                };
                self.keep_letters(work, &done.bad).await?;
                in_flight
            }
            None => None,
        };
        let mut to = fence.clone();
        to.next_offset = work.range().end;
        to.last_timestamp_ms = work.timestamps_ms().values().last().copied().or(fence.last_timestamp_ms);
        to.max_event_time_us = done.max_event_time_us;
        if let Some((_, upstream)) = hop {
            to.upstream = upstream;
        }
        let rows: usize = done.rows.iter().map(RecordBatch::num_rows).sum();
        to.rows += rows as i64;
        self.parts.sink.write(work.partition(), fence, &to, &done.rows).await.map_err(|error| match error {
            Error::Poison(cause) if without_rows => {
                Error::stop(format!("the sink refuses a write without rows: {cause}"))
            }
            Error::Poison(cause) => Error::poison(format!("{REFUSED_BY_STORE}{cause}")),
            error => error,
        })?;
        fault::point("runner.after_write");
        self.known.count(work.partition(), done.outcome);
        self.stats.written(work.partition(), &to, work.len(), rows, done.bad.len());
        Ok(to)
    }

    /// Makes the letters of `bad` durable. A process sends each letter once.
    async fn keep_letters(&self, work: &Batch, bad: &[Bad]) -> Result<()> {
        let unsent = self.known.unsent(work, bad);
        if unsent.is_empty() {
            return Ok(());
        }
        fault::point("runner.before_dead_letters");
        // A failed dead-letter write isn't caused by one record, so narrowing down would loop forever.
        self.parts.dead_letters.put(&self.letters(work, &unsent)).await.map_err(|error| match error {
            Error::Poison(cause) => Error::stop(format!("the dead letters refuse a letter: {cause}")),
            error => error,
        })?;
        self.known.sent(work, &unsent);
        fault::point("runner.after_dead_letters");
        Ok(())
    }

    /// A record that can't be stored becomes a dead letter. Its event time still counts: the records after it were
    /// judged by it when they were tried together, and some of them may have become letters because they were late.
    fn refuse(&self, fence: &Fence, work: &Batch, reason: String) -> Transformed {
        let before_us = fence.max_event_time_us;
        let decoded = self.decode(work).and_then(|decoded| self.parts.timeliness.split(decoded, work, before_us));
        Transformed {
            rows: vec![],
            bad: vec![Bad { index: 0, reason }],
            outcome: Outcome { accepted: 0, refused: 1 },
            max_event_time_us: decoded.map_or(before_us, |(_, newest_us)| newest_us),
        }
    }

    fn decode(&self, work: &Batch) -> Result<Decoded> {
        let topic = &work.partition().topic;
        let decoder = self.parts.decoders.get(topic).ok_or_else(|| {
            Error::stop(format!("{} does not read topic {topic}; its `from` names others", self.parts.function))
        })?;
        catch_unwind(AssertUnwindSafe(|| decoder.decode(work))).unwrap_or_else(|_| Err(panicked("the decoder")))
    }

    /// `new` says which records the function that wrote them has not sent before, if one has written them.
    async fn transform(&self, fence: &Fence, work: &Batch, new: Option<&[bool]>) -> Result<Transformed> {
        let before_us = fence.max_event_time_us;
        if work.is_empty() {
            let (outcome, max_event_time_us) = (Outcome::default(), before_us);
            return Ok(Transformed { rows: vec![], bad: vec![], outcome, max_event_time_us });
        }
        let decoded = match new {
            Some(new) => self.decode(work)?.only(new)?,
            None => self.decode(work)?,
        };
        let refused = decoded.bad.len();
        let outcome = Outcome { accepted: work.len().saturating_sub(refused), refused };
        let (decoded, max_event_time_us) = self.parts.timeliness.split(decoded, work, before_us)?;
        let Decoded { rows, bad, .. } = decoded;
        if rows.num_rows() == 0 {
            return Ok(Transformed { rows: vec![], bad, outcome, max_event_time_us });
        }
        let transformed = AssertUnwindSafe(self.parts.transform.apply(&work.partition().topic, rows)).catch_unwind();
        let rows = transformed.await.unwrap_or_else(|_| Err(panicked("the transform")))?;
        Ok(Transformed { rows, bad, outcome, max_event_time_us })
    }

    fn letters(&self, work: &Batch, bad: &[Bad]) -> Vec<DeadLetter> {
        let letter = |bad: &Bad| {
            let index = bad.index;
            let at = |column: &BinaryArray| column.is_valid(index).then(|| column.value(index).to_vec());
            let value = at(work.values());
            let letter = DeadLetter {
                function: self.parts.function.clone(),
                position: work.partition().at(work.offsets().value(index)),
                timestamp_ms: work.timestamps_ms().value(index),
                key: at(work.keys()),
                value_bytes: value.as_ref().map_or(0, Vec::len),
                value,
                headers: work.headers_of(index),
                reason: bad.reason.clone(),
            };
            letter.cut()
        };
        bad.iter().map(letter).collect()
    }
}

/// A panic is a bug that some record has triggered; that record is found like any other that is refused. The text of
/// the panic goes neither into the letter nor into the log: it may quote the record.
fn panicked(during: &str) -> Error {
    Error::poison(format!("a bug in millstream: {during} panicked over this record; please report it with the record"))
}

/// Are the records below the fence those of a re-created topic? Either the batch is a redelivery, or the topic was re-created:
/// then every record is newer than the fence's last timestamp.
fn looks_new(batch: &Batch, fence: &Fence) -> bool {
    let below = batch.offsets().values().partition_point(|offset| *offset < fence.next_offset);
    let oldest_ms = batch.timestamps_ms().values()[..below].iter().min();
    fence.last_timestamp_ms.zip(oldest_ms).is_some_and(|(known_ms, oldest_ms)| *oldest_ms > known_ms)
}
