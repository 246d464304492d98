//! Rows that are made only of newer records, and where these records begin in the log.

use std::{ops::Range, sync::Arc};

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use millstream_core::{Batch, Error, Fence, Limits, Log, Result, TopicPartition, meta};
use millstream_pipeline::{Pipeline, Reading, readable_ms};
use millstream_runner::FIRST_TIMESTAMP_MS;
use millstream_sql::{Origin, Since, Whole};

use super::report::AuditReport;
use crate::rows::text;

/// How many offsets before the first one that is read are looked at for records without a timestamp.
const LOOKED_AT: i64 = 1_000;

/// Rows that are made only of records since a time.
pub(super) struct Newer {
    /// Which rows these are.
    pub(super) since: Since,
    /// Every record below the first one with this timestamp, in milliseconds, is in none of them.
    from_ms: i64,
    /// Do the rows show the event time? An event may be dated after its record by `ahead`, if the record has a timestamp.
    ahead_ms: Option<i64>,
    column: String,
    /// What went into the sink and is no longer in the log, for people.
    gone: Vec<String>,
}

impl Newer {
    /// The rows of a function since a time.
    ///
    /// # Errors
    /// `Stop` if rows don't show of which records they are made; says why.
    pub(super) fn of(whole: &Whole, pipeline: &Pipeline, reading: &Reading, since_ms: i64) -> Result<Self> {
        if reading.lateness_ms.is_some() {
            return Err(refused(
                "the function leaves late events out (`late: dead-letter`), and whether an event is late depends on all records \
                 before it",
            ));
        }
        let of_record = |origin: &Origin| origin.fields.iter().all(|(_, field)| field == meta::TIMESTAMP);
        let of_event = |origin: &Origin| {
            origin.fields.iter().all(|(topic, field)| {
                let event_time = pipeline.topics.get(topic).and_then(|topic| topic.event_time.as_ref());
                field == meta::TIMESTAMP || event_time == Some(field)
            })
        };
        let found = whole.times.iter().find(|(_, origin)| of_record(origin)).map(|time| (time, None));
        let ahead_ms = reading.ahead_ms;
        let of_event = || whole.times.iter().find(|(_, origin)| ahead_ms.is_some() && of_event(origin));
        let found = found.or_else(|| of_event().map(|time| (time, ahead_ms)));
        let Some(((column, origin), ahead_ms)) = found else {
            return Err(refused(match ahead_ms {
                Some(_) => {
                    "a row doesn't show that it is made only of newer records. It does if a column of its key is a window of the \
                     topic's event time or of `_timestamp` (tumble, hop, date_trunc), or, in a table that is only appended to, \
                     one of these times"
                }
                None => {
                    "a row doesn't show that it is made only of a newer record: the table has no column `_timestamp`. (The \
                     event time doesn't say it, because this function takes events of any time)"
                }
            }));
        };
        let from_us = since_ms.saturating_mul(1_000).saturating_add(origin.shift_us);
        Ok(Self {
            since: Since { column: *column, from_us },
            from_ms: since_ms.saturating_sub(ahead_ms.unwrap_or_default()),
            ahead_ms,
            column: whole.columns[*column].name.clone(),
            gone: Vec::new(),
        })
    }

    /// The offsets that these rows are made of.
    ///
    /// # Errors
    /// `Stop` if the log can't tell; says why.
    pub(super) async fn ranges(
        &mut self,
        log: &dyn Log,
        fences: &[(TopicPartition, Fence)],
    ) -> Result<Vec<(TopicPartition, Range<i64>)>> {
        let mut ranges = Vec::new();
        for (partition, fence) in fences {
            let held = log.watermarks(partition).await?;
            let first = log.first_since(partition, self.from_ms).await?;
            let first = first.unwrap_or(fence.next_offset).clamp(fence.start_offset, fence.next_offset);
            let is_cut = held.low > fence.start_offset && fence.next_offset > fence.start_offset;
            if is_cut && !has_record(log, partition, held.low..first).await? {
                return Err(Error::stop(format!(
                    "offsets {}..{} of {partition} went into the sink but are no longer in the log (retention), and the log \
                     has no older record than those that make up the rows since that time: audit since a later time",
                    fence.start_offset, held.low
                )));
            }
            if is_cut {
                self.gone.push(format!("{}..{} of {partition}", fence.start_offset, held.low));
            }
            if self.is_of_events() {
                let looked_at = first.saturating_sub(LOOKED_AT).max(held.low).max(fence.start_offset)..first;
                each(log, partition, looked_at, &mut |batch| check_timestamps(batch).map(|()| true)).await?;
            }
            ranges.push((partition.clone(), first..fence.next_offset));
        }
        Ok(ranges)
    }

