use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use arrow::array::Array;
use async_trait::async_trait;
use millstream_core::{
    Batch, DeadLetter, DeadLetters, Limits, Log, MAX_LISTED_BYTES, Position, Producer, Result, TopicPartition,
};

use crate::{
    newest::Newest,
    record::{letter_from_record, letter_to_record, removal, removed},
};

/// Dead letters in a topic: one record per letter, with the value unchanged and the rest in headers.
///
/// A listing looks through the newest 100,000 records of each partition of the topic, and no further.
pub struct TopicDeadLetters<L: ?Sized> {
    log: Arc<L>,
    topic: String,
}

/// What a record of the topic says.
enum Entry {
    Kept(DeadLetter),
    /// The letter of a function at a position was removed.
    Removed(String, Position),
}

/// How many letters are removed in one call of the producer.
const REMOVED_AT_ONCE: usize = 10_000;

/// How much of the topic is read at once.
const PAGE: Limits = Limits { max_records: 1_000, max_bytes: 16 << 20, max_wait_ms: 0 };

/// How many offsets a listing goes back at first.
const MIN_STEP: usize = 16;

/// How far a listing goes back in each partition at most, in offsets.
const MAX_LOOKED_THROUGH: i64 = 100_000;

impl<L: Log + ?Sized> TopicDeadLetters<L> {
    /// Letters in `topic`, which must be there.
    pub fn new(log: Arc<L>, topic: impl Into<String>) -> Self {
        Self { log, topic: topic.into() }
    }
}

#[async_trait]
impl<L: Log + Producer + ?Sized> DeadLetters for TopicDeadLetters<L> {
    async fn put(&self, letters: &[DeadLetter]) -> Result<()> {
        self.log.send(&self.topic, letters.iter().map(letter_to_record).collect()).await?;
        Ok(())
    }

