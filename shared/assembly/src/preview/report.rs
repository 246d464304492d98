use arrow::array::RecordBatch;
use millstream_core::Position;

use crate::audit::pass::Pass;

/// What a preview is asked for.
#[derive(Clone, Copy, Debug)]
pub struct PreviewOptions {
    /// Only records whose timestamp is not before this one, in milliseconds since 1970; nothing is compared then.
    pub since_ms: Option<i64>,
    /// How many rows, and how many changes of each kind, are returned.
    pub limit: usize,
}

/// What a statement would give.
#[derive(Debug, Default)]
pub struct Preview {
    /// The function, as `pipeline.function`.
    pub function: String,
    /// Records read from the log.
    pub records: u64,
    /// How many of them would become dead letters.
    pub refused: u64,
    /// The first of these, with the reason.
    pub first_refused: Vec<(Position, String)>,
    /// How many rows there would be.
    pub total_rows: u64,
    /// Some of the rows, each as a batch of one row.
    pub rows: Vec<RecordBatch>,
    /// What would change in the deployed table; `None` where there is none, or only a part of the log was read.
    pub changes: Option<Changes>,
    /// What must be known about it.
    pub notes: Vec<String>,
}

/// The deployed table side by side with what the statement would give.
#[derive(Debug, Default)]
pub struct Changes {
    /// Rows that stay as they are, in the columns that both have.
    pub same: u64,
    /// Rows that there would be in addition, and the first of them.
    pub new: u64,
    /// Rows that would be gone.
    pub gone: u64,
    /// Rows of a group that would have other values.
    pub different: u64,
    /// The first changes of each kind.
    pub examples: Vec<Change>,
    /// Columns that would be added, removed, or have another type, a line each.
    pub columns: Vec<String>,
}

/// A change of one row, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It would be there.
    New(String),
    /// It would be gone.
    Gone(String),
    /// It would have other values.
    Different {
        /// The group.
        key: String,
        /// The values that differ, as they are.
        is: String,
        /// The same, as they would be.
        becomes: String,
    },
}

impl Preview {
    pub(super) fn take(&mut self, pass: &Pass) {
        let mut seen = pass.seen();
        (self.records, self.refused) = (seen.records, seen.total_lost);
        self.first_refused = std::mem::take(&mut seen.lost);
    }
}
