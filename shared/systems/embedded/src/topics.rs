use async_trait::async_trait;
use millstream_core::{Error, Result, TopicInfo, TopicPartition, Topics, Watermarks};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{Embedded, connections::Work};

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

impl Embedded {
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
pub(crate) fn find_topic(connection: &Connection, topic: &str) -> Work<(i64, i32)> {
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

pub(crate) fn no_partition(topic: &str, partition: i32, partitions: i32) -> Error {
    Error::stop(format!("topic `{topic}` has no partition {partition}, its {partitions} are numbered from 0"))
}
