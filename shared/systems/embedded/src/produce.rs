use std::{collections::BTreeMap, sync::atomic::Ordering};

use async_trait::async_trait;
use millstream_core::{NewRecord, Position, Producer, Result, TopicPartition, partition_of};
use rusqlite::{Connection, params};

use crate::{
    Embedded,
    connections::Work,
    headers::headers_to_bytes,
    topics::{find_partition, find_topic, no_partition},
};

#[async_trait]
impl Producer for Embedded {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        let (name, now_ms) = (topic.to_owned(), self.clock.now_ms());
        let without_key = self.next_partition.fetch_add(records.len() as u32, Ordering::Relaxed);
        let pipeline = self.pipeline.clone();
        let send = move |connection: &Connection| -> Work<Vec<Position>> {
            let positions = append(connection, &name, &records, now_ms, without_key)?;
            if let Some(pipeline) = pipeline {
                let (id, _) = find_topic(connection, &name)?;
                connection
                    .execute("INSERT OR IGNORE INTO millstream_senders VALUES (?1, ?2)", params![id, pipeline])?;
            }
            Ok(positions)
        };
        let positions = self.connections.write(send).await?;
        self.sent.send_modify(|count| *count += 1);
        Ok(positions)
    }
}

fn append(
    connection: &Connection,
    topic: &str,
    records: &[NewRecord],
    now_ms: i64,
    without_key: u32,
) -> Work<Vec<Position>> {
    let (id, partitions) = find_topic(connection, topic)?;
    let mut highs = BTreeMap::new();
    let mut positions = Vec::with_capacity(records.len());
    let mut insert = connection.prepare("INSERT INTO millstream_records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for (index, record) in records.iter().enumerate() {
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of(key, partitions),
            (None, None) => (without_key.wrapping_add(index as u32) % partitions as u32) as i32,
        };
        if !(0..partitions).contains(&partition) {
            return Err(no_partition(topic, partition, partitions).into());
        }
        let high = match highs.entry(partition) {
            std::collections::btree_map::Entry::Occupied(high) => high.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(find_partition(connection, &TopicPartition::new(topic, 0, partition))?.1.high)
            }
        };
        let timestamp_ms = record.timestamp_ms.unwrap_or(now_ms);
        let headers = headers_to_bytes(&record.headers);
        insert.execute(params![id, partition, *high, timestamp_ms, record.key, record.value, headers])?;
        positions.push(TopicPartition::new(topic, 0, partition).at(*high));
        *high += 1;
    }
    let mut update =
        connection.prepare("UPDATE millstream_partitions SET high = ?3 WHERE topic_id = ?1 AND partition = ?2")?;
    highs.iter().try_for_each(|(partition, high)| update.execute(params![id, partition, high]).map(drop))?;
    Ok(positions)
}
