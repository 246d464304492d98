use std::fmt::Write;

use millstream_core::{Claim, Holding, Owner, OwnerRecord, Rows};

/// Why a function must not go on with a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Misfit {
    /// Another function fills the table.
    Owner {
        /// The table.
        table: String,
        /// The function that fills it.
        owner: String,
        /// Since when.
        since: String,
    },
    /// The function fills the table by another plan.
    Plan {
        /// The table.
        table: String,
        /// Since when.
        since: String,
    },
    /// The function has filled another table so far, and its fences speak of that one.
    OtherTable {
        /// The table that it should fill now.
        table: String,
        /// The table that it has filled.
        before: String,
    },
    /// The fences say that records have been processed, and the table is not there.
    TableMissing {
        /// The table.
        table: String,
    },
    /// The fences say that rows have been written, and the table is empty.
    TableEmpty {
        /// The table.
        table: String,
        /// How many rows were written to it.
        written: i64,
    },
    /// The table has rows, and the function has no fences.
    FencesMissing {
        /// The table.
        table: String,
    },
}

/// What a start does with what the store holds: the claim that it makes. `public` is the table's name, and `same_plan` says
/// whether the record is of the owner's plan.
pub(crate) fn judge(holding: &Holding, owner: &Owner, public: &str, same_plan: bool) -> Result<Claim, Misfit> {
    let table = public.to_owned();
    if let Some(record) = &holding.record
        && record.owner.function == owner.function
        && !same_plan
        && holding.fences.is_empty()
        && holding.rows != Rows::Present
    {
        // Nothing is left of what the record speaks of.
        return Ok(Claim::Adopt(Some(record.clone())));
    }
    match &holding.record {
        Some(record) if record.owner.function != owner.function => {
            return Err(Misfit::Owner { table, owner: record.owner.function.clone(), since: record.since.clone() });
        }
        Some(record) if !same_plan => return Err(Misfit::Plan { table, since: record.since.clone() }),
        _ => {}
    }
    let is_adopted = holding.record.as_ref().is_some_and(|record| record.adopted);
    let has_moved = holding.fences.iter().any(|(_, fence)| fence.next_offset > fence.start_offset);
    let written = holding.fences.iter().map(|(_, fence)| fence.rows).sum::<i64>();
    if let (None, Some(OwnerRecord { table: before, .. })) = (&holding.record, holding.others.first())
        && has_moved
    {
        return Err(Misfit::OtherTable { table, before: before.clone() });
    }
    match holding.rows {
        Rows::Missing if has_moved => Err(Misfit::TableMissing { table }),
        Rows::Empty if written > 0 => Err(Misfit::TableEmpty { table, written }),
        Rows::Present if holding.fences.is_empty() && !is_adopted => Err(Misfit::FencesMissing { table }),
        _ => Ok(holding.record.clone().map_or(Claim::First, Claim::Renew)),
    }
}

impl Misfit {
    /// For a person who tries a pipeline out beside the running functions, with tables of the trial's own.
    pub fn explain_in_trial(&self, name: &str, changes: &[String]) -> String {
        format!(
            "{}\nThis is a trial, and the table is the trial's own: use another data folder (--data-dir), or remove this one, \
             to begin anew. (`millstream adopt` would change the functions' real tables.)",
            self.describe(name, changes)
        )
    }

    /// For a person: what is wrong, what has changed, and the ways out. `name` is the function in the pipeline file.
    pub fn explain(&self, name: &str, changes: &[String]) -> String {
        let mut text = self.describe(name, changes);
        let (adopt, fresh) = (self.adopting(), "what the log still has is read from `start` into the new table");
        let _ = write!(
            text,
            "\nNothing was changed. Undo the change; or choose:\n  - `millstream adopt {name}`: {adopt}\n  - new names for \
             the function and its table (`into`), both together: {fresh}"
        );
        text
    }

    /// What is wrong, and what has changed.
    pub fn describe(&self, name: &str, changes: &[String]) -> String {
        let mut text = self.reason(name);
        for change in changes {
            let _ = write!(text, "\n  - {}", change.replace('\n', "\n    "));
        }
        text
    }

    fn reason(&self, name: &str) -> String {
        match self {
            Self::Owner { table, owner, since } => format!(
                "table {table} is filled by function {owner} since {since}, so `{name}` must not write to it: all records \
                 would get into it twice"
            ),
            Self::Plan { table, since } => format!(
                "table {table} was filled by another plan of `{name}` since {since}: going on would mix the two"
            ),
            Self::OtherTable { table, before } => format!(
                "`{name}` has filled table {before} so far, and would go on in the middle of the log with table {table}, which \
                 would lack everything before"
            ),
            Self::TableMissing { table } => format!(
                "`{name}` has processed records into table {table}, and the table is gone: a new one would lack all of them"
            ),
            Self::TableEmpty { table, written } => format!(
                "`{name}` has written {written} rows to table {table}, and the table is empty: it lacks all of them"
            ),
            Self::FencesMissing { table } => format!(
                "table {table} has rows, and `{name}` has no fences beside it (they may not have been restored with the \
                 table): the rows of the whole log would be added to those that are there"
            ),
        }
    }

    /// What adopting the table means.
    pub fn adopting(&self) -> &'static str {
        match self {
            Self::Owner { .. } => {
                "this function takes the table over, and goes on where the other one is. End the other one first"
            }
            Self::Plan { .. } => {
                "the rows stay as they are, and new records are processed by the new plan; a column that is new, or computed in \
                 another way, counts from now on"
            }
            Self::OtherTable { .. } | Self::TableMissing { .. } | Self::TableEmpty { .. } => {
                "the table begins in the middle of the log, at the fences"
            }
            Self::FencesMissing { .. } => {
                "the rows stay, and records are processed from `start` on, in addition to them"
            }
        }
    }
}
