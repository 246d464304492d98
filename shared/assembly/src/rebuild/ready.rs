use millstream_core::{Fence, Result};

use super::Rebuild;
use crate::reference;

impl Rebuild {
    /// Begins the fences, and loads the references.
    pub(super) async fn make_ready(&mut self) -> Result<()> {
        for (partition, fence) in &self.old {
            let is_read = self.replacement.topics.contains(&(partition.topic.clone(), partition.generation));
            if !is_read {
                continue;
            }
            let range = self.ranges.iter().find(|range| range.partition == *partition);
            let start = range.map_or(fence.start_offset, |range| range.from.max(range.low));
            let topic_id = fence.topic_id.clone();
            self.sink().create_fence(partition, Fence { topic_id, ..Fence::starting_at(start) }).await?;
        }
        self.systems.prepare_dead_letters(&self.pipeline, self.systems.creates()).await?;
        let references = self.systems.references(&self.pipeline, &self.function.references)?;
        reference::load_all(&references).await?;
        self.function.refreshing = reference::keep_fresh(references);
        Ok(())
    }
}
