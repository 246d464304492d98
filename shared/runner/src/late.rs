use arrow::array::BooleanArray;
use millstream_core::{Bad, Decoded, Result};

/// Takes out the rows whose event time lies more than `lateness_ms` below the highest one before them in their partition.
/// It is judged record by record from `before_us`, the highest below the fence, so that other batch boundaries give the
/// same answer.
pub fn split(mut decoded: Decoded, before_us: Option<i64>, lateness_ms: i64) -> Result<Decoded> {
    let mut highest = before_us.unwrap_or(i64::MIN);
    let mut keep = Vec::with_capacity(decoded.index.len());
    for (time, index) in decoded.event_time.values().iter().zip(&decoded.index) {
        let late = *time < highest.saturating_sub(lateness_ms.saturating_mul(1_000));
        if late {
            let behind_ms = highest.saturating_sub(*time) / 1_000;
            let reason =
                format!("late: {behind_ms} ms behind the newest event of its partition, {lateness_ms} ms are allowed");
            decoded.bad.push(Bad { index: *index, reason });
        }
        keep.push(!late);
        highest = highest.max(*time);
    }
    decoded.bad.sort_by_key(|bad| bad.index);
    decoded.filter(&BooleanArray::from(keep))
}
