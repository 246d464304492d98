use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use async_trait::async_trait;
use millstream_core::{
    Batch, BatchBuilder, Error, Header, Limits, Log, NewRecord, Position, Producer, Result, TopicInfo, TopicPartition,
    Topics, Watermarks,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{Embedded, connections::Work, partitioner::partition_of};

#[async_trait]
impl Topics for Embedded {
    async fn create_topic(&self, name: &str, partitions: i32, _config: &[(&str, &str)]) -> Result<()> {
        if partitions < 1 || name.is_empty() {
            return Err(Error::stop(format!("topic `{name}`: a topic needs a name and at least 1 partition")));
        }
        let name = name.to_owned();
        self.connections
            .write(move |connection| {
                // SQLite's own random bytes: no two files, and no two topics of a name, have the same.
                let insert = "INSERT OR IGNORE INTO millstream_topics (name, partitions, uuid)
                              VALUES (?1, ?2, lower(hex(randomblob(16))))";
                if connection.execute(insert, params![name, partitions])? == 0 {
                    return Ok(());
                }
                let id = connection.last_insert_rowid();
                let mut insert = connection.prepare("INSERT INTO millstream_partitions VALUES (?1, ?2, 0, 0)")?;
                (0..partitions).try_for_each(|partition| insert.execute(params![id, partition]).map(drop))?;
                Ok(())
            })
            .await
    }

    async fn raise_partitions(&self, name: &str, partitions: i32) -> Result<()> {
        let name = name.to_owned();
        self.connections
            .write(move |connection| {
                let (id, held) = find_topic(connection, &name)?;
                let mut insert = connection.prepare("INSERT INTO millstream_partitions VALUES (?1, ?2, 0, 0)")?;
                (held..partitions).try_for_each(|partition| insert.execute(params![id, partition]).map(drop))?;
                let update = "UPDATE millstream_topics SET partitions = max(partitions, ?2) WHERE id = ?1";
                connection.execute(update, params![id, partitions])?;
                Ok(())
            })
            .await
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        self.connections
            .read(|connection| {
                let mut select = connection.prepare("SELECT name, partitions FROM millstream_topics ORDER BY name")?;
                let topics =
                    select.query_map([], |row| Ok(TopicInfo { name: row.get(0)?, partitions: row.get(1)? }))?;
                Ok(topics.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }
}

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

    /// Deletes a topic with its records and group offsets, if it is there. Fences stay: a topic that is created again
    /// under the same name needs a higher `generation` in the pipeline file.
    ///
    /// # Errors
    /// `Retry` when the file is locked for too long.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        let name = topic.to_owned();
        self.connections
            .write(move |connection| {
                let select = "SELECT id FROM millstream_topics WHERE name = ?1";
                let Some(id) = connection.query_row(select, [name], |row| row.get::<_, i64>(0)).optional()? else {
                    return Ok(());
                };
                for table in ["records", "partitions", "senders", "group_offsets"] {
                    connection.execute(&format!("DELETE FROM millstream_{table} WHERE topic_id = ?1"), [id])?;
                }
                connection.execute("DELETE FROM millstream_topics WHERE id = ?1", [id])?;
                Ok(())
            })
            .await
    }
}

/// A topic's row and number of partitions.
fn find_topic(connection: &Connection, topic: &str) -> Work<(i64, i32)> {
    let select = "SELECT id, partitions FROM millstream_topics WHERE name = ?1";
    let found = connection.query_row(select, [topic], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    found.ok_or_else(|| {
        Error::stop(format!("topic `{topic}` does not exist in the embedded log: `millstream up` creates it")).into()
    })
}

/// A partition's topic's row and what it holds.
pub(crate) fn find_partition(connection: &Connection, partition: &TopicPartition) -> Work<(i64, Watermarks)> {
    let (id, partitions) = find_topic(connection, &partition.topic)?;
    let select = "SELECT low, high FROM millstream_partitions WHERE topic_id = ?1 AND partition = ?2";
    let held = |row: &Row<'_>| Ok(Watermarks { low: row.get(0)?, high: row.get(1)? });
    match connection.query_row(select, params![id, partition.partition], held).optional()? {
        Some(held) => Ok((id, held)),
        None => Err(no_partition(&partition.topic, partition.partition, partitions).into()),
    }
}

fn no_partition(topic: &str, partition: i32, partitions: i32) -> Error {
    Error::stop(format!("topic `{topic}` has no partition {partition}, its {partitions} are numbered from 0"))
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

/// A batch in the making: it grows by what the log has, until the limits end it.
pub(crate) struct Fetched {
    partition: TopicPartition,
    builder: BatchBuilder,
    /// Where it begins.
    pub(crate) start: i64,
    /// One past the last offset that it speaks for.
    pub(crate) end: i64,
    /// Has it met a limit?
    pub(crate) full: bool,
}

impl Fetched {
    /// An empty one that begins at offset `start`.
    pub(crate) fn new(partition: TopicPartition, start: i64) -> Self {
        Self { builder: BatchBuilder::new(partition.clone()), partition, start, end: start, full: false }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// Adds what the log holds from here up to `end` (not included), within the limits.
    pub(crate) fn extend(&mut self, connection: &Connection, end: i64, limits: Limits) -> Work<()> {
        let (id, held) = find_partition(connection, &self.partition)?;
        let end = end.min(held.high);
        if self.end >= end {
            return Ok(());
        }
        let mut select = connection.prepare(
            r#"SELECT "offset", timestamp_ms, key, value, headers FROM millstream_records
               WHERE topic_id = ?1 AND partition = ?2 AND "offset" >= ?3 AND "offset" < ?4 ORDER BY "offset""#,
        )?;
        let mut rows = select.query(params![id, self.partition.partition, self.end, end])?;
        while let Some(row) = rows.next()? {
            if !self.push(row, limits)? {
                self.full = true;
                return Ok(());
            }
        }
        self.end = end;
        self.full = self.builder.len() >= limits.max_records.max(1) || self.builder.bytes() >= limits.max_bytes;
        Ok(())
    }

    /// Adds a record; `false` when it does not fit any more.
    fn push(&mut self, row: &Row<'_>, limits: Limits) -> Work<bool> {
        let bytes = |column: usize| row.get_ref(column)?.as_blob_or_null().map_err(rusqlite::Error::from);
        let offset = row.get(0)?;
        let (key, value) = (bytes(2)?, bytes(3)?);
        let headers = bytes(4)?.map_or_else(Vec::new, headers_from_bytes);
        let record_bytes = key.map_or(0, <[u8]>::len)
            + value.map_or(0, <[u8]>::len)
            + headers.iter().map(|(name, bytes)| name.len() + bytes.len()).sum::<usize>();
        let fits =
            self.builder.len() < limits.max_records.max(1) && self.builder.bytes() + record_bytes <= limits.max_bytes;
        if self.builder.is_empty() || fits {
            self.builder.push(offset, row.get(1)?, key, value, headers);
            self.end = offset + 1;
            return Ok(true);
        }
        // What lies between the last record and this one is a hole that was looked at.
        self.end = offset;
        Ok(false)
    }

    pub(crate) fn finish(mut self) -> Batch {
        self.builder.finish_read(self.start, self.end)
    }
}

/// Name and bytes in turn, each behind its length as 4 bytes, little end first; none when there are no headers.
pub(crate) fn headers_to_bytes(headers: &[(String, Vec<u8>)]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    for part in headers.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    Some(bytes)
}

/// Reads what [`headers_to_bytes`] writes, and no further than that can be read.
pub(crate) fn headers_from_bytes(mut bytes: &[u8]) -> Vec<Header<'_>> {
    let mut part = || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bytes = rest;
        Some(part)
    };
    std::iter::from_fn(|| Some((std::str::from_utf8(part()?).ok()?, part()?))).collect()
}

/// Stores where a group goes on; see [`Embedded::group_offset`].
pub(crate) async fn commit(store: &Embedded, group: &Arc<str>, partition: &TopicPartition, next: i64) -> Result<()> {
    let (group, partition, now) = (group.clone(), partition.clone(), store.now());
    store
        .connections
        .write(move |connection| {
            let (id, _) = find_partition(connection, &partition)?;
            connection.execute(
                "INSERT OR REPLACE INTO millstream_group_offsets VALUES (?1, ?2, ?3, ?4, ?5)",
                params![group, id, partition.partition, next, now],
            )?;
            Ok(())
        })
        .await
}

impl Embedded {
    /// The offset that a consumer group has committed for a partition, if any. It is never above the fence of the
    /// group's function, and decides nothing: a function starts from its fence.
    ///
    /// # Errors
    /// `Stop` when the topic does not exist; `Retry` when the file can't be read now.
    pub async fn group_offset(&self, group: &str, partition: &TopicPartition) -> Result<Option<i64>> {
        let (group, partition) = (group.to_owned(), partition.clone());
        self.connections
            .read(move |connection| {
                let (id, _) = find_partition(connection, &partition)?;
                let select = r#"SELECT next_offset FROM millstream_group_offsets
                                WHERE "group" = ?1 AND topic_id = ?2 AND partition = ?3"#;
                let found = connection.query_row(select, params![group, id, partition.partition], |row| row.get(0));
                Ok(found.optional()?)
            })
            .await
    }
}
