use std::{collections::BTreeMap, sync::Arc};

use arrow::array::Array;
use async_trait::async_trait;
use millstream_core::{Batch, DeadLetter, DeadLetters, Limits, Log, Producer, Result, TopicPartition};

/// Dead letters in a topic: one record per letter, the value unchanged, the rest in headers.
pub struct TopicDeadLetters<L> {
    log: Arc<L>,
    topic: String,
}

/// A listing reads this much of the topic at a time.
const PAGE: Limits = Limits { max_records: 1_000, max_bytes: 16 << 20, max_wait_ms: 0 };

impl<L> TopicDeadLetters<L> {
    /// Letters in `topic`, which must be there.
    pub fn new(log: Arc<L>, topic: impl Into<String>) -> Self {
        Self { log, topic: topic.into() }
    }
}

#[async_trait]
impl<L: Log + Producer> DeadLetters for TopicDeadLetters<L> {
    async fn put(&self, letters: &[DeadLetter]) -> Result<()> {
        self.log.send(&self.topic, letters.iter().map(DeadLetter::to_record).collect()).await?;
        Ok(())
    }

    async fn list(&self, function: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>> {
        // A crash between letter and fence sends a letter again: one per function and position is kept.
        let mut letters = BTreeMap::new();
        for partition in 0..self.log.partitions(&self.topic).await? {
            let partition = TopicPartition::new(&self.topic, 1, partition);
            let held = self.log.watermarks(&partition).await?;
            let mut next = held.low;
            while next < held.high && letters.len() < limit {
                let batch = self.log.read(&partition, next..held.high, PAGE).await?;
                next = batch.range().end;
                for letter in letters_of(&batch) {
                    if function.is_none_or(|function| function == letter.function) {
                        letters.insert((letter.function.clone(), letter.position.clone()), letter);
                    }
                }
            }
        }
        Ok(letters.into_values().take(limit).collect())
    }
}

fn letters_of(batch: &Batch) -> impl Iterator<Item = DeadLetter> {
    (0..batch.len()).filter_map(|row| {
        let (value, headers) = (batch.values(), batch.headers_of(row));
        let headers = headers.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        DeadLetter::from_record(value.is_valid(row).then(|| value.value(row)), headers)
    })
}
