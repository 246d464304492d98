use arrow::array::BooleanArray;
use millstream_core::{Bad, Batch, Decoded, Late, Result};

/// 2001-09-09. An earlier timestamp counts as missing: the producer left it out (-1, 0), or wrote seconds.
pub const FIRST_TIMESTAMP_MS: i64 = 1_000_000_000_000;

/// Decides which events are too late, and which are dated implausibly far ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeliness {
    /// How many milliseconds after its record's own timestamp an event may be dated; `None` accepts every event. A
    /// record timestamp before 2001-09-09 counts as missing. Without this limit, one device with a wrong clock would
    /// make every later event of its partition late.
    pub ahead_ms: Option<i64>,
    /// What happens to late events.
    pub late: Late,
    /// How many milliseconds older an event may be than the newest event before it in its partition. Unused with
    /// [`Late::Merge`].
    pub lateness_ms: i64,
}

impl Timeliness {
    /// Removes the rows of `decoded` that are late or too far ahead; `decoded` came from `batch`. Also returns the
    /// newest event time: that of the rows, including late ones, or `before_us`, the newest one below the fence.
    ///
    /// Each record is judged by the records before it in its partition and by its own timestamp, never by its batch or
    /// by a clock. So other batch boundaries and a replay give the same answer. An event that is too far ahead doesn't
    /// count towards the newest time. A record without a timestamp, or with one before 2001-09-09, is never ahead.
    ///
    /// # Errors
    /// `Stop` if rows and records don't belong together, which is a bug.
    pub fn split(&self, mut decoded: Decoded, batch: &Batch, before_us: Option<i64>) -> Result<(Decoded, Option<i64>)> {
        let timestamps_ms = batch.timestamps_ms().values();
        let mut newest_us = before_us;
        let mut keep = Vec::with_capacity(decoded.index.len());
        for (time_us, index) in decoded.event_time.values().iter().zip(&decoded.index) {
            let untimely = self.judge(*time_us, timestamps_ms[*index], newest_us);
            if !matches!(untimely, Some(Untimely::Ahead { .. })) {
                newest_us = newest_us.max(Some(*time_us));
            }
            keep.push(untimely.is_none());
            decoded.bad.extend(untimely.map(|untimely| Bad { index: *index, reason: self.reason(untimely) }));
        }
        if keep.iter().all(|keep| *keep) {
            return Ok((decoded, newest_us));
        }
        decoded.bad.sort_by_key(|bad| bad.index);
        Ok((decoded.filter(&BooleanArray::from(keep))?, newest_us))
    }

    /// How an event misses its time, if it does. This runs per record, so it makes no text.
    fn judge(&self, time_us: i64, timestamp_ms: i64, newest_us: Option<i64>) -> Option<Untimely> {
        if let Some(allowed_ms) = self.ahead_ms
            && timestamp_ms >= FIRST_TIMESTAMP_MS
        {
            // Timestamps have no more than milliseconds.
            let ahead_ms = time_us.div_euclid(1_000).saturating_sub(timestamp_ms);
            if ahead_ms > allowed_ms {
                return Some(Untimely::Ahead { by_ms: ahead_ms });
            }
        }
        let newest_us = newest_us.filter(|_| self.late == Late::DeadLetter)?;
        let is_late = time_us < newest_us.saturating_sub(self.lateness_ms.saturating_mul(1_000));
        is_late.then(|| Untimely::Late { by_ms: newest_us.saturating_sub(time_us) / 1_000 })
    }

    fn reason(&self, untimely: Untimely) -> String {
        match untimely {
            Untimely::Ahead { by_ms } => {
                let allowed_ms = self.ahead_ms.unwrap_or_default();
                format!(
                    "ahead: dated {by_ms} ms after the record's own timestamp, {allowed_ms} ms are allowed (`ahead`)"
                )
            }
            Untimely::Late { by_ms } => format!(
                "late: {by_ms} ms behind the newest event of its partition, {} ms are allowed",
                self.lateness_ms
            ),
        }
    }
}

/// How an event misses its time.
#[derive(Clone, Copy)]
enum Untimely {
    /// It is dated this much after its record's own timestamp.
    Ahead { by_ms: i64 },
    /// It is this much older than the newest event of its partition.
    Late { by_ms: i64 },
}
