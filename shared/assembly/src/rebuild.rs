//! `millstream rebuild`: a table is filled anew from the log beside the old one, and takes its place.

mod fill;
mod letters;
mod measure;
mod ranges;
mod ready;
mod staging;
#[cfg(test)]
mod tests;
mod tries;

use std::sync::Arc;

use millstream_core::{
    Error, Fence, Holding, Owner, OwnerRecord, REBUILD_SUFFIX, Replace, Replacement, Result, Sink, TopicPartition,
    WHOLE_TOPIC,
};
use millstream_pipeline::{Pipeline, Place, System};

pub use self::{fill::RebuildProgress, ranges::ReadRange, staging::Begun};
use crate::{
    Function, Systems,
    ownership::{Ownership, plan_recorded},
    plan_function,
};

/// What ends the name of a table that is being rebuilt.
const TABLE_SUFFIX: &str = "__rebuild";

/// Names of tables have at most so many bytes (PostgreSQL).
const MAX_NAME_BYTES: usize = 63;

/// A function's table as it is filled anew. Holds what the store and the log said when it was opened.
pub struct Rebuild {
    systems: Systems,
    pipeline: Pipeline,
    name: String,
    /// Where the function writes.
    into: Place,
    /// The function with the table beside the old one, under a name of its own.
    function: Function,
    /// Who owns the table beside the old one.
    owner: Owner,
    replacement: Replacement,
    /// The fences of the old table, those of whole topics among them.
    old: Vec<(TopicPartition, Fence)>,
    ranges: Vec<ReadRange>,
    /// Would `millstream adopt` go through?
    can_be_adopted: bool,
    /// May the table begin where the log does, even if that moves on meanwhile?
    partial: bool,
}

impl Systems {
    /// Looks at a function's table and at the log, for a rebuild by the pipeline file as it is now. Changes nothing.
    ///
    /// # Errors
    /// `Stop` when the pipeline file is wrong, there is nothing to rebuild, or the store can't let one table take the place of
    /// another; those of the store and the log.
    pub async fn rebuild(&self, pipeline: &Pipeline, name: &str) -> Result<Rebuild> {
        let wrong = |wrong: millstream_pipeline::Diagnostic| Error::stop(wrong.to_string());
        let into = pipeline.functions[name].into.clone();
        let plan = plan_function(pipeline, name).await.map_err(wrong)?;
        let ownership = Ownership::of(pipeline, name, &plan);
        let owner = ownership.owner().clone();
        let table = plan.planned.table;
        let real = self.sink(&owner.function, &into, table.clone())?;
        if real.replace().is_none() {
            return Err(by_hand(name, &into));
        }
        let mut beside = pipeline.clone();
        beside.functions.entry(name.to_owned()).and_modify(|function| function.into.name = staging_name(&into.name));
        check_name(name, &into)?;
        let plan = plan_function(&beside, name).await.map_err(wrong)?;
        let id = format!("{}{REBUILD_SUFFIX}", owner.function);
        let function = self.assemble(&beside, name, id.clone(), plan)?;
        let holding = real.holding().await?;
        if holding.record.is_none() && holding.fences.is_empty() && holding.rows != millstream_core::Rows::Present {
            return Err(Error::stop(format!(
                "there is nothing to rebuild: `{name}` has not begun, and would fill {into} from the log when it starts"
            )));
        }
        if holding.record.is_none() && holding.fences.is_empty() {
            return Err(Error::stop(format!(
                "{into} has rows, and nothing in the store says that `{name}` has written them: a rebuild would drop a table that \
                 may be somebody else's. If it is the function's, say so by `millstream adopt {name}` first"
            )));
        }
        let recorded = match &holding.record {
            Some(record) => plan_recorded(record, pipeline).await,
            None => None,
        };
        let replacement = Replacement {
            table,
            owner: owner.clone(),
            record: holding.record.clone(),
            old_table: recorded.map(|(.., plan)| plan.planned.table),
            topics: function.subscription.topics.clone(),
            drop_dependents: false,
        };
        let misfits = ownership.misfits(real.as_ref(), holding.record.as_ref()).await?;
        let can_be_adopted = misfits.is_empty();
        let old = self.old_fences(&holding, &replacement, &into).await?;
        let owner = Owner { function: id, ..owner };
        let (pipeline, name) = (beside, name.to_owned());
        let mut rebuild = Rebuild {
            systems: self.clone(),
            pipeline,
            name,
            into,
            function,
            owner,
            replacement,
            old,
            ranges: Vec::new(),
            can_be_adopted,
            partial: false,
        };
        rebuild.ranges = rebuild.find_ranges().await?;
        Ok(rebuild)
    }