    /// Do the rows show the event time? Then each record that is read must have a timestamp of its own.
    pub(super) fn is_of_events(&self) -> bool {
        self.ahead_ms.is_some()
    }

    /// What must be known about it.
    ///
    /// # Errors
    /// `Stop` if the time can't be shown.
    pub(super) fn note(&self, AuditReport { ranges, compared, rows, .. }: &AuditReport) -> Result<String> {
        let begins = ranges.iter().map(|(at, range)| format!("{at} from offset {}", range.start)).collect::<Vec<_>>();
        let condition = match self.ahead_ms {
            Some(ahead_ms) => format!(
                " That is exact if each record before has a timestamp of its own, because an event is then at most {} after its \
                 record (`ahead`). A record without one (or with one before 2001-09-09) could be part of any row: there is none \
                 among those that were read, nor among the {LOOKED_AT} before them",
                readable_ms(ahead_ms)
            ),
            None => String::new(),
        };
        let gone = match self.gone.is_empty() {
            true => String::new(),
            false => format!(
                " Offsets {} are no longer in the log (retention): that is exact if their records were as old as the next ones, \
                 so before {}",
                self.gone.join(", "),
                text(&utc(self.from_ms.saturating_mul(1_000)), 0)?
            ),
        };
        Ok(format!(
            "only rows with `{}` at or after {} were compared: {compared} of {rows} in the sink. They are made of {}; what is before \
             that was not read, so nothing is known of its rows and dead letters.{condition}{gone}",
            self.column,
            text(&utc(self.since.from_us), 0)?,
            begins.join(", ")
        ))
    }
}

fn utc(us: i64) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(vec![us]).with_timezone("UTC"))
}

/// `Stop` if a record has no timestamp: its event may be of any time.
pub(super) fn check_timestamps(batch: &Batch) -> Result<()> {
    let mut times = batch.timestamps_ms().values().iter().zip(batch.offsets().values());
    match times.find(|(timestamp_ms, _)| **timestamp_ms < FIRST_TIMESTAMP_MS) {
        None => Ok(()),
        Some((_, offset)) => Err(refused(&format!(
            "record {} has no timestamp of its own, or one before 2001-09-09. The event of such a record may be of any time, so \
             that older ones may be part of newer rows",
            batch.partition().at(*offset)
        ))),
    }
}

/// `Stop` if the log has stamped the records of a topic that a function writes: a record that the function has sent again after a
/// crash may be newer than the time, and its first copy older.
pub(super) fn check_resent(batch: &Batch) -> Result<()> {
    if !batch.is_stamped_by_log() {
        return Ok(());
    }
    Err(refused(&format!(
        "topic {} gives records the time at which it took them (`message.timestamp.type=LogAppendTime`), and a function writes it. \
         What that function has sent again after a crash looks newer than it is",
        batch.partition().topic
    )))
}

fn refused(why: &str) -> Error {
    Error::stop(format!(
        "the table can't be audited since a time: {why}. Audit a sample of the keys (--sample 5%), or the whole table"
    ))
}

/// Is there a record?
async fn has_record(log: &dyn Log, partition: &TopicPartition, range: Range<i64>) -> Result<bool> {
    let mut found = false;
    each(log, partition, range, &mut |batch| {
        found = !batch.is_empty();
        Ok(!found)
    })
    .await?;
    Ok(found)
}

/// Reads a range batch by batch, for as long as `more` says so.
async fn each(
    log: &dyn Log,
    partition: &TopicPartition,
    mut range: Range<i64>,
    more: &mut (dyn FnMut(&Batch) -> Result<bool> + Send),
) -> Result<()> {
    while !range.is_empty() {
        let limits = Limits { max_records: LOOKED_AT as usize, max_bytes: 8 << 20, max_wait_ms: 0 };
        let batch = log.read(partition, range.clone(), limits).await?;
        range.start = batch.range().end;
        if !more(&batch)? {
            break;
        }
    }
    Ok(())
}
