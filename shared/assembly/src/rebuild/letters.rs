//! The dead letters of a rebuild become those of the function.

use std::collections::{HashMap, HashSet};

use millstream_core::{Error, Position, REBUILD_SUFFIX, Result, reached};
use millstream_pipeline::{Function as Declared, Pipeline};

use super::{Rebuild, check_name, staging::has_taken_place, staging_name};
use crate::{Systems, plan_function};

/// The most letters of one function that are sorted: their positions are held in memory.
const MAX_LETTERS: usize = 10_000_000;

impl Systems {
    /// Has a rebuild of the function's table taken its place, without having sorted its letters yet?
    pub(crate) async fn has_letters_to_sort(&self, pipeline: &Pipeline, name: &str) -> Result<bool> {
        let into = &pipeline.functions[name].into;
        if into.system.is_log() || check_name(name, into).is_err() {
            return Ok(false);
        }
        let mut beside = pipeline.clone();
        beside.functions.entry(name.to_owned()).and_modify(|function| function.into.name = staging_name(&into.name));
        let plan = plan_function(&beside, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
        let id = format!("{}{REBUILD_SUFFIX}", Declared::id(&pipeline.name, name));
        let sink = self.sink(&id, &beside.functions[name].into, plan.planned.table)?;
        Ok(sink.replace().is_some() && has_taken_place(&sink.holding().await?))
    }
}

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
