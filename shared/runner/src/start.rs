use std::sync::PoisonError;

use futures::future::join;
use millstream_core::{Fence, Result, Start, TopicPartition};

use crate::{runner::Runner, same_topic::compare_topic_ids};

impl Runner {
    /// The offset at which reading a partition begins: the fence, which is created from the function's `start` if it is
    /// missing.
    ///
    /// # Errors
    /// The errors of the sink and the log; `Stop` if the log isn't the one that the fence belongs to, because the topic
    /// was re-created or has lost records.
    pub async fn start(&self, partition: &TopicPartition) -> Result<i64> {
        self.known.forget(partition);
        let fence = self.fence(partition, i64::MAX).await?;
        self.check_records(partition, &fence).await?;
        Ok(fence.next_offset)
    }

    /// Reads the sink's next offset of a partition. `None` if there is no fence. It isn't created here: only a start or
    /// a first batch decides where it begins.
    ///
    /// # Errors
    /// The errors of [`Runner::start`].
    pub async fn next_offset(&self, partition: &TopicPartition) -> Result<Option<i64>> {
        let Some(fence) = self.parts.sink.fence(partition).await? else { return Ok(None) };
        compare_topic_ids(partition, &fence, self.parts.log.topic_id(&partition.topic).await?.as_ref())?;
        self.check_records(partition, &fence).await?;
        Ok(Some(fence.next_offset))
    }

    /// The fence, cached or from the sink. A fence created at the end of the log starts no later than the records that
    /// the host has already delivered: on Lambda, the first of them is what wakes the function.
    pub(crate) async fn fence(&self, partition: &TopicPartition, delivered_from: i64) -> Result<Fence> {
        if let Some(fence) = self.known.fence(partition) {
            return Ok(fence);
        }
        let at_the_end = self.parts.start == Start::Latest && self.was_there_first(partition).await?;
        self.parts.sink.settle(partition).await?;
        // At once, for a start waits for both.
        let (fence, topic_id) = join(self.parts.sink.fence(partition), self.parts.log.topic_id(&partition.topic)).await;
        let fence = match fence? {
            Some(mut fence) => {
                let mut topic_id = topic_id?;
                if compare_topic_ids(partition, &fence, topic_id.as_ref()).is_err() {
                    // The id may have been read before the topic was re-created, and the fence after another process has begun it.
                    topic_id = self.parts.log.topic_id(&partition.topic).await?;
                }
                compare_topic_ids(partition, &fence, topic_id.as_ref())?;
                if fence.topic_id.is_none() && topic_id.is_some() {
                    // An older fence without a topic id: the next write stores the id, if this is the fence's topic.
                    self.check_records(partition, &fence).await?;
                    fence.topic_id = topic_id;
                }
                fence
            }
            None => {
                // The id is read before the offsets: if the topic is re-created in between, the next check of the id
                // finds it.
                let topic_id = self.parts.log.topic_id(&partition.topic).await?;
                let held = self.parts.log.watermarks(partition).await?;
                let start = if at_the_end { held.high.min(delivered_from) } else { held.low };
                self.parts.sink.create_fence(partition, Fence { topic_id, ..Fence::starting_at(start) }).await?
            }
        };
        self.known.remember(partition, &fence);
        Ok(fence)
    }

    /// Did the topic have this partition when the function began to read it? All records of a partition that was added
    /// later are new.
    ///
    /// The sink keeps the number of partitions at that time, so that all processes agree, in whatever order they get
    /// partitions.
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
