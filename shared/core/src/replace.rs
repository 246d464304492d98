use std::{collections::BTreeMap, ops::Range};

use async_trait::async_trait;

use crate::{Error, Fence, Owner, OwnerRecord, Position, Result, Table, TopicPartition};

/// What ends the function's name in a rebuild: its fences and dead letters stand under `pipeline.function.rebuild` meanwhile.
pub const REBUILD_SUFFIX: &str = ".rebuild";

/// The place that a rebuilt table takes.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// The table as the new plan needs it, under its own name.
    pub table: Table,
    /// Who owns it from then on.
    pub owner: Owner,
    /// The record that the place has in the store: if it has another one by then, nothing is replaced.
    pub record: Option<OwnerRecord>,
    /// The old table as its recorded plan has it; none when there is no record, or this version can't plan it any more.
    pub old_table: Option<Table>,
    /// The topics that the new plan reads, with their generations. The rebuilt table must not be behind the old one in them.
    pub topics: Vec<(String, u32)>,
    /// May what can't be kept be dropped with the old table?
    pub drop_dependents: bool,
}

impl Replacement {
    /// The function whose fences speak of the old table.
    pub fn before(&self) -> &str {
        self.record.as_ref().map_or(&self.owner.function, |record| &record.owner.function)
    }

    /// Is the new table behind the old one? Compares the fences in the topics that the new plan reads.
    pub fn is_behind(&self, old: &[(TopicPartition, Fence)], new: &[(TopicPartition, Fence)]) -> bool {
        let reached: BTreeMap<_, _> = new.iter().map(|(partition, fence)| (partition, fence.next_offset)).collect();
        let is_read = |at: &TopicPartition| {
            self.topics.iter().any(|(name, number)| *name == at.topic && *number == at.generation)
        };
        let mut old = old.iter().filter(|(partition, _)| is_read(partition));
        old.any(|(partition, fence)| reached.get(partition).is_none_or(|next| *next < fence.next_offset))
    }
}

/// What came of [`Replace::take_place`].
#[derive(Clone, Debug, PartialEq)]
pub enum Replaced {
    /// The table has the place, under this record. What is left in the store's record of the rebuild are the offsets up to which
    /// it had come: see [`reached`].
    Done(OwnerRecord),
    /// The old table is ahead: nothing was changed.
    Behind,
    /// The place, or the rebuild, has another record by now: nothing was changed.
    Changed,
}

/// Brings in what a rebuilt table lacks, while nobody writes to the old one.
#[async_trait]
pub trait CatchUp: Send + Sync {
    /// Writes to the new table up to the fences of the old one, as far as the new one has fences of these partitions. Writers
    /// wait meanwhile: the store ends it after some seconds.
    async fn catch_up(&self, to: &[(TopicPartition, Fence)]) -> Result<()>;
}

/// A sink whose table was filled beside another one, and can take that one's place.
///
/// Called by `millstream rebuild`, by one process at a time as far as people keep to it: a second one finds a record that has
/// changed, and changes nothing.
#[async_trait]
pub trait Replace: Send + Sync {
    /// Makes the new table what it will be in its place as far as it can be made now (indexes), and tries the whole step without
    /// keeping it. Returns what can't be kept, each one named for a person; none when all of it can.
    ///
    /// # Errors
    /// `Stop` when the table can never take the place; says why. `Retry` as for any call.
    async fn rehearse(&self, replacement: &Replacement) -> Result<Vec<String>>;

    /// In one atomic step for readers and writers: the old table is dropped, this one takes its name and what readers and
    /// administrators have put on it, its fences become the owner's in a new term, and the old fences are removed. Processes that
    /// still write to the old table stop with their next write. The record of the rebuild stays, see [`reached`], until
    /// [`Replace::discard`].
    ///
    /// A store that can keep the writers of the old table out while others write to the new one lets `catch_up` bring in what is
    /// missing in between. Others answer that the table is behind.
    ///
    /// # Errors
    /// `Stop` with what can't be kept, if that may not be dropped, and when the table can't take the place; nothing was changed.
    /// `Retry` when the outcome may be unknown.
    async fn take_place(&self, replacement: &Replacement, catch_up: &dyn CatchUp) -> Result<Replaced>;

    /// Removes this table with its fences and its record, as far as they are there.
    ///
    /// # Errors
    /// `Stop` when one of its names is something else's: no rebuild is recorded as its owner, and it has rows. Nothing was
    /// changed.
    async fn discard(&self) -> Result<()>;
}

/// The offsets that a rebuilt table was made of when it took its place, as a store keeps them in the declaration of the
/// rebuild's record: dead letters of these are those of the new plan, or none.
///
/// # Errors
/// `Stop` when the text was not written by [`reached_text`].
pub fn reached(declaration: &str) -> Result<Vec<(TopicPartition, Range<i64>)>> {
    let damaged = || Error::stop("the record of a rebuild is damaged in the store");
    let line = |line: &str| {
        let (start, end) = line.split_once(' ')?;
        let end = Position::parse(end)?;
        Some((end.partition, start.parse().ok()?..end.offset))
    };
    declaration.lines().map(|text| line(text).ok_or_else(damaged)).collect()
}

/// What [`reached`] reads.
pub fn reached_text(fences: &[(TopicPartition, Fence)]) -> String {
    let reached =
        fences.iter().map(|(partition, fence)| format!("{} {}", fence.start_offset, partition.at(fence.next_offset)));
    reached.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32, next_offset: i64) -> (TopicPartition, Fence) {
        (TopicPartition::new("t", 1, partition), Fence { next_offset, ..Fence::starting_at(0) })
    }

    #[test]
    fn what_was_reached_is_read_back() {
        let fences = [at(0, 5), at(7, 0)];
        let read = reached(&reached_text(&fences)).unwrap();
        assert_eq!(read, fences.map(|(partition, fence)| (partition, 0..fence.next_offset)));
        assert_eq!(reached("").unwrap(), []);
        assert!(reached("name: shop").is_err());
    }

    #[test]
    fn only_topics_that_are_still_read_can_be_behind() {
        let owner = Owner { function: "p.f".into(), fingerprint: String::new(), declaration: String::new() };
        let table = Table { name: "x".into(), columns: vec![], combine: None, view: None };
        let topics = vec![("t".to_owned(), 1)];
        let place = Replacement { table, owner, record: None, old_table: None, topics, drop_dependents: false };
        assert!(!place.is_behind(&[at(0, 5)], &[at(0, 5), at(1, 0)]));
        assert!(place.is_behind(&[at(0, 6)], &[at(0, 5)]));
        assert!(place.is_behind(&[at(0, 5), at(1, 0)], &[at(0, 5)]), "a partition that the new one doesn't have yet");
        let gone = (TopicPartition::new("t", 2, 0), Fence::starting_at(9));
        assert!(!place.is_behind(&[gone], &[at(0, 5)]));
    }
}