    /// The fences that speak of the old table.
    async fn old_fences(
        &self,
        holding: &Holding,
        replacement: &Replacement,
        into: &Place,
    ) -> Result<Vec<(TopicPartition, Fence)>> {
        let (before, now) = (replacement.before(), &replacement.owner.function);
        let sink = self.sink(before, into, replacement.table.clone())?;
        let mut fences = match before == now {
            true => holding.fences.clone(),
            false if holding.fences.is_empty() => sink.holding().await?.fences,
            false => {
                return Err(Error::stop(format!(
                    "{now} has fences of its own, and {before} fills table {into}: a rebuild would lose what the first ones \
                     speak of. Undo the rename, or give {now} a table of its own (`into`)"
                )));
            }
        };
        for (topic, generation) in &replacement.topics {
            let whole = TopicPartition::new(topic, *generation, WHOLE_TOPIC);
            fences.extend(sink.fence(&whole).await?.map(|fence| (whole, fence)));
        }
        Ok(fences)
    }
}

impl Rebuild {
    /// What the log has to be read for, by partition.
    pub fn ranges(&self) -> &[ReadRange] {
        &self.ranges
    }

    /// Is the table filled by this very plan?
    pub fn is_done(&self) -> bool {
        self.record().is_some_and(|record| record.owner == self.replacement.owner)
    }

    /// The record of the table as it was.
    pub fn record(&self) -> Option<&OwnerRecord> {
        self.replacement.record.as_ref()
    }

    fn sink(&self) -> &Arc<dyn Sink> {
        self.function.runner.sink()
    }

    fn replace(&self) -> Result<&dyn Replace> {
        self.sink().replace().ok_or_else(|| by_hand(&self.name, &self.into))
    }

    /// The function, as `pipeline.function`.
    fn id(&self) -> &str {
        &self.replacement.owner.function
    }
}

/// The function and the table that a rebuild of table `name` by function `id` (`pipeline.function`) has beside them.
pub fn beside(id: &str, name: &str) -> (String, String) {
    (format!("{id}{REBUILD_SUFFIX}"), staging_name(name))
}

fn staging_name(name: &str) -> String {
    format!("{name}{TABLE_SUFFIX}")
}

fn check_name(function: &str, into: &Place) -> Result<()> {
    let longest = format!("{}_state", staging_name(&into.name));
    if longest.len() <= MAX_NAME_BYTES {
        return Ok(());
    }
    Err(Error::stop(format!(
        "the name of {into} is too long for a rebuild: it needs the table {longest} meanwhile, and names have at most \
         {MAX_NAME_BYTES} bytes. Give `{function}` and its table (`into`) new, shorter names instead, both together"
    )))
}

fn by_hand(function: &str, into: &Place) -> Error {
    if into.system.is_log() {
        return Error::stop(format!(
            "{into} is a topic, whose readers have seen its records: no step puts others in their place. By hand: declare a new \
             topic, let `{function}` write to it under a new name (`into`, and the function's name), and run it until it has \
             caught up (`millstream topics`); let readers read the new topic; then end the old function. Nothing was changed"
        ));
    }
    if into.system.has_feeds() || into.system == System::Redis {
        return Error::stop(format!(
            "no step puts other rows in place of those of {into} at once. By hand: end the processes of `{function}`, remove its \
             table and its fences as `millstream reset` says, and start it again: it fills the table from the log. Nothing was \
             changed"
        ));
    }
    let fresh = Place { name: format!("{}_2", into.name), ..into.clone() };
    Error::stop(format!(
        "{into} is files in a folder, and readers know them by the folder's name: no step puts other files in their place at \
         once. By hand: give `{function}` and its table new names, both together (such as `into: {fresh}`), and run it \
         until it has caught up (`millstream topics`); let readers read the new folder; then end the processes of the old \
         function and delete the old folder. Nothing was changed"
    ))
}