    async fn list(&self, function: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>> {
        let mut letters = Vec::new();
        for partition in self.partitions().await? {
            letters.extend(self.newest(&partition, function, limit).await?);
        }
        // The letters of each partition are already in order, and bounded.
        letters.sort_by_key(|(timestamp_ms, _)| Reverse(*timestamp_ms));
        let mut bytes = 0;
        let room = |(at, (_, letter)): &(usize, (i64, DeadLetter))| {
            bytes += letter.bytes();
            *at == 0 || bytes <= MAX_LISTED_BYTES
        };
        let newest = letters.into_iter().take(limit).enumerate().take_while(room);
        Ok(newest.map(|(_, (_, letter))| letter).collect())
    }

    async fn find(&self, function: Option<&str>, position: &Position) -> Result<Vec<DeadLetter>> {
        let mut found: Vec<DeadLetter> = Vec::new();
        let mut keep = |entry: Entry| match entry {
            Entry::Kept(letter) => {
                if letter.position == *position && function.is_none_or(|function| function == letter.function) {
                    found.retain(|before| before.function != letter.function);
                    found.push(letter);
                }
            }
            Entry::Removed(of, at) if at == *position => found.retain(|before| before.function != of),
            Entry::Removed(..) => {}
        };
        self.visit_all(&mut keep).await?;
        Ok(found)
    }

    async fn fetch(&self, function: &str, positions: &[Position]) -> Result<(Vec<DeadLetter>, usize)> {
        let places: HashMap<&Position, usize> =
            positions.iter().enumerate().map(|(at, position)| (position, at)).collect();
        let (mut found, mut bytes, mut end) = (BTreeMap::new(), 0, positions.len());
        let mut keep = |entry: Entry| match entry {
            Entry::Kept(letter) if letter.function == function => {
                let Some(place) = places.get(&letter.position).copied().filter(|place| *place < end) else { return };
                bytes += letter.bytes();
                bytes -= found.insert(place, letter).as_ref().map_or(0, DeadLetter::bytes);
                while bytes > MAX_LISTED_BYTES && found.len() > 1 {
                    let Some((place, letter)) = found.pop_last() else { break };
                    (end, bytes) = (place, bytes - letter.bytes());
                }
            }
            Entry::Removed(of, at) if of == function => {
                let removed = places.get(&at).and_then(|place| found.remove(place));
                bytes -= removed.as_ref().map_or(0, DeadLetter::bytes);
            }
            _ => {}
        };
        self.visit_all(&mut keep).await?;
        Ok((found.into_values().collect(), end))
    }

    async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let mut there = HashSet::new();
        let mut visit = |position| {
            there.insert(position);
        };
        self.positions(from, &mut visit).await?;
        for partition in self.partitions().await? {
            let held = self.log.watermarks(&partition).await?;
            let mut next = held.low;
            while next < held.high {
                let batch = self.log.read(&partition, next..held.high, PAGE).await?;
                next = batch.range().end;
                let of_from = entries_of(&batch).filter_map(|(_, entry)| match entry {
                    Entry::Kept(letter) if letter.function == from && there.contains(&letter.position) => {
                        Some(DeadLetter { function: to.to_owned(), ..letter })
                    }
                    _ => None,
                });
                let letters: Vec<_> = of_from.collect();
                self.put(&letters).await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, function: &str, positions: &[Position]) -> Result<()> {
        for positions in positions.chunks(REMOVED_AT_ONCE) {
            let tombstones = positions.iter().map(|position| removal(function, position)).collect();
            self.log.send(&self.topic, tombstones).await?;
        }
        Ok(())
    }

    async fn positions(&self, function: &str, visit: &mut (dyn FnMut(Position) + Send)) -> Result<()> {
        // Whether a letter is removed later is known only at the end.
        let mut found = HashSet::new();
        let mut keep = |entry: Entry| match entry {
            Entry::Kept(letter) if letter.function == function => {
                found.insert(letter.position);
            }
            Entry::Removed(of, position) if of == function => {
                found.remove(&position);
            }
            _ => {}
        };
        self.visit_all(&mut keep).await?;
        found.into_iter().for_each(visit);
        Ok(())
    }
}

impl<L: Log + ?Sized> TopicDeadLetters<L> {
    async fn partitions(&self) -> Result<Vec<TopicPartition>> {
        let count = self.log.partitions(&self.topic).await?;
        Ok((0..count).map(|partition| TopicPartition::new(&self.topic, 1, partition)).collect())
    }

    /// Calls `visit` with each entry in `range` of a partition and the time at which it was stored, in order.
    async fn visit(
        &self,
        partition: &TopicPartition,
        range: Range<i64>,
        visit: &mut (dyn FnMut(i64, Entry) + Send),
    ) -> Result<()> {
        let mut next = range.start;
        while next < range.end {
            let batch = self.log.read(partition, next..range.end, PAGE).await?;
            next = batch.range().end;
            entries_of(&batch).for_each(|(timestamp_ms, entry)| visit(timestamp_ms, entry));
        }
        Ok(())
    }

    /// All entries of the topic.
    async fn visit_all(&self, visit: &mut (dyn FnMut(Entry) + Send)) -> Result<()> {
        for partition in self.partitions().await? {
            let held = self.log.watermarks(&partition).await?;
            self.visit(&partition, held.low..held.high, &mut |_, entry| visit(entry)).await?;
        }
        Ok(())
    }

    /// The newest letters of a partition with the time at which each was stored, newest first.
    async fn newest(
        &self,
        partition: &TopicPartition,
        function: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(i64, DeadLetter)>> {
        let held = self.log.watermarks(partition).await?;
        let last = held.low.max(held.high.saturating_sub(MAX_LOOKED_THROUGH));
        // Letters can be large: a page has no more of them than were asked for, if all are the function's own.
        let (mut found, mut end, mut step) = (Newest::new(limit), held.high, limit.clamp(MIN_STEP, PAGE.max_records));
        while end > last && !found.full {
            let start = last.max(end - step as i64);
            let mut page = found.page();
            let is_wanted = |of: &str| function.is_none_or(|function| function == of);
            let is_older = |of: &str, position: &Position| found.seen.contains(&(of.to_owned(), position.clone()));
            let mut keep = |timestamp_ms, entry: Entry| match entry {
                Entry::Kept(letter) if is_wanted(&letter.function) && !is_older(&letter.function, &letter.position) => {
                    page.push(timestamp_ms, letter);
                }
                Entry::Removed(of, position) if is_wanted(&of) && !is_older(&of, &position) => {
                    page.remove(of, position)
                }
                _ => {}
            };
            self.visit(partition, start..end, &mut keep).await?;
            if page.may_lack_letters && end - start > 1 {
                step = usize::try_from((end - start) / 2).unwrap_or(1);
                continue;
            }
            found.add(page);
            step = (step * 4).min(PAGE.max_records);
            end = start;
        }
        Ok(found.letters)
    }
}

fn entries_of(batch: &Batch) -> impl Iterator<Item = (i64, Entry)> {
    (0..batch.len()).filter_map(|row| {
        let (key, value, headers) = (batch.keys(), batch.values(), batch.headers_of(row));
        let headers = headers.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let removal = || {
            let key = (value.is_null(row) && key.is_valid(row)).then(|| key.value(row))?;
            removed(key).map(|(function, position)| Entry::Removed(function, position))
        };
        let letter = letter_from_record(value.is_valid(row).then(|| value.value(row)), headers);
        let entry = letter.map(Entry::Kept).or_else(removal)?;
        Some((batch.timestamps_ms().value(row), entry))
    })
}
