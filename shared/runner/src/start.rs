use std::sync::PoisonError;

use millstream_core::{Batch, Error, Fence, Limits, Result, Start, TopicPartition};

use crate::Runner;

impl Runner {
    /// The offset at which a partition is to be read: the fence, created from the function's `start` if there is none.
    ///
    /// # Errors
    /// Those of the sink and the log; `Stop` when the log is not the one that the fence speaks of, because the topic was
    /// made anew.
    pub async fn start(&self, partition: &TopicPartition) -> Result<i64> {
        self.known.forget(partition);
        let fence = self.fence(partition, i64::MAX).await?;
        self.check_same_topic(partition, &fence).await?;
        Ok(fence.next_offset)
    }

    /// The sink's next offset of a partition, read anew. None where there is no fence: it is not created, for only a start or
    /// a first batch says where.
    ///
    /// # Errors
    /// As [`Runner::start`].
    pub async fn next_offset(&self, partition: &TopicPartition) -> Result<Option<i64>> {
        let Some(fence) = self.parts.sink.fence(partition).await? else { return Ok(None) };
        self.check_same_topic(partition, &fence).await?;
        Ok(Some(fence.next_offset))
    }

    /// The fence, warm or from the sink. One that has to be created at the log's end begins no later than the records that
    /// a host has delivered already: on Lambda the first of them is what wakes the function.
    pub(crate) async fn fence(&self, partition: &TopicPartition, delivered_from: i64) -> Result<Fence> {
        if let Some(fence) = self.known.fence(partition) {
            return Ok(fence);
        }
        let at_the_end = self.parts.start == Start::Latest && self.was_there_first(partition).await?;
        let fence = match self.parts.sink.fence(partition).await? {
            Some(fence) => fence,
            None => {
                let held = self.parts.log.watermarks(partition).await?;
                let start = if at_the_end { held.high.min(delivered_from) } else { held.low };
                self.parts.sink.create_fence(partition, Fence::starting_at(start)).await?
            }
        };
        self.known.remember(partition, &fence);
        Ok(fence)
    }

    /// Did the topic have this partition when the function began to read it? All of one that was added later is new.
    ///
    /// The sink keeps how many there were, so that all processes agree, whichever partition comes to which of them first.
    async fn was_there_first(&self, partition: &TopicPartition) -> Result<bool> {
        let topic = (partition.topic.clone(), partition.generation);
        let kept = || self.first_partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept().get(&topic).copied();
        let first = match known {
            Some(first) => first,
            None => {
                let now = self.parts.log.partitions(&topic.0).await?;
                let first = self.parts.sink.begin_topic(&topic.0, topic.1, now).await?;
                kept().insert(topic, first);
                first
            }
        };
        Ok(partition.partition < first)
    }

    /// Is the log still the one that the fence was made from? It must reach up to the fence, and the last record below
    /// the fence must have the timestamp that the fence knows. Where that record is gone (compaction, retention) there is
    /// nothing to compare, and the log is taken for the same.
    pub(crate) async fn check_same_topic(&self, partition: &TopicPartition, fence: &Fence) -> Result<()> {
        let held = self.parts.log.watermarks(partition).await?;
        if fence.next_offset > held.high {
            return Err(made_anew(partition, fence, &format!("the log ends at offset {}", held.high)));
        }
        let last = fence.next_offset - 1;
        let Some(known_ms) = fence.last_timestamp_ms.filter(|_| last >= held.low) else { return Ok(()) };
        let one = Limits { max_records: 1, ..self.parts.limits };
        let batch = self.parts.log.read(partition, last..fence.next_offset, one).await?;
        match batch.timestamps_ms().values().first() {
            Some(found_ms) if *found_ms != known_ms => {
                let what = format!("the record at offset {last} is of {found_ms} ms where {known_ms} ms is known");
                Err(made_anew(partition, fence, &what))
            }
            _ => Ok(()),
        }
    }
}

/// The records below the fence are a redelivery, or of another topic of the same name: then all of them are newer than the
/// last one known.
pub(crate) fn looks_new(batch: &Batch, fence: &Fence) -> bool {
    let below = batch.offsets().values().partition_point(|offset| *offset < fence.next_offset);
    let oldest_ms = batch.timestamps_ms().values()[..below].iter().min();
    fence.last_timestamp_ms.zip(oldest_ms).is_some_and(|(known_ms, oldest_ms)| *oldest_ms > known_ms)
}

fn made_anew(partition: &TopicPartition, fence: &Fence, what: &str) -> Error {
    Error::stop(format!(
        "the sink has everything below offset {} of {partition}, but {what}: the topic was deleted and made anew. Raise \
         `generation` of topic {} in the pipeline file",
        fence.next_offset, partition.topic
    ))
}
