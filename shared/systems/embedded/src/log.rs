use std::ops::Range;

use async_trait::async_trait;
use millstream_core::{Batch, Error, Limits, Log, Result, TopicPartition, Watermarks};
use rusqlite::{OptionalExtension, params};

use crate::{
    Embedded,
    fetched::Fetched,
    topics::{find_partition, find_topic},
};

#[async_trait]
impl Log for Embedded {
    async fn partitions(&self, topic: &str) -> Result<i32> {
        let name = topic.to_owned();
        self.connections.read(move |connection| Ok(find_topic(connection, &name)?.1)).await
    }

    async fn topic_id(&self, topic: &str) -> Result<Option<String>> {
        let name = topic.to_owned();
        self.connections
            .read(move |connection| {
                let (id, _) = find_topic(connection, &name)?;
                let select = "SELECT uuid FROM millstream_topics WHERE id = ?1";
                Ok(connection.query_row(select, [id], |row| row.get(0))?)
            })
            .await
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks> {
        let partition = partition.clone();
        self.connections.read(move |connection| Ok(find_partition(connection, &partition)?.1)).await
    }

    /// There is no index of the times: the records are looked at one after the other, up to the one that is found.
    async fn first_since(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Option<i64>> {
        let partition = partition.clone();
        self.connections
            .read(move |connection| {
                let (id, _) = find_partition(connection, &partition)?;
                let select = r#"SELECT "offset" FROM millstream_records
                                WHERE topic_id = ?1 AND partition = ?2 AND timestamp_ms >= ?3 ORDER BY "offset" LIMIT 1"#;
                let found = connection.query_row(select, params![id, partition.partition, timestamp_ms], |row| row.get(0));
                Ok(found.optional()?)
            })
            .await
    }

    async fn read(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Result<Batch> {
        if range.is_empty() {
            return Err(Error::stop(format!("internal: an empty range of {partition} was asked for")));
        }
        let partition = partition.clone();
        self.connections
            .read(move |connection| {
                let held = find_partition(connection, &partition)?.1;
                if range.start < held.low {
                    return Err(Error::stop(format!(
                        "{partition}: the log begins at offset {}, what stood from {} on is deleted",
                        held.low, range.start
                    ))
                    .into());
                }
                if range.start >= held.high {
                    return Err(Error::retry(format!(
                        "{partition}: the log ends before offset {}, offset {} is not there yet",
                        held.high, range.start
                    ))
                    .into());
                }
                let mut fetched = Fetched::new(partition, range.start);
                fetched.extend(connection, range.end, limits)?;
                Ok(fetched.finish())
            })
            .await
    }
}

impl Embedded {
    /// Deletes the records of a partition below offset `below`, as a broker's retention does; offsets stay as they are.
    ///
    /// # Errors
    /// `Stop` when the topic does not exist; `Retry` when the file is locked for too long.
    pub async fn delete_records(&self, topic: &str, partition: i32, below: i64) -> Result<()> {
        let partition = TopicPartition::new(topic, 0, partition);
        self.connections
            .write(move |connection| {
                let (id, held) = find_partition(connection, &partition)?;
                let low = below.clamp(held.low, held.high);
                let delete =
                    r#"DELETE FROM millstream_records WHERE topic_id = ?1 AND partition = ?2 AND "offset" < ?3"#;
                connection.execute(delete, params![id, partition.partition, low])?;
                let update = "UPDATE millstream_partitions SET low = ?3 WHERE topic_id = ?1 AND partition = ?2";
                connection.execute(update, params![id, partition.partition, low])?;
                Ok(())
            })
            .await
    }
}
