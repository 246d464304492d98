//! Writes that were interrupted between their rows and the fence.

use std::ops::ControlFlow;

use millstream_core::{Owner, Result, TopicPartition};

use crate::{
    fences::FENCES,
    layout::BUCKET,
    owners::{OWNERS, of_partitions},
    sink::CosmosSink,
};

/// In how many buckets rows are looked for: that of the fence, and those that a write may reach beyond it.
const BUCKETS: i64 = 3;

impl CosmosSink {
    /// See [`millstream_core::Sink::unsettled`]. Rows above a fence are of the previous plan, which would write the same ones
    /// again. Another plan may give none for the same records, or others: then those of before would stay for good.
    pub(crate) async fn find_unsettled(&self, owner: &Owner) -> Result<Vec<String>> {
        let containers = self.client.list_containers().await?;
        if [OWNERS, FENCES, self.layout.rows()].iter().any(|needed| !containers.contains_key(*needed)) {
            return Ok(Vec::new());
        }
        let Some(found) = self.client.owner(self.layout.table.public_name()).await? else { return Ok(Vec::new()) };
        let stored = found.stored;
        if stored.record.owner.fingerprint == owner.fingerprint {
            return Ok(Vec::new());
        }
        let fences = self.client.fences_of(&stored.record.owner.function, stored.takes_from.as_deref()).await?;
        let mut unsettled = Vec::new();
        for (partition, fence) in of_partitions(fences) {
            if self.has_rows_above(&partition, fence.next_offset).await? {
                unsettled.push(say(&partition, fence.next_offset));
            }
        }
        Ok(unsettled)
    }

    async fn has_rows_above(&self, partition: &TopicPartition, next_offset: i64) -> Result<bool> {
        let range = next_offset..(next_offset.div_euclid(BUCKET) + BUCKETS) * BUCKET;
        let mut is_found = false;
        let take = |_| {
            is_found = true;
            Ok(ControlFlow::Break(()))
        };
        self.client.read_range(&self.layout, partition, range, 1, take).await?;
        Ok(is_found)
    }
}

fn say(partition: &TopicPartition, next_offset: i64) -> String {
    let again = if partition.is_redrive() {
        "redrive under the previous plan once more"
    } else {
        "start the previous plan once more"
    };
    format!(
        "there are rows of {partition} at offset {next_offset} or above, and the fence is at {next_offset}: a write of the plan of \
         before was interrupted, or is under way. Its rows would stay among those of the new plan: {again}, until it has moved the \
         fence, and stop it"
    )
}
