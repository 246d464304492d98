use std::sync::PoisonError;

use millstream_core::{Fence, Result, Start, TopicPartition};

use crate::runner::Runner;

impl Runner {
    /// The offset at which a partition is to be read: the fence, created from the function's `start` if there is none.
    ///
    /// # Errors
    /// Those of the sink and the log; `Stop` when the log is not the one that the fence speaks of, because the topic was
    /// re-created or has lost records.
    pub async fn start(&self, partition: &TopicPartition) -> Result<i64> {
        self.known.forget(partition);
        let fence = self.fence(partition, i64::MAX).await?;
        self.check_records(partition, &fence).await?;
        Ok(fence.next_offset)
    }

    /// The sink's next offset of a partition, read anew. None where there is no fence: it is not created, for only a start or
    /// a first batch says where.
    ///
    /// # Errors
    /// As [`Runner::start`].
    pub async fn next_offset(&self, partition: &TopicPartition) -> Result<Option<i64>> {
        let Some(fence) = self.parts.sink.fence(partition).await? else { return Ok(None) };
        self.check_topic_id(partition, &fence).await?;
        self.check_records(partition, &fence).await?;
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
            Some(mut fence) => {
                let topic_id = self.check_topic_id(partition, &fence).await?;
                if fence.topic_id.is_none() && topic_id.is_some() {
                    // A fence from before: the next write stores the id, if this is the fence's topic.
                    self.check_records(partition, &fence).await?;
                    fence.topic_id = topic_id;
                }
                fence
            }
            None => {
                // Before its offsets: if it is re-created in between, the next look at the id says so.
                let topic_id = self.parts.log.topic_id(&partition.topic).await?;
                let held = self.parts.log.watermarks(partition).await?;
                let start = if at_the_end { held.high.min(delivered_from) } else { held.low };
                self.parts.sink.create_fence(partition, Fence { topic_id, ..Fence::starting_at(start) }).await?
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
}
