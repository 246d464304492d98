use std::sync::atomic::{AtomicI32, Ordering};

use async_trait::async_trait;
use futures::future::try_join_all;
use millstream_core::{Error, Log as _, NewRecord, Position, Producer, Result, TopicPartition, partition_of};

use crate::{
    EventHubs,
    message::{event_of, size_of},
};

/// Where the offset of a record would be. The service tells nobody over AMQP where an event was written.
const UNKNOWN: i64 = -1;

/// The partition of the next send's first record without a key.
static NEXT: AtomicI32 = AtomicI32::new(0);

/// For dead letters, and for what a person sends. A time-out is `Retry`: what was sent may come twice then.
#[async_trait]
impl Producer for EventHubs {
    /// The positions have a partition and the offset -1: over AMQP, the service doesn't say where an event was written. So a record
    /// that says its partition is refused, as those do whose sender must find them again (a function's topics, redrives).
    ///
    /// The service stamps each event with its own time, whatever the record says.
    ///
    /// # Errors
    /// `Stop` for a record with a partition, `Poison` for one that is too large; then nothing was sent.
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        if records.iter().any(|record| record.partition.is_some()) {
            return Err(Error::stop(format!(
                "{topic} can't be written to Event Hubs over AMQP: who writes to it must know where its records stand, and AMQP \
                 doesn't tell. {}",
                elsewhere()
            )));
        }
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.check_sizes(topic, &records).await?;
        let count = self.partitions(topic).await?;
        let mut by_partition: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        let mut positions = Vec::with_capacity(records.len());
        let mut next = NEXT.fetch_add(1, Ordering::Relaxed);
        for record in records {
            let partition = match &record.key {
                Some(key) => partition_of(key, count),
                None => {
                    next = next.wrapping_add(1);
                    next.rem_euclid(count.max(1))
                }
            };
            positions.push(TopicPartition::new(topic, 0, partition).at(UNKNOWN));
            if let Some(events) = usize::try_from(partition).ok().and_then(|at| by_partition.get_mut(at)) {
                events.push(event_of(&record));
            }
        }
        let to_send = (0..).zip(by_partition).filter(|(_, events)| !events.is_empty());
        try_join_all(to_send.map(|(partition, events)| self.client.write(topic, partition, events))).await?;
        Ok(positions)
    }

    async fn check_sizes(&self, topic: &str, records: &[NewRecord]) -> Result<()> {
        let Some(largest) = records.iter().map(size_of).max() else { return Ok(()) };
        let most = self.client.max_size(topic).await?.unwrap_or(usize::MAX);
        if largest > most {
            return Err(Error::poison(format!(
                "a record for event hub {topic} has about {largest} bytes as an event, and an event has at most {most} here"
            )));
        }
        Ok(())
    }
}

/// Where a topic is to be whose writer must know positions.
pub(crate) fn elsewhere() -> &'static str {
    "Use a tier with a Kafka endpoint (Standard or above) and `MILLSTREAM_KAFKA_PROFILE=event-hubs`, or another system for what \
     is written"
}
