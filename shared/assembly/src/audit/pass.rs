//! A pass over the log: what the sink should hold.

use std::sync::Arc;

use arrow::{
    array::{BooleanArray, RecordBatch, UInt64Array},
    compute::take_record_batch,
};
use millstream_core::{Batch, Combine, Decoded, Error, Fence, Limits, Log, Result, Table, TopicPartition};
use millstream_pipeline::Reading;

use super::{
    balance::Balance,
    by_key::ByKey,
    report::{AuditProgress, AuditReport, Difference},
    states::States,
};
use crate::{FunctionPlan, decode::decode, letters::Letters, systems::timeliness};

/// The rows that the log should have become.
pub(super) enum Expected<'a> {
    /// Appended rows, balanced against the stored ones.
    Appended(Balance),
    /// States, merged by key.
    Merged(States<'a>),
}

impl Expected<'_> {
    async fn take(&mut self, rows: Vec<RecordBatch>) -> Result<()> {
        for rows in rows {
            match self {
                Self::Appended(balance) => balance.add(&rows, -1)?,
                Self::Merged(states) => states.take(&rows).await?,
            }
        }
        Ok(())
    }
}

/// What is needed to read the log.
pub(super) struct LogReader<'a> {
    pub(super) plan: &'a FunctionPlan,
    pub(super) reading: &'a Reading,
    pub(super) letters: &'a Letters,
    pub(super) log: &'a dyn Log,
    pub(super) fences: &'a [(TopicPartition, Fence)],
}

impl LogReader<'_> {
    /// The rows that the log gives, by key.
    pub(super) async fn table(
        &self,
        table: &Table,
        combine: &Arc<dyn Combine>,
        reversed: bool,
        report: &mut AuditReport,
        told: &mut (dyn FnMut(AuditProgress) + Send),
    ) -> Result<ByKey> {
        let mut expected = Expected::Merged(States::new(table, combine.as_ref())?);
        self.read(&mut expected, reversed, report, told).await?;
        match expected {
            Expected::Merged(states) => ByKey::new(table, states.finish().await?),
            Expected::Appended(_) => ByKey::new(table, Vec::new()),
        }
    }

    /// One pass over the log. `reversed`: each batch is read from its last record to its first, and batches are cut
    /// differently, so that everything that depends on the order sees another one.
    pub(super) async fn read(
        &self,
        expected: &mut Expected<'_>,
        reversed: bool,
        report: &mut AuditReport,
        told: &mut (dyn FnMut(AuditProgress) + Send),
    ) -> Result<()> {
        let offsets = self.fences.iter().map(|(_, fence)| fence.next_offset - fence.start_offset);
        let total = offsets.sum::<i64>().unsigned_abs();
        told(AuditProgress { read: 0, total });
        let mut pass = Pass { of: self, expected, reversed, report, read: 0 };
        for (partition, fence) in self.fences {
            pass.partition(partition, fence, &mut |read| told(AuditProgress { read, total })).await?;
        }
        Ok(())
    }
}

/// One pass over the log.
struct Pass<'a, 'e> {
    of: &'a LogReader<'a>,
    expected: &'a mut Expected<'e>,
    reversed: bool,
    report: &'a mut AuditReport,
    read: u64,
}

impl Pass<'_, '_> {
    async fn partition(
        &mut self,
        partition: &TopicPartition,
        fence: &Fence,
        told: &mut (dyn FnMut(u64) + Send),
    ) -> Result<()> {
        let log = self.of.log;
        let held = log.watermarks(partition).await?;
        if held.low > fence.start_offset && fence.next_offset > fence.start_offset {
            return Err(Error::stop(format!(
                "offsets {}..{} of {partition} went into the sink but are no longer in the log (retention): an audit \
                 needs a log that still has all records",
                fence.start_offset, held.low
            )));
        }
        let mut limits = Limits { max_wait_ms: 0, ..self.of.reading.batch };
        if self.reversed {
            limits.max_records = limits.max_records.div_ceil(2);
        }
        let (mut next, mut newest_us, mut records) = (fence.start_offset, None, limits.max_records);
        while next < fence.next_offset {
            let batch = log.read(partition, next..fence.next_offset, Limits { max_records: records, ..limits }).await?;
            match self.batch(&batch, newest_us).await {
                Ok(newest) => {
                    self.read += (batch.range().end - next).unsigned_abs();
                    (next, newest_us, records) = (batch.range().end, newest, limits.max_records);
                    told(self.read);
                }
                Err(Error::TooLarge(_)) if batch.len() > 1 => records = batch.len() / 2,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds one batch. If it fails, nothing is changed.
    async fn batch(&mut self, batch: &Batch, newest_us: Option<i64>) -> Result<Option<i64>> {
        let topic = &batch.partition().topic;
        let Some(decoder) = self.of.plan.decoders.get(topic) else {
            self.report.records += batch.len() as u64;
            return Ok(newest_us);
        };
        let (timely, seen_us) =
            timeliness(self.of.reading).split(decode(decoder.as_ref(), batch)?, batch, newest_us)?;
        let (decoded, refused) = self.without_refused(batch, timely)?;
        let Decoded { rows, bad, .. } = decoded;
        let rows = if self.reversed { reversed(&rows)? } else { rows };
        let rows =
            if rows.num_rows() == 0 { vec![] } else { self.of.plan.planned.transform.apply(topic, rows).await? };
        self.report.records += batch.len() as u64;
        self.report.dead_letters += refused;
        for bad in bad {
            let offset = batch.offsets().value(bad.index);
            if self.of.letters.contains(batch.partition(), offset) {
                self.report.dead_letters += 1;
            } else {
                let position = batch.partition().at(offset);
                self.report.add(Difference::Lost { position, reason: bad.reason });
            }
        }
        self.expected.take(rows).await?;
        Ok(seen_us)
    }

    /// Leaves out the records that the transform or the sink refused: they are dead letters, although they can be
    /// decoded and are neither late nor ahead. Returns their number too.
    fn without_refused(&self, batch: &Batch, decoded: Decoded) -> Result<(Decoded, u64)> {
        let refused = |index: &usize| self.of.letters.contains(batch.partition(), batch.offsets().value(*index));
        let keep: BooleanArray = decoded.index.iter().map(|index| Some(!refused(index))).collect();
        let count = keep.false_count() as u64;
        Ok((if count == 0 { decoded } else { decoded.filter(&keep)? }, count))
    }
}

fn reversed(rows: &RecordBatch) -> Result<RecordBatch> {
    let backwards = UInt64Array::from_iter_values((0..rows.num_rows() as u64).rev());
    take_record_batch(rows, &backwards)
        .map_err(|error| Error::stop("internal: rows can't be reversed").caused_by(error))
}
