//! What a topic sink's functions have said of themselves, as the records of a small compacted topic tell it.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use millstream_core::{Batch, Claim, Error, Fence, NewRecord, OwnerRecord, Result, TopicPartition};
use serde::{Deserialize, Serialize};

/// A record of the topic. Each kind has keys of its own, so that compaction keeps what still counts: the first record of a
/// start or of a claim decides, and the last one of a moved fence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// A function begins to read a partition.
    Start { function: String, partition: TopicPartition, fence: Fence },
    /// A fence has moved, and the records that were made of what is below it are in the topic.
    Moved { function: String, partition: TopicPartition, fence: Fence, term: i64 },
    /// A function becomes the owner of a topic, if the owner is still the expected one.
    Claimed { expected: Option<OwnerRecord>, record: OwnerRecord, begins_term: bool, forgets_rows: bool },
    /// What a topic's records are, and how many of its partitions are written to: those that it had at first.
    Made { topic: String, generation: u32, partitions: i32, columns: Vec<(String, String)> },
}

/// All of it, as far as it has been read.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The next offset to be read.
    pub next: i64,
    /// By function.
    pub fences: HashMap<(String, TopicPartition), Fence>,
    /// By topic.
    pub owners: BTreeMap<String, OwnerRecord>,
    /// By topic and generation.
    pub made: HashMap<(String, u32), Made>,
}

/// What a topic's records are.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub partitions: i32,
    /// Names and types.
    pub columns: Vec<(String, String)>,
}

impl Event {
    pub fn record(&self) -> Result<NewRecord> {
        let value = serde_json::to_vec(self)
            .map_err(|error| Error::stop("internal: a fence has no JSON form").caused_by(error))?;
        let key = match self {
            Self::Start { function, partition, fence } => {
                format!("start/{function}/{partition}/{}", fence.start_offset)
            }
            Self::Moved { function, partition, term, .. } => format!("fence/{function}/{partition}/{term}"),
            Self::Claimed { record, .. } => format!("owner/{}/{}/{}", record.table, record.term, hash_of(&value)),
            Self::Made { topic, generation, .. } => format!("topic/{topic}/{generation}/{}", hash_of(&value)),
        };
        // The order of all of them counts, so all stand in one partition.
        let (key, value, partition) = (Some(key.into_bytes()), Some(value), Some(0));
        Ok(NewRecord { key, value, partition, ..NewRecord::default() })
    }
}

/// Records that differ have other keys.
fn hash_of(value: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    format!("{:x}", hasher.finish())
}

impl Kept {
    /// Takes in the records of a batch.
    ///
    /// # Errors
    /// `Stop` for a record that no function has written.
    pub fn read(&mut self, batch: &Batch) -> Result<()> {
        for value in batch.values().iter().flatten() {
            let event = serde_json::from_slice(value).map_err(|error| {
                let place = batch.partition();
                Error::stop(format!("topic {} holds something else than fences (see {place})", place.topic))
                    .caused_by(error)
            })?;
            self.apply(event);
        }
        self.next = batch.range().end;
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Start { function, partition, fence } => {
                self.fences.entry((function, partition)).or_insert(fence);
            }
            Event::Moved { function, partition, fence, term } => {
                // A process of an ended term may still have written.
                let in_force = self.owners.values().find(|record| record.owner.function == function);
                let is_behind = |held: &Fence| held.next_offset >= fence.next_offset;
                let place = (function, partition);
                if in_force.is_none_or(|record| record.term == term) && !self.fences.get(&place).is_some_and(is_behind)
                {
                    self.fences.insert(place, fence);
                }
            }
            Event::Claimed { expected, record, begins_term, forgets_rows } => {
                if self.owners.get(&record.table) == expected.as_ref() {
                    self.claim(expected.as_ref(), record, begins_term, forgets_rows);
                }
            }
            Event::Made { topic, generation, partitions, columns } => {
                let made = self.made.entry((topic, generation)).or_insert(Made { partitions, columns: Vec::new() });
                made.columns = columns;
            }
        }
    }

    fn claim(&mut self, expected: Option<&OwnerRecord>, record: OwnerRecord, begins_term: bool, forgets_rows: bool) {
        let function = &record.owner.function;
        if let Some(old) = expected.map(|old| &old.owner.function).filter(|old| *old != function) {
            let renamed = |(of, at): (String, TopicPartition)| (if of == *old { function.clone() } else { of }, at);
            let fences = std::mem::take(&mut self.fences);
            self.fences = fences.into_iter().map(|(place, fence)| (renamed(place), fence)).collect();
        }
        if begins_term {
            self.owners.retain(|table, other| *table == record.table || other.owner.function != *function);
        }
        if forgets_rows {
            let own = self.fences.iter_mut().filter(|((of, _), _)| of == function);
            own.for_each(|(_, fence)| fence.rows = 0);
        }
        self.owners.insert(record.table.clone(), record);
    }

    /// The claim as an event; `None` if the record in force is another one.
    ///
    /// # Errors
    /// `Stop` if both functions have fences.
    pub fn claimed(
        &self,
        owner: millstream_core::Owner,
        table: &str,
        claim: &Claim,
        since: String,
    ) -> Result<Option<Event>> {
        let (found, expected) = (self.owners.get(table), claim.expected());
        if found != expected {
            return Ok(None);
        }
        if let Some(old) = found.map(|found| &found.owner.function).filter(|old| **old != owner.function)
            && self.fences.keys().any(|(function, _)| *function == owner.function)
        {
            return Err(Error::stop(format!(
                "{} has fences of its own, and {old} fills topic {table}: one set of fences would be lost. Undo the rename, or \
                 give {} a topic of its own (`into`)",
                owner.function, owner.function
            )));
        }
        let highest = self.owners.values().map(|record| record.term).max().unwrap_or(0);
        let (begins_term, forgets_rows) = (claim.begins_term(), matches!(claim, Claim::Adopt(_)));
        let (term, since) = match expected {
            Some(record) if !begins_term => (record.term, record.since.clone()),
            _ => (highest + 1, since),
        };
        let adopted = claim.is_adopted();
        let record = OwnerRecord { table: table.to_owned(), owner, term, since, adopted };
        Ok(Some(Event::Claimed { expected: expected.cloned(), record, begins_term, forgets_rows }))
    }
}
