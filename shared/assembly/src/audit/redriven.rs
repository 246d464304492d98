//! Records that were dead letters, and have been redriven.

use arrow::array::{BooleanArray, RecordBatch};
use millstream_core::{Batch, Decoded, Error, Late, Result};
use millstream_runner::Timeliness;

use super::{input::Input, pass::Pass};

impl Pass {
    /// The rows of records that have been redriven, if there are any, and what is left. Redriven records are never late, and
    /// later records are not judged by them: for the function they were no records with an event time.
    pub(super) fn split_redriven(
        &self,
        batch: &Batch,
        decoded: Decoded,
        counts: bool,
    ) -> Result<(Option<RecordBatch>, Decoded)> {
        let Some(Input { letters, refused, .. }) = self.input.get() else {
            return Err(Error::stop("internal: it is not known what to read"));
        };
        let Some(redriven) = letters.redriven(batch.partition()) else { return Ok((None, decoded)) };
        let offset = |index: usize| batch.offsets().value(index);
        let is_redriven: Vec<bool> = (0..batch.len()).map(|index| redriven.contains(&offset(index))).collect();
        if !is_redriven.contains(&true) {
            return Ok((None, decoded));
        }
        let others = decoded.clone().only(&is_redriven.iter().map(|is| !is).collect::<Vec<_>>())?;
        let timeliness = Timeliness { late: Late::Merge, ..self.judges.timeliness };
        let (redriven, _) = timeliness.split(decoded.only(&is_redriven)?, batch, None)?;
        if counts {
            let mut seen = self.seen();
            for bad in &redriven.bad {
                seen.lose(batch.partition().at(offset(bad.index)), bad.reason.clone());
            }
        }
        let is_row = |index: &usize| !refused.contains(&batch.partition().at(offset(*index)));
        let keep: BooleanArray = redriven.index.iter().map(|index| Some(is_row(index))).collect();
        Ok((Some(redriven.filter(&keep)?.rows), others))
    }
}
