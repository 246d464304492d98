use std::ops::Range;

use async_trait::async_trait;
use millstream_core::{Batch, Error, Limits, Log, Result, TopicPartition, Watermarks};

use crate::{Kafka, control::blocking};

#[async_trait]
impl Log for Kafka {
    async fn partitions(&self, topic: &str) -> Result<i32> {
        let (control, topic) = (self.control.clone(), topic.to_owned());
        blocking(move || control.partitions(&topic)).await
    }

    async fn topic_id(&self, topic: &str) -> Result<Option<String>> {
        let (control, topic) = (self.control.clone(), topic.to_owned());
        blocking(move || control.topic_id(&topic)).await
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks> {
        let (control, partition) = (self.control.clone(), partition.clone());
        blocking(move || control.watermarks(&partition)).await
    }

    async fn first_since(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Option<i64>> {
        let (control, partition) = (self.control.clone(), partition.clone());
        blocking(move || control.first_since(&partition, timestamp_ms)).await
    }

    async fn read(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Result<Batch> {
        if range.is_empty() {
            return Err(Error::stop(format!("internal: asked to read nothing of {partition}, {range:?}")));
        }
        self.readers.clone().read(self.control.clone(), partition.clone(), range, limits).await
    }
}
