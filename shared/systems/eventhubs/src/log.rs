use std::ops::Range;

use async_trait::async_trait;
use millstream_core::{Batch, Error, Limits, Log, Result, TopicPartition, Watermarks};

use crate::{EventHubs, connection::PATIENCE, link::Link, reading};

#[async_trait]
impl Log for EventHubs {
    async fn partitions(&self, topic: &str) -> Result<i32> {
        Ok(self.client.hub(topic).await?.partitions)
    }

    /// When the event hub was created: one that was deleted and created again has another time.
    async fn topic_id(&self, topic: &str) -> Result<Option<String>> {
        Ok(Some(format!("created-{}", self.client.hub(topic).await?.created_ms)))
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks> {
        self.client.watermarks(partition).await
    }

    /// Reads the events one after the other until it finds one. The service can begin a receiver at a time, but says nowhere that
    /// its clock never goes back within a partition (another node may take it over), nor which event it takes then.
    async fn first_since(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Option<i64>> {
        let created_ms = self.client.hub(&partition.topic).await?.created_ms;
        let Watermarks { low, high } = self.watermarks(partition).await?;
        if low >= high {
            return Ok(None);
        }
        let mut link = self.open_same(partition, low, created_ms).await?;
        while link.next < high {
            match link.peek(PATIENCE).await? {
                Some(record) if record.timestamp_ms() >= timestamp_ms => return Ok(Some(record.offset)),
                Some(_) => drop(link.take()),
                None => return Err(Error::retry(format!("{}: no event came in time", reading(partition, link.next)))),
            }
        }
        Ok(None)
    }

    /// Sequence numbers have no holes, so a number that is missing is an error and never vouched for.
    async fn read(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Result<Batch> {
        // Before the watermarks, and before a receiver is taken: one that was kept may be of an event hub that is gone.
        let created_ms = self.client.hub(&partition.topic).await?.created_ms;
        let held = self.watermarks(partition).await?;
        check_held(partition, range.start, held)?;
        if range.start == held.high {
            return Err(Error::retry(format!("{}: the partition ends there", reading(partition, range.start))));
        }
        let end = range.end.min(held.high);
        if let Some(mut link) = self.idle.take(partition, created_ms, range.start)
            && let Ok(batch) = link.read(end, limits).await
        {
            self.idle.keep(partition, created_ms, link);
            return Ok(batch);
        }
        // A receiver that was kept may have been closed meanwhile.
        let mut link = self.open_same(partition, range.start, created_ms).await?;
        let batch = link.read(end, limits).await?;
        self.idle.keep(partition, created_ms, link);
        Ok(batch)
    }
}

impl EventHubs {
    /// A receiver of the event hub that was created then. The time is compared after the receiver is open, too: between the two,
    /// another event hub may have come, whose events the receiver would give.
    async fn open_same(&self, partition: &TopicPartition, next: i64, created_ms: i64) -> Result<Link> {
        let link = self.client.open(partition, next).await?;
        if self.client.hub(&partition.topic).await?.created_ms != created_ms {
            return Err(Error::retry(format!("{}: the event hub was re-created", reading(partition, next))));
        }
        Ok(link)
    }
}

/// Can a partition that holds `held` be read from `offset` on?
///
/// # Errors
/// `Stop` when retention has deleted the event, `Retry` when the partition ends below it.
pub(crate) fn check_held(partition: &TopicPartition, offset: i64, held: Watermarks) -> Result<()> {
    let TopicPartition { topic, generation, partition: number } = partition;
    let Watermarks { low, high } = held;
    if offset < low {
        return Err(Error::stop(format!(
            "event hub {topic}, partition {number}: events {offset}..{low} were deleted by retention before this function read \
             them, so they are lost to it unless they can be restored upstream. To go on after them, move the function's fence \
             there; there is no command for that yet. In PostgreSQL, while the function is stopped: UPDATE millstream_fences \
             SET next_offset = {low} WHERE topic = '{topic}' AND generation = {generation} AND partition = {number} AND \
             next_offset = {offset} AND function = '…' (pipeline.function). Do not rename the function instead: under another \
             name it would read all that is left into the same table once more. Lengthen the event hub's retention"
        )));
    }
    if offset > high {
        return Err(Error::retry(format!(
            "event hub {topic}, partition {number} ends at {high}, but is to be read from {offset}: it was re-created, or has \
             lost events"
        )));
    }
    Ok(())
}
