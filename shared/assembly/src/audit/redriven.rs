//! Records that were dead letters, and have been redriven.

use arrow::array::{BooleanArray, RecordBatch};
use millstream_core::{Batch, Decoded, Error, Late, Result};
use millstream_runner::Timeliness;

use super::{input::Input, pass::Pass};

impl Pass {
    /// Rows of timely records, and the newest event time after them: with those that were dead letters because they were late
    /// and have been redriven, which are returned apart.
    pub(super) fn split(
        &self,
        batch: &Batch,
        decoded: Decoded,
        newest_us: Option<i64>,
        counts: bool,
    ) -> Result<(Decoded, Option<RecordBatch>, Option<i64>)> {
        let Some(Input { letters, refused, .. }) = self.input.get() else {
            return Err(Error::stop("internal: it is not known what to read"));
        };
        let offset = |index: usize| batch.offsets().value(index);
        let is_redriven: Vec<bool> = match letters.redriven(batch.partition()) {
            Some(redriven) => (0..batch.len()).map(|index| redriven.contains(&offset(index))).collect(),
            None => vec![],
        };
        if !is_redriven.contains(&true) {
            let (timely, newest_us) = self.judges.timeliness.split(decoded, batch, newest_us)?;
            return Ok((timely, None, newest_us));
        }
        let redriven = decoded.clone().only(&is_redriven)?;
        let (timely, newest_us) = self.judges.timeliness.split(decoded, batch, newest_us)?;
        let others = timely.only(&is_redriven.iter().map(|is| !is).collect::<Vec<_>>())?;
        let merging = Timeliness { late: Late::Merge, ..self.judges.timeliness };
        let (redriven, _) = merging.split(redriven, batch, None)?;
        if counts {
            let mut seen = self.seen();
            for bad in &redriven.bad {
                seen.lose(batch.partition().at(offset(bad.index)), bad.reason.clone());
            }
        }
        let is_row = |index: &usize| !refused.contains(&batch.partition().at(offset(*index)));
        let keep: BooleanArray = redriven.index.iter().map(|index| Some(is_row(index))).collect();
        Ok((others, Some(redriven.filter(&keep)?.rows), newest_us))
    }
}
