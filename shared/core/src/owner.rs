use serde::{Deserialize, Serialize};

use crate::{Error, Fence, TopicPartition};

/// The function that fills a table, and the plan that it fills it by. A table has one owner at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The function, as `pipeline.function`.
    pub function: String,
    /// A hash of the plan. Equal ones are the same plan; another one may still be, since a new version of the planner may
    /// hash the same statement differently.
    pub fingerprint: String,
    /// What the plan is made from, for a later version to plan again and to show a person. No store reads it.
    pub declaration: String,
}

/// An owner as a store keeps it, beside the fences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// The table's name as the pipeline file gives it.
    pub table: String,
    /// Who fills it, and how.
    pub owner: Owner,
    /// Which owner or plan of the table this is, a number that rises. Fences carry it too, and a write in another term
    /// moves no fence: so a process that still runs an old plan can't write into a table that has been rebuilt or adopted.
    pub term: i64,
    /// When the term began, as text for a person.
    pub since: String,
    /// Has a person accepted what was there when the term began? Then rows without fences are not the rest of a backup that was
    /// restored in part.
    #[serde(default)]
    pub adopted: bool,
}

/// Is the table there, and has it rows?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// There is no table.
    Missing,
    /// The table is empty.
    Empty,
    /// The table has rows.
    Present,
}

/// What a store holds of a table and of the function that is about to write to it: what a start is judged by.
#[derive(Clone, Debug)]
pub struct Holding {
    /// The table's owner; none in a store that has never recorded one.
    pub record: Option<OwnerRecord>,
    /// The records of other tables in this store that the same function owns.
    pub others: Vec<OwnerRecord>,
    /// The function's fences (without [`crate::WHOLE_TOPIC`]).
    pub fences: Vec<(TopicPartition, Fence)>,
    /// The rows of the table that [`crate::Sink::write`] writes to.
    pub rows: Rows,
}

impl Holding {
    /// Why `function` can't adopt the table, if another function fills it and both have fences: for a person.
    pub fn conflict(&self, function: &str) -> Option<String> {
        let record = self.record.as_ref().filter(|record| record.owner.function != function)?;
        (!self.fences.is_empty()).then(|| fences_of_both(function, &record.owner.function, &record.table))
    }
}

/// What a claim says that would lose the fences of one of two functions.
pub fn fences_of_both(function: &str, before: &str, table: &str) -> String {
    format!(
        "{function} has fences of its own, and {before}, which fills table {table}, has others: no table can go on from both. \
         Undo the rename, or give {function} a table of its own (`into`)"
    )
}

/// How a sink's function becomes the owner of its table: see [`crate::Sink::claim`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The table has no owner yet. Fences that the function has already are of the new term too, and records of other tables
    /// that it filled are removed.
    First,
    /// The function already owns the table by the same plan, and only the text or the hash of it has changed. The term stays.
    Renew(OwnerRecord),
    /// A person has decided that the table goes on under this owner and plan. A new term begins, and the rows that the fences
    /// have counted are forgotten. If the record is of another function, its fences become those of the new owner; records of
    /// other tables that the new owner filled are removed.
    Adopt(Option<OwnerRecord>),
    /// A table that was filled anew by this plan is in the place of the one that the record speaks of, and its fences are the
    /// owner's. A new term begins.
    Rebuild(Option<OwnerRecord>),
}

impl Claim {
    /// The record that must be in the store for the claim to be made.
    pub fn expected(&self) -> Option<&OwnerRecord> {
        match self {
            Self::First => None,
            Self::Renew(record) => Some(record),
            Self::Adopt(record) | Self::Rebuild(record) => record.as_ref(),
        }
    }

    /// Does a new term begin?
    pub fn begins_term(&self) -> bool {
        !matches!(self, Self::Renew(_))
    }

    /// What the new record says in [`OwnerRecord::adopted`].
    pub fn is_adopted(&self) -> bool {
        match self {
            Self::First | Self::Rebuild(_) => false,
            Self::Renew(record) => record.adopted,
            Self::Adopt(_) => true,
        }
    }
}

/// The error of a write in a term that has ended; `record` is the one that the store has now.
pub fn term_ended(table: &str, record: Option<&OwnerRecord>) -> Error {
    let now = record.map_or_else(
        || "It has no owner now".to_owned(),
        |record| {
            format!("Since {} it is filled by {} as its pipeline file was then", record.since, record.owner.function)
        },
    );
    Error::stop(format!(
        "table {table} was rebuilt or adopted while this process ran, so this process can't write to it any more. {now}: \
         start this process again with that pipeline file, or remove it"
    ))
}
