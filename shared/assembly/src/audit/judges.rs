//! Which records are rows: those that can be decoded and are timely, unless they are dead letters for a reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::array::{BooleanArray, RecordBatch};
use millstream_core::{Batch, DeadLetters, Decode, Decoded, Error, Position, Result, Table, Transform};
use millstream_runner::{REFUSED_BY_STORE, Timeliness};

use super::{input::Input, pass::Pass};
use crate::letters::Judged;

/// How many letters are looked at; all are counted.
const MAX_JUDGED: usize = 1_000;

/// What decides of each record whether it is a row.
pub(crate) struct Judges {
    pub(crate) decoders: BTreeMap<String, Arc<dyn Decode>>,
    pub(crate) timeliness: Timeliness,
    /// The topics that functions of the pipeline make out of others.
    pub(crate) hops: BTreeSet<String>,
    pub(crate) transform: Arc<dyn Transform>,
    /// The table that rows go to.
    pub(crate) table: Table,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    /// The function, as `pipeline.function`.
    pub(crate) function: String,
}

impl Pass {
    /// Leaves out the records that are dead letters, although they can be decoded and are timely, if the statement or the
    /// store has refused them.
    pub(super) async fn without_letters(&self, batch: &Batch, decoded: Decoded, counts: bool) -> Result<Decoded> {
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
            if judged.len() >= MAX_JUDGED {
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
