//! The dead letters of a rebuild become those of the function.

use std::collections::{HashMap, HashSet};

use millstream_core::{Error, Position, Result, reached};

use super::{Rebuild, staging::has_taken_place};

/// The most letters of one function that are sorted: their positions are held in memory.
const MAX_LETTERS: usize = 10_000_000;

impl Rebuild {
    /// Finishes a rebuild whose table has taken its place, whether in this run or in an earlier one that was ended there. The
    /// letters of the new plan become the function's, in place of those of records that the new plan accepts. False when there is
    /// nothing to finish.
    ///
    /// Every step can be made again, up to the removal of the record that says what is left to do.
    ///
    /// # Errors
    /// Those of the store and of the dead letters.
    pub async fn finish(&self) -> Result<bool> {
        let holding = self.sink().holding().await?;
        let is_own = |record: &&millstream_core::OwnerRecord| record.owner.function == self.owner.function;
        let record = holding.record.as_ref().filter(is_own).filter(|_| has_taken_place(&holding));
        let Some(record) = record else { return Ok(false) };
        let Ok(reached) = reached(&record.owner.declaration) else { return Ok(false) };
        let letters = self.systems.dead_letters(&self.pipeline);
        letters.copy(&self.owner.function, self.id()).await?;
        let of_new = self.positions(&self.owner.function).await?;
        let reached: HashMap<_, _> = reached.into_iter().collect();
        // The new plan knows nothing of records before its table's beginning.
        let is_old = |at: &Position| reached.get(&at.partition).is_some_and(|range| range.contains(&at.offset));
        let accepted: Vec<_> =
            self.positions(self.id()).await?.into_iter().filter(|at| is_old(at) && !of_new.contains(at)).collect();
        letters.remove(self.id(), &accepted).await?;
        self.replace()?.discard().await?;
        letters.remove(&self.owner.function, &of_new.into_iter().collect::<Vec<_>>()).await?;
        Ok(true)
    }

    pub(super) async fn remove_letters_of_rebuild(&self) -> Result<()> {
        self.systems.prepare_dead_letters(&self.pipeline, self.systems.creates()).await?;
        let positions: Vec<_> = self.positions(&self.owner.function).await?.into_iter().collect();
        self.systems.dead_letters(&self.pipeline).remove(&self.owner.function, &positions).await
    }

    async fn positions(&self, function: &str) -> Result<HashSet<Position>> {
        let mut positions = HashSet::new();
        let mut visit = |position| {
            if positions.len() < MAX_LETTERS {
                positions.insert(position);
            }
        };
        self.systems.dead_letters(&self.pipeline).positions(function, &mut visit).await?;
        match positions.len() {
            MAX_LETTERS.. => Err(Error::stop(format!(
                "{function} has more than {MAX_LETTERS} dead letters: correct their cause, and begin anew with new names for \
                 the function and its table"
            ))),
            _ => Ok(positions),
        }
    }
}
