//! The log as rows for one query, read partition by partition up to the fences.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow::{
    array::{BooleanArray, RecordBatch, UInt64Array},
    compute::take_record_batch,
};
use futures::{StreamExt as _, stream::BoxStream};
use millstream_core::{
    Batch, DeadLetters, Decode, Decoded, Error, Fence, Limits, Position, Result, Source, Table, TopicPartition,
    Transform,
};
use millstream_runner::{REFUSED_BY_STORE, Timeliness};
use millstream_sql::{LogRows, ReadFailed};

use crate::{
    decode::decode,
    letters::{Judged, Letters},
};

/// The most records and bytes that are read and decoded at once.
const MAX_RECORDS: usize = 20_000;
const MAX_BYTES: usize = 8 << 20;
/// How many positions are kept of records that are lost, and how many letters are looked at; all are counted.
const MAX_POSITIONS: usize = 1_000;

/// What decides of each record whether it is a row.
pub(crate) struct Judges {
    pub(crate) decoders: BTreeMap<String, Arc<dyn Decode>>,
    pub(crate) timeliness: Timeliness,
    pub(crate) transform: Arc<dyn Transform>,
    /// The table that rows go to.
    pub(crate) table: Table,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    /// The function, as `pipeline.function`.
    pub(crate) function: String,
}

/// One pass over the log.
pub(crate) struct Pass {
    pub(crate) log: Arc<dyn Source>,
    pub(crate) judges: Judges,
    pub(crate) limits: Limits,
    pub(crate) lanes: usize,
    /// Each batch from its last record to its first, and batches cut differently: everything that depends on the order
    /// sees another one.
    pub(crate) reversed: bool,
    /// Set before it runs.
    pub(crate) input: OnceLock<Input>,
    /// Offsets read so far.
    pub(crate) read: AtomicU64,
    /// Rows that the statement was given.
    pub(crate) given: AtomicU64,
    seen: Mutex<Seen>,
}

/// What is read.
#[derive(Clone, Default)]
pub(crate) struct Input {
    /// The offsets of each partition.
    pub(crate) ranges: Vec<(TopicPartition, Range<i64>)>,
    /// The function's dead letters.
    pub(crate) letters: Arc<Letters>,
    /// Records that can be decoded, but for which an expression can't be computed.
    pub(crate) refused: HashSet<Position>,
}

impl Input {
    /// All that is below the fences, from where the function began.
    pub(crate) fn of(fences: &[(TopicPartition, Fence)], letters: Arc<Letters>) -> Self {
        let range = |(at, fence): &(TopicPartition, Fence)| (at.clone(), fence.start_offset..fence.next_offset);
        Self { ranges: fences.iter().map(range).collect(), letters, refused: HashSet::new() }
    }
}

/// What a pass has seen of records that are no rows.
#[derive(Default)]
pub(crate) struct Seen {
    /// Which lanes of which topic have been counted: a statement may read a topic twice.
    counted: BTreeSet<(String, usize)>,
    pub(crate) records: u64,
    pub(crate) dead_letters: u64,
    /// Records that can't be processed and are no dead letters, with the reason.
    pub(crate) lost: Vec<(Position, String)>,
    pub(crate) total_lost: u64,
    /// Dead letters that were not looked at, because there are too many.
    pub(crate) not_checked: u64,
    /// Why reading has failed.
    pub(crate) error: Option<Error>,
}

impl Pass {
    pub(crate) fn new(log: Arc<dyn Source>, judges: Judges, limits: Limits, lanes: usize) -> Self {
        let limits = Limits {
            max_records: limits.max_records.clamp(MAX_RECORDS / 4, MAX_RECORDS),
            max_bytes: limits.max_bytes.min(MAX_BYTES),
            max_wait_ms: 0,
        };
        let (input, seen) = (OnceLock::new(), Mutex::default());
        let (read, given) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { log, judges, limits, lanes, reversed: false, input, read, given, seen }
    }

    /// What has been seen.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The offsets that it reads in all.
    pub(crate) fn total(&self) -> u64 {
        let ranges = self.input.get().into_iter().flat_map(|input| &input.ranges);
        ranges.map(|(_, range)| (range.end - range.start).unsigned_abs()).sum()
    }

