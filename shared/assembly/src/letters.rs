use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use millstream_core::{DeadLetters, Error, Position, Result, TopicPartition};

use crate::{LetterStanding, LetterState};

/// The largest number of dead letters in an audit: their positions are held in memory.
const MAX_LETTERS: usize = 10_000_000;

/// The positions of a function's dead letters.
#[derive(Default)]
pub(crate) struct Letters {
    offsets: HashMap<TopicPartition, HashSet<i64>>,
    /// Those whose records have been redriven, and are in the table.
    redriven: HashMap<TopicPartition, HashSet<i64>>,
    count: usize,
    judged: Mutex<BTreeMap<Position, Judged>>,
}

/// What an audit thinks of a letter whose record can be decoded and is timely.
pub(crate) enum Judged {
    /// The function refuses the record.
    Right,
    /// The store has refused it, which can't be tried again without writing.
    OfStore,
    /// The function accepts it, though the letter gives this reason.
    Wrong(String),
}

impl Letters {
    pub(crate) async fn of(kept: &dyn DeadLetters, function: &str, standing: &LetterStanding) -> Result<Self> {
        let mut letters = Self::default();
        kept.positions(function, &mut |position| letters.add(position, standing)).await?;
        match letters.count {
            0..=MAX_LETTERS => Ok(letters),
            count => Err(Error::stop(format!(
                "{function} has {count} dead letters, and an audit handles at most {MAX_LETTERS}: fix the cause of \
                 these dead letters first"
            ))),
        }
    }

    /// The letters that have been looked at.
    pub(crate) fn judged(&self) -> MutexGuard<'_, BTreeMap<Position, Judged>> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&mut self, position: Position, standing: &LetterStanding) {
        let offsets = match standing.of(&position) {
            LetterState::Redriven => &mut self.redriven,
            _ => &mut self.offsets,
        };
        let Position { partition, offset } = position;
        // Beyond the limit they are only counted.
        if self.count >= MAX_LETTERS || offsets.entry(partition).or_default().insert(offset) {
            self.count += 1;
        }
    }

    /// The offsets of a partition whose records have been redriven.
    pub(crate) fn redriven(&self, partition: &TopicPartition) -> Option<&HashSet<i64>> {
        self.redriven.get(partition)
    }

    pub(crate) fn contains(&self, partition: &TopicPartition, offset: i64) -> bool {
        self.offsets.get(partition).is_some_and(|offsets| offsets.contains(&offset))
    }
}
