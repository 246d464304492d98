use std::fmt::Write;

use super::Ways;

/// Whose table a trial beside the functions in production writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    /// One of the trial's own, in the data folder.
    OwnTable,
    /// The one in production.
    RealTable {
        /// The variable with the address of its system.
        variable: &'static str,
    },
}

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

impl Misfit {
    /// For a person who tries a pipeline out beside the functions in production: no advice changes those.
    pub(crate) fn explain_in_trial(&self, name: &str, changes: &[String], trial: Trial) -> String {
        let advice = match trial {
            Trial::OwnTable => {
                "This is a trial, and the table is the trial's own: use another data folder (--data-dir), or remove this one, \
                 to begin anew. (`millstream rebuild` and `millstream adopt` would change the functions' real tables.)"
                    .to_owned()
            }
            Trial::RealTable { variable } => format!(
                "Nothing was changed. This is a trial, and the table is the one in production: set {variable} to `embedded` to \
                 give the trial a table of its own."
            ),
        };
        format!("{}\n{advice}", self.describe(name, changes))
    }

    /// For a person: what is wrong, what has changed, and the ways out. `name` is the function in the pipeline file.
    pub fn explain(&self, name: &str, changes: &[String], ways: &Ways) -> String {
        format!("{}\n{}", self.describe(name, changes), ways.explain(name, self))
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
