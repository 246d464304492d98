use std::fmt;

use millstream_core::{Fence, Position, TopicPartition};

/// The most differences that are kept; all are counted.
const MAX_DIFFERENCES: usize = 1_000;

/// What an audit found.
#[derive(Clone, Debug, Default)]
pub struct AuditReport {
    /// The function, as `pipeline.function`.
    pub function: String,
    /// Records read from the log.
    pub records: u64,
    /// Rows that the sink holds.
    pub rows: u64,
    /// Records that are dead letters.
    pub dead_letters: u64,
    /// What differs, at most the first 1,000.
    pub differences: Vec<Difference>,
    /// How many differences there are in all.
    pub total_differences: u64,
    /// Up to where each partition was compared.
    pub fences: Vec<(TopicPartition, Fence)>,
    /// What could not be compared, or not exactly, and why.
    pub notes: Vec<String>,
}

/// How far an audit has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditProgress {
    /// Offsets read.
    pub read: u64,
    /// Offsets to be read.
    pub total: u64,
}

/// One difference between the log and the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The log gives this row, and the sink does not hold it (count).
    Missing(String),
    /// The sink holds this row, and the log does not give it (count).
    Unexpected(String),
    /// Both have a row of this key, with other values.
    Differs {
        /// The key columns.
        key: String,
        /// What the sink holds, in the columns that differ.
        stored: String,
        /// What the log gives.
        expected: String,
    },
    /// Readers see this row, and the rows that the function keeps don't give it.
    Shown(String),
    /// The rows that the function keeps give this row, and readers don't see it.
    Hidden(String),
    /// A record that can't be processed, and that is not among the dead letters.
    Lost {
        /// Where it stands.
        position: Position,
        /// Why it can't be processed.
        reason: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(row) => write!(f, "missing in the sink: {row}"),
            Self::Unexpected(row) => write!(f, "not from the log: {row}"),
            Self::Differs { key, stored, expected } => {
                write!(f, "{key}: the sink has {stored}, the log gives {expected}")
            }
            Self::Shown(row) => write!(f, "readers see {row}, which is not what the kept rows give"),
            Self::Hidden(row) => write!(f, "readers don't see {row}, which the kept rows give"),
            Self::Lost { position, reason } => {
                write!(f, "record {position} is neither a row nor a dead letter: {reason}")
            }
        }
    }
}

impl AuditReport {
    /// Does the sink hold exactly what one pass over the log gives?
    pub fn is_clean(&self) -> bool {
        self.total_differences == 0
    }

    pub(super) fn add(&mut self, difference: Difference) {
        self.total_differences += 1;
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.push(difference);
        }
    }
}
