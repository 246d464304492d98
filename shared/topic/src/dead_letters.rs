use std::{cmp::Reverse, ops::Range, sync::Arc};

use arrow::array::Array;
use async_trait::async_trait;
use millstream_core::{
    Batch, DeadLetter, DeadLetters, Limits, Log, MAX_LISTED_BYTES, Position, Producer, Result, TopicPartition,
};

use crate::{
    newest::Newest,
    record::{letter_from_record, letter_to_record},
};

/// Dead letters in a topic: one record per letter, with the value unchanged and the rest in headers.
///
/// A listing looks through the newest 100,000 records of each partition of the topic, and no further.
pub struct TopicDeadLetters<L: ?Sized> {
    log: Arc<L>,
    topic: String,
}

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
        let mut keep = |letter: DeadLetter| {
            if letter.position == *position && function.is_none_or(|function| function == letter.function) {
                found.retain(|before| before.function != letter.function);
                found.push(letter);
            }
        };
        self.visit_all(&mut keep).await?;
        Ok(found)
    }

    async fn positions(&self, function: &str, visit: &mut (dyn FnMut(Position) + Send)) -> Result<()> {
        let mut tell = |letter: DeadLetter| {
            if letter.function == function {
                visit(letter.position);
            }
        };
        self.visit_all(&mut tell).await
    }
}

impl<L: Log + ?Sized> TopicDeadLetters<L> {
    async fn partitions(&self) -> Result<Vec<TopicPartition>> {
        let count = self.log.partitions(&self.topic).await?;
        Ok((0..count).map(|partition| TopicPartition::new(&self.topic, 1, partition)).collect())
    }

    /// Calls `visit` with each letter in `range` of a partition and the time at which it was stored, in order.
    async fn visit(
        &self,
        partition: &TopicPartition,
        range: Range<i64>,
        visit: &mut (dyn FnMut(i64, DeadLetter) + Send),
    ) -> Result<()> {
        let mut next = range.start;
        while next < range.end {
            let batch = self.log.read(partition, next..range.end, PAGE).await?;
            next = batch.range().end;
            letters_of(&batch).for_each(|(timestamp_ms, letter)| visit(timestamp_ms, letter));
        }
        Ok(())
    }

    /// All letters of the topic.
    async fn visit_all(&self, visit: &mut (dyn FnMut(DeadLetter) + Send)) -> Result<()> {
        for partition in self.partitions().await? {
            let held = self.log.watermarks(&partition).await?;
            self.visit(&partition, held.low..held.high, &mut |_, letter| visit(letter)).await?;
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
            step = (step * 4).min(PAGE.max_records);
            let mut page = found.page();
            let mut keep = |timestamp_ms, letter: DeadLetter| {
                if function.is_none_or(|function| function == letter.function) {
                    page.push(timestamp_ms, letter);
                }
            };
            self.visit(partition, start..end, &mut keep).await?;
            found.add(page);
            end = start;
        }
        Ok(found.letters)
    }
}

fn letters_of(batch: &Batch) -> impl Iterator<Item = (i64, DeadLetter)> {
    (0..batch.len()).filter_map(|row| {
        let (value, headers) = (batch.values(), batch.headers_of(row));
        let headers = headers.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let letter = letter_from_record(value.is_valid(row).then(|| value.value(row)), headers)?;
        Some((batch.timestamps_ms().value(row), letter))
    })
}
