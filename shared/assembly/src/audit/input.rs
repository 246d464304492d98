//! What a pass over the log reads, and what it has seen of records that are no rows.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    sync::Arc,
};

use millstream_core::{Error, Fence, Position, TopicPartition};

use super::pass::Place;
use crate::letters::Letters;

/// How many positions are kept of records that are lost; all are counted.
const MAX_LOST: usize = 1_000;

/// What is read.
#[derive(Clone, Default)]
pub(crate) struct Input {
    /// The offsets of each partition.
    pub(crate) ranges: Vec<(TopicPartition, Range<i64>)>,
    /// The function's dead letters.
    pub(crate) letters: Arc<Letters>,
    /// Records that can be decoded, but for which an expression can't be computed.
    pub(crate) refused: HashSet<Position>,
    /// Must each row be computed as if it were alone? `n <> 0 AND 1 / n > 0` may compute both sides for several rows at
    /// once, and a neighbour of a row that is accepted then fails.
    pub(crate) alone: bool,
    /// Are all groups computed, though only some are wanted? The key of a record that the statement leaves out may be one that
    /// can't be computed.
    pub(crate) all_groups: bool,
    /// Must each record have a timestamp of its own?
    pub(crate) stamped: bool,
    /// Does it begin in the middle of the log? What a function had sent before that isn't known then.
    pub(crate) from_the_middle: bool,
}

/// All that is below the fences, from where the function began.
pub(super) fn whole_ranges(fences: &[(TopicPartition, Fence)]) -> Vec<(TopicPartition, Range<i64>)> {
    let range = |(at, fence): &(TopicPartition, Fence)| (at.clone(), fence.start_offset..fence.next_offset);
    fences.iter().map(range).collect()
}

/// What a pass has seen of records that are no rows.
#[derive(Default)]
pub(crate) struct Seen {
    /// What is left of the lanes that have been opened: a statement may read a topic twice, or give up in the middle.
    pub(super) left: BTreeMap<(String, usize), Vec<Place>>,
    pub(crate) records: u64,
    pub(crate) dead_letters: u64,
    /// Records that can't be processed and are no dead letters, with the reason.
    pub(crate) lost: Vec<(Position, String)>,
    pub(crate) total_lost: u64,
    /// Dead letters that were not looked at, because there are too many.
    pub(crate) not_checked: u64,
    /// Why reading has failed.
    pub(crate) error: Option<Error>,
}

impl Seen {
    pub(crate) fn lose(&mut self, position: Position, reason: String) {
        self.total_lost += 1;
        if self.lost.len() < MAX_LOST {
            self.lost.push((position, reason));
        }
    }
}
