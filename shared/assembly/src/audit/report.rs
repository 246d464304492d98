use std::{fmt, ops::Range};

use millstream_core::{Fence, Position, TopicPartition};

use super::pass::Pass;
use crate::letters::Judged;

/// What an audit found.
#[derive(Clone, Debug, Default)]
pub struct AuditReport {
    /// The function, as `pipeline.function`.
    pub function: String,
    /// Records read from the log.
    pub records: u64,
    /// Rows that the sink holds.
    pub rows: u64,
    /// Rows of the sink that were compared: all, unless only a part was asked for.
    pub compared: u64,
    /// The offsets that were read.
    pub ranges: Vec<(TopicPartition, Range<i64>)>,
    /// Records that are dead letters.
    pub dead_letters: u64,
    /// How many differences are kept at most.
    pub limit: usize,
    /// The first differences, as many as were asked for.
    pub differences: Vec<Difference>,
    /// How many differences there are in all.
    pub total_differences: u64,
    /// The fence up to which each partition was compared.
    pub fences: Vec<(TopicPartition, Fence)>,
    /// What could not be compared, or not exactly, with the reason.
    pub notes: Vec<String>,
    /// Rows of the sink that could not be compared, because it also holds rows from elsewhere.
    pub surplus: u64,
}

/// The progress of an audit.
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
    /// The log gives this row, and the sink doesn't hold it (with the count if it is missing several times).
    Missing(String),
    /// The sink holds this row, and the log doesn't give it (with the count if there are several).
    Unexpected(String),
    /// Both have a row with this key, with different values.
    Differs {
        /// The key columns.
        key: String,
        /// The sink's values in the columns that differ.
        stored: String,
        /// The values that the log gives.
        expected: String,
    },
    /// Readers see other values in the row with this key than the function's stored states give.
    Unfinished {
        /// The key columns.
        key: String,
        /// The values that readers see, in the columns that differ.
        seen: String,
        /// The values that the states give.
        given: String,
    },
    /// A stored state with a value that can't be read.
    BrokenState(String),
    /// Readers see this row, but the function's stored states don't give it.
    Shown(String),
    /// The function's stored states give this row, but readers don't see it.
    Hidden(String),
    /// A dead letter whose record the function accepts.
    Letter {
        /// The record's position.
        position: Position,
        /// The reason that the letter gives.
        reason: String,
    },
    /// A record that can't be processed and isn't among the dead letters.
    Lost {
        /// Its position.
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
                let separator = if key.is_empty() { "" } else { ": " };
                write!(f, "{key}{separator}the sink has {stored}, the log gives {expected}")
            }
            Self::Unfinished { key, seen, given } => {
                let separator = if key.is_empty() { "" } else { " with " };
                write!(f, "readers see {key}{separator}{seen}, but the stored states give {given}")
            }
            Self::BrokenState(state) => write!(f, "a stored state can't be read: {state}"),
            Self::Shown(row) => write!(f, "readers see {row}, but the stored states don't give it"),
            Self::Hidden(row) => write!(f, "readers don't see {row}, but the stored states give it"),
            Self::Letter { position, reason } => {
                write!(f, "record {position} is a dead letter (\u{201c}{reason}\u{201d}), but the function accepts it")
            }
            Self::Lost { position, reason } => {
                write!(f, "record {position} is neither a row nor a dead letter: {reason}")
            }
        }
    }
}

impl AuditReport {
    /// Does the sink hold exactly the result of one pass over the log?
    pub fn is_clean(&self) -> bool {
        self.total_differences == 0
    }

    pub(super) fn lose(&mut self, position: Position, reason: String) {
        self.add(Difference::Lost { position, reason });
    }

    /// Takes over what a pass over the log has seen.
    pub(super) fn take(&mut self, pass: &Pass) {
        let mut seen = pass.seen();
        (self.records, self.dead_letters) = (seen.records, seen.dead_letters);
        let mut of_store = 0;
        if let Some(input) = pass.input.get() {
            for (position, judged) in input.letters.judged().iter() {
                match judged {
                    Judged::Wrong(reason) => {
                        self.add(Difference::Letter { position: position.clone(), reason: reason.clone() });
                    }
                    Judged::OfStore => of_store += 1,
                    Judged::Right => {}
                }
            }
        }
        let more = seen.not_checked;
        if of_store + more > 0 {
            self.notes.push(format!(
                "{} dead letters were not checked, but taken for right: the store had refused {of_store} of the records, and \
                 {more} are beyond the first thousand. If one of them is a row by now, it shows as a difference",
                of_store + more
            ));
        }
        let lost = std::mem::take(&mut seen.lost);
        self.total_differences += seen.total_lost - lost.len() as u64;
        lost.into_iter().for_each(|(position, reason)| self.lose(position, reason));
    }

    pub(super) fn add(&mut self, difference: Difference) {
        self.total_differences += 1;
        if self.differences.len() < self.limit {
            self.differences.push(difference);
        }
    }
}
