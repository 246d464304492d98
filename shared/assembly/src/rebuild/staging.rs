use millstream_core::{Claim, Error, Holding, OwnerRecord, REBUILD_SUFFIX, Result, Rows, TopicPartition};

use super::Rebuild;
use crate::patience::patiently;

/// How a rebuild begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// With an empty table.
    Anew,
    /// With what an earlier run of it has filled.
    Resumed,
    /// With an empty table: since an earlier run, the pipeline file has changed, or the log has lost what came next.
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
        self.partial = partial;
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

    async fn claim_table(&self) -> Result<Begun> {
        let holding = self.sink().holding().await?;
        let (begun, record) = match &holding.record {
            Some(record)
                if record.owner.function != self.owner.function && record.owner.function.ends_with(REBUILD_SUFFIX) =>
            {
                return Err(Error::stop(format!(
                    "{} has been begun by {}, under another name of the function: finish it under that name (`millstream rebuild`), \
                     or remove table {} and what millstream_owners and millstream_fences have of {}. Nothing was changed",
                    self.function.table.public_name(),
                    record.owner.function,
                    self.function.table.public_name(),
                    record.owner.function
                )));
            }
            Some(record) if record.owner.function != self.owner.function => {
                return Err(self.in_the_way(&format!("function {} fills it", record.owner.function)));
            }
            // An empty one may be what was made just before an earlier run was killed.
            None if holding.rows == Rows::Present => return Err(self.in_the_way("no rebuild has made it")),
            Some(record) if self.resumes(&holding) && !self.has_lost_its_place(&holding) => {
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

    /// Is there a table of an earlier run, by this function and plan?
    pub(super) fn resumes(&self, holding: &Holding) -> bool {
        let is_own = |record: &OwnerRecord| {
            record.owner.function == self.owner.function && record.owner.fingerprint == self.owner.fingerprint
        };
        holding.record.as_ref().is_some_and(is_own) && holding.rows != Rows::Missing
    }

    /// Has retention gone past the place where an earlier run was? To go on behind it would leave a hole.
    fn has_lost_its_place(&self, holding: &Holding) -> bool {
        let next = |at: &TopicPartition| holding.fences.iter().find(|(fenced, _)| fenced == at);
        self.ranges.iter().any(|range| next(&range.partition).is_some_and(|(_, fence)| fence.next_offset < range.low))
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
