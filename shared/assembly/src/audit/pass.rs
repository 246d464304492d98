//! One pass over the log, partition by partition up to the fences.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow::{
    array::{RecordBatch, UInt64Array},
    compute::{concat_batches, take_record_batch},
};
use millstream_core::{Batch, Error, Limits, Result, Source, TopicPartition};
use millstream_sql::LogRows;

use super::{
    encoder::internal,
    hops::Hops,
    input::{Input, Seen},
    judges::Judges,
    log_rows::TopicRows,
    since::{check_resent, check_timestamps},
};
use crate::decode::decode;

/// The most records and bytes that are read and decoded at once.
const MAX_RECORDS: usize = 20_000;
const MAX_BYTES: usize = 8 << 20;

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

/// How far a partition has been read.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) partition: TopicPartition,
    pub(crate) range: Range<i64>,
    pub(crate) newest_us: Option<i64>,
    pub(super) hops: Hops,
    pub(crate) records: usize,
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
            let mut hops = at.hops.clone();
            let sent_first = match self.judges.hops.contains(&batch.partition().topic) {
                true => {
                    if self.input.get().is_some_and(|input| input.from_the_middle) {
                        check_resent(&batch)?;
                    }
                    hops.pass(&batch)
                }
                false => vec![true; batch.len()],
            };
            match self.rows(&batch, &sent_first, at.newest_us, counts).await {
                Ok((rows, newest_us)) => {
                    at.hops = hops;
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

    /// The rows of a batch, and the newest event time after it. `sent_first` leaves out what a function has sent again.
    async fn rows(
        &self,
        batch: &Batch,
        sent_first: &[bool],
        newest_us: Option<i64>,
        counts: bool,
    ) -> Result<(RecordBatch, Option<i64>)> {
        if self.input.get().is_some_and(|input| input.stamped) {
            check_timestamps(batch)?;
        }
        let decoder = self.judges.decoders.get(&batch.partition().topic);
        let decoder = decoder.ok_or_else(|| Error::stop(format!("internal: no decoder for {}", batch.partition())))?;
        let decoded = decode(decoder.as_ref(), batch)?.only(sent_first)?;
        let (timely, redriven, newest_us) = self.split(batch, decoded, newest_us, counts)?;
        let rows = self.without_letters(batch, timely, counts).await?.rows;
        let rows = match redriven {
            Some(redriven) => concat_batches(&rows.schema(), [&rows, &redriven]).map_err(internal)?,
            None => rows,
        };
        Ok((if self.reversed { reversed(&rows)? } else { rows }, newest_us))
    }

    /// The beginning of a partition.
    pub(crate) fn place(&self, (partition, range): &(TopicPartition, Range<i64>)) -> Place {
        let (partition, range) = (partition.clone(), range.clone());
        Place { partition, range, newest_us: None, hops: Hops::default(), records: self.records_at_once() }
    }
}

fn reversed(rows: &RecordBatch) -> Result<RecordBatch> {
    let backwards = UInt64Array::from_iter_values((0..rows.num_rows() as u64).rev());
    take_record_batch(rows, &backwards)
        .map_err(|error| Error::stop("internal: rows can't be reversed").caused_by(error))
}
