use millstream_core::{Fence, Result, TopicPartition};

use super::Rebuild;
use crate::reference;

impl Rebuild {
    /// Begins the fences of what has no turn of its own, such as whole topics, and loads the references.
    pub(super) async fn make_ready(&mut self) -> Result<()> {
        for (partition, fence) in &self.old {
            let is_read = self.replacement.topics.contains(&(partition.topic.clone(), partition.generation));
            let has_its_turn = self.ranges.iter().any(|range| range.partition == *partition);
            if is_read && !has_its_turn {
                self.create_fence(partition, fence.start_offset).await?;
            }
        }
        self.systems.prepare_dead_letters(&self.pipeline, self.systems.creates()).await?;
        let references = self.systems.references(&self.pipeline, &self.function.references)?;
        reference::load_all(&references).await?;
        self.function.refreshing = reference::keep_fresh(references);
        Ok(())
    }

    /// The fence of a partition that the old table has read, if it isn't there yet.
    pub(super) async fn create_fence(&self, partition: &TopicPartition, start: i64) -> Result<()> {
        let old = self.old.iter().find(|(at, _)| at == partition);
        let topic_id = old.and_then(|(_, fence)| fence.topic_id.clone());
        self.sink().create_fence(partition, Fence { topic_id, ..Fence::starting_at(start) }).await.map(drop)
    }
}