    /// The topics as tables.
    pub(crate) fn tables(self: &Arc<Self>) -> BTreeMap<String, Arc<dyn LogRows>> {
        let topic = |topic: &String| {
            let rows: Arc<dyn LogRows> = Arc::new(TopicRows { pass: Arc::clone(self), topic: topic.clone() });
            (topic.clone(), rows)
        };
        self.judges.decoders.keys().map(topic).collect()
    }

    /// Reads a batch and decodes it. Too many records at once are halved. Also returns the records' offsets.
    pub(crate) async fn next(&self, at: &mut Place, counts: bool) -> Result<(RecordBatch, Vec<i64>)> {
        loop {
            let limits = Limits { max_records: at.records, ..self.limits };
            let batch = self.log.read(&at.partition, at.range.clone(), limits).await?;
            match self.rows(&batch, at.newest_us, counts).await {
                Ok((rows, newest_us)) => {
                    if counts {
                        self.read.fetch_add((batch.range().end - at.range.start).unsigned_abs(), Ordering::Relaxed);
                    }
                    at.range.start = batch.range().end;
                    at.newest_us = newest_us;
                    at.records = self.records_at_once();
                    return Ok((rows, batch.offsets().values().to_vec()));
                }
                Err(Error::TooLarge(_)) if batch.len() > 1 => at.records = batch.len() / 2,
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn records_at_once(&self) -> usize {
        if self.reversed { self.limits.max_records.div_ceil(2) } else { self.limits.max_records }
    }

    /// The rows of a batch, and the newest event time after it.
    async fn rows(&self, batch: &Batch, newest_us: Option<i64>, counts: bool) -> Result<(RecordBatch, Option<i64>)> {
        let decoder = self.judges.decoders.get(&batch.partition().topic);
        let decoder = decoder.ok_or_else(|| Error::stop(format!("internal: no decoder for {}", batch.partition())))?;
        let (timely, newest_us) = self.judges.timeliness.split(decode(decoder.as_ref(), batch)?, batch, newest_us)?;
        let decoded = self.without_letters(batch, timely, counts).await?;
        let rows = decoded.rows;
        Ok((if self.reversed { reversed(&rows)? } else { rows }, newest_us))
    }

    /// Leaves out the records that are dead letters, although they can be decoded and are timely, if the statement or the
    /// store has refused them.
    async fn without_letters(&self, batch: &Batch, decoded: Decoded, counts: bool) -> Result<Decoded> {
        let Some(Input { letters, refused, .. }) = self.input.get() else {
            return Err(Error::stop("internal: it is not known what to read"));
        };
        let position = |index: usize| batch.partition().at(batch.offsets().value(index));
        let is_letter = |index: usize| letters.contains(batch.partition(), batch.offsets().value(index));
        let mut keep = vec![true; decoded.index.len()];
        for (row, index) in decoded.index.iter().enumerate() {
            if is_letter(*index) {
                let alone = decoded.rows.slice(row, 1);
                keep[row] = self.is_letter_wrong(&position(*index), alone).await?;
            } else if !refused.is_empty() && refused.contains(&position(*index)) {
                keep[row] = false;
            }
        }
        if counts {
            let mut seen = self.seen();
            seen.records += batch.len() as u64;
            seen.dead_letters += decoded.index.iter().filter(|index| is_letter(**index)).count() as u64;
            for bad in &decoded.bad {
                match is_letter(bad.index) {
                    true => seen.dead_letters += 1,
                    false => seen.lose(position(bad.index), bad.reason.clone()),
                }
            }
        }
        let keep = BooleanArray::from(keep);
        if keep.false_count() == 0 { Ok(decoded) } else { decoded.filter(&keep) }
    }

    /// Is there a letter of the record at `position`, although the statement and the rules of all stores accept its row? A
    /// record that the store itself has refused can't be tried again without writing.
    async fn is_letter_wrong(&self, position: &Position, row: RecordBatch) -> Result<bool> {
        let Some(Input { letters, .. }) = self.input.get() else { return Ok(false) };
        {
            let judged = letters.judged();
            if let Some(known) = judged.get(position) {
                return Ok(matches!(known, Judged::Wrong(_)));
            }
            if judged.len() >= MAX_POSITIONS {
                self.seen().not_checked += 1;
                return Ok(false);
            }
        }
        let Judges { transform, table, dead_letters, function, .. } = &self.judges;
        let accepts = match transform.apply(&position.partition.topic, row).await {
            Ok(rows) => rows.iter().all(|rows| table.check_storable(rows).is_ok()),
            Err(Error::Poison(_)) => false,
            Err(error) => return Err(error),
        };
        let mut judged = Judged::Right;
        if accepts {
            // A topic of letters is read from its beginning for this, so only where it matters.
            let kept = dead_letters.find(Some(function), position).await?;
            let reason = kept.into_iter().next().map(|letter| letter.reason).unwrap_or_default();
            judged = if reason.starts_with(REFUSED_BY_STORE) { Judged::OfStore } else { Judged::Wrong(reason) };
        }
        let is_wrong = matches!(judged, Judged::Wrong(_));
        letters.judged().insert(position.clone(), judged);
        Ok(is_wrong)
    }
}

impl Seen {
    pub(crate) fn lose(&mut self, position: Position, reason: String) {
        self.total_lost += 1;
        if self.lost.len() < MAX_POSITIONS {
            self.lost.push((position, reason));
        }
    }
}

impl Pass {
    /// Reads the lanes that the statement didn't ask for, because it reads no row of their topic: their records may still be
    /// lost.
    pub(crate) async fn finish(self: &Arc<Self>) {
        for (topic, rows) in self.tables() {
            for lane in 0..self.lanes {
                if !self.seen().counted.contains(&(topic.clone(), lane)) {
                    rows.rows(lane).for_each(|_| std::future::ready(())).await;
                }
            }
        }
    }
}

/// How far a partition has been read.
pub(crate) struct Place {
    pub(crate) partition: TopicPartition,
    pub(crate) range: Range<i64>,
    pub(crate) newest_us: Option<i64>,
    pub(crate) records: usize,
}

/// A topic of a pass.
struct TopicRows {
    pass: Arc<Pass>,
    topic: String,
}

impl fmt::Debug for TopicRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicRows").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl LogRows for TopicRows {
    fn lanes(&self) -> usize {
        self.pass.lanes
    }

    fn rows(&self, lane: usize) -> BoxStream<'static, Result<RecordBatch, ReadFailed>> {
        let pass = Arc::clone(&self.pass);
        let ranges = pass.input.get().into_iter().flat_map(|input| &input.ranges);
        let own = ranges.filter(|(partition, _)| partition.topic == self.topic);
        let mut places: Vec<Place> = own.skip(lane).step_by(pass.lanes).map(|place| pass.place(place)).collect();
        places.reverse();
        let counts = pass.seen().counted.insert((self.topic.clone(), lane));
        let rows = futures::stream::unfold(places, move |mut places| {
            let pass = Arc::clone(&pass);
            async move {
                while places.last().is_some_and(|place| place.range.is_empty()) {
                    places.pop();
                }
                let place = places.last_mut()?;
                match pass.next(place, counts).await {
                    Ok((rows, _)) => {
                        pass.given.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
                        Some((Ok(rows), places))
                    }
                    Err(error) => {
                        pass.seen().error.get_or_insert(error);
                        Some((Err(ReadFailed), Vec::new()))
                    }
                }
            }
        });
        rows.boxed()
    }
}

impl Pass {
    /// The beginning of a partition.
    pub(crate) fn place(&self, (partition, range): &(TopicPartition, Range<i64>)) -> Place {
        let (partition, range) = (partition.clone(), range.clone());
        Place { partition, range, newest_us: None, records: self.records_at_once() }
    }
}

fn reversed(rows: &RecordBatch) -> Result<RecordBatch> {
    let backwards = UInt64Array::from_iter_values((0..rows.num_rows() as u64).rev());
    take_record_batch(rows, &backwards)
        .map_err(|error| Error::stop("internal: rows can't be reversed").caused_by(error))
}
