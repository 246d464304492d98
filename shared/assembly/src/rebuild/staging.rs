use millstream_core::{Claim, Error, Fence, Holding, OwnerRecord, Result, Rows};

use super::{Rebuild, fill::patiently};
use crate::reference;

/// How a rebuild begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// With an empty table.
    Anew,
    /// With what an earlier run of it has filled.
    Resumed,
    /// With an empty table, for the pipeline file has changed since an earlier run.
    StartedOver,
}

impl Rebuild {
    /// Makes the table beside the old one, or finds what an earlier run has made of it, and says what of the old table can't be
    /// kept. `partial`: the table may begin where the log does.
    ///
    /// # Errors
    /// `Stop` when there is a table in the way, or the new one can never take the place; those of [`Rebuild::check_log`] unless
    /// `partial`; those of the store.
    pub async fn begin(&mut self, partial: bool) -> Result<(Begun, Vec<String>)> {
        if !partial {
            self.check_log()?;
        }
        let begun = self.claim_table().await?;
        let replace = self.replace()?;
        // A long reader of the old table may keep it waiting.
        let lost = patiently(|| replace.rehearse(&self.replacement)).await;
        let keeps_it = matches!(&lost, Ok(lost) if lost.is_empty()) || begun == Begun::Resumed;
        if !keeps_it {
            // Until a person has decided, the store is as it was.
            replace.discard().await?;
        }
        Ok((begun, lost?))
    }

    /// Goes on although that is lost which [`Rebuild::begin`] has named.
    ///
    /// # Errors
    /// Those of [`Rebuild::begin`].
    pub async fn drop_dependents(&mut self) -> Result<()> {
        self.replacement.drop_dependents = true;
        self.claim_table().await.map(drop)
    }

    /// Begins the fences, and loads the references.
    pub(super) async fn make_ready(&mut self) -> Result<()> {
        for (partition, fence) in &self.old {
            let is_read = self.replacement.topics.contains(&(partition.topic.clone(), partition.generation));
            if !is_read {
                continue;
            }
            let range = self.ranges.iter().find(|range| range.partition == *partition);
            let start = range.map_or(fence.start_offset, |range| range.from.max(range.low));
            let topic_id = fence.topic_id.clone();
            self.sink().create_fence(partition, Fence { topic_id, ..Fence::starting_at(start) }).await?;
        }
        self.systems.prepare_dead_letters(&self.pipeline, self.systems.creates()).await?;
        let references = self.systems.references(&self.pipeline, &self.function.references)?;
        reference::load_all(&references).await?;
        self.function.refreshing = reference::keep_fresh(references);
        Ok(())
    }

    async fn claim_table(&self) -> Result<Begun> {
        let holding = self.sink().holding().await?;
        let (begun, record) = match &holding.record {
            Some(record) if record.owner.function != self.owner.function => {
                return Err(self.in_the_way(&format!("function {} fills it", record.owner.function)));
            }
            None if holding.rows != Rows::Missing => return Err(self.in_the_way("no rebuild has made it")),
            Some(record) if record.owner.fingerprint == self.owner.fingerprint && holding.rows != Rows::Missing => {
                (Begun::Resumed, Some(record.clone()))
            }
            Some(_) => {
                self.start_over().await?;
                (Begun::StartedOver, None)
            }
            None => {
                self.start_over().await?;
                (Begun::Anew, None)
            }
        };
        self.sink().prepare(true).await?;
        let record = match record {
            Some(record) => record,
            None => self.first_claim().await?,
        };
        self.sink().begin_term(record.term);
        Ok(begun)
    }

    async fn first_claim(&self) -> Result<OwnerRecord> {
        let claimed = self.sink().claim(&self.owner, &Claim::First).await?;
        claimed.ok_or_else(|| Error::stop(format!("another process has begun a rebuild of {} just now", self.into)))
    }

    /// Removes what an earlier rebuild has left. Its letters first: a record that is there says that some may be.
    async fn start_over(&self) -> Result<()> {
        self.remove_letters_of_rebuild().await?;
        self.replace()?.discard().await
    }

    fn in_the_way(&self, why: &str) -> Error {
        let beside = self.function.table.public_name();
        Error::stop(format!(
            "a rebuild of {} needs the name {beside} for the table beside it, and there is one of this name ({why}): rename \
             or drop that one. Nothing was changed",
            self.into
        ))
    }
}

/// Has the table taken its place, with only its letters left to be sorted?
pub(super) fn has_taken_place(holding: &Holding) -> bool {
    holding.record.is_some() && holding.fences.is_empty() && holding.rows == Rows::Missing
}
