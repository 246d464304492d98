use async_trait::async_trait;
use millstream_core::{DeadLetter, DeadLetters, Result, TopicPartition};
use rusqlite::{Row, params};

use crate::{
    Embedded,
    log::{headers_from_bytes, headers_to_bytes},
};

#[async_trait]
impl DeadLetters for Embedded {
    async fn put(&self, letters: &[DeadLetter]) -> Result<()> {
        if letters.is_empty() {
            return Ok(());
        }
        let (letters, now) = (letters.to_vec(), self.now());
        self.connections
            .write(move |connection| {
                let mut insert = connection.prepare(
                    "INSERT OR IGNORE INTO millstream_dead_letters VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                )?;
                for letter in &letters {
                    let partition = &letter.position.partition;
                    insert.execute(params![
                        letter.function,
                        partition.topic,
                        partition.generation,
                        partition.partition,
                        letter.position.offset,
                        letter.timestamp_ms,
                        letter.key,
                        letter.value,
                        letter.value_bytes as i64,
                        headers_to_bytes(&letter.headers),
                        letter.reason,
                        now
                    ])?;
                }
                Ok(())
            })
            .await
    }

    async fn list(&self, function: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>> {
        let function = function.map(str::to_owned);
        self.connections
            .read(move |connection| {
                let mut select = connection.prepare(
                    r#"SELECT function, topic, generation, partition, "offset", timestamp_ms, key, value, value_bytes, reason,
                              headers
                       FROM millstream_dead_letters WHERE ?1 IS NULL OR function = ?1
                       ORDER BY topic, generation, partition, "offset", function LIMIT ?2"#,
                )?;
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let letters = select.query_map(params![function, limit], read)?;
                Ok(letters.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    let partition = TopicPartition::new(row.get::<_, String>(1)?, row.get(2)?, row.get(3)?);
    Ok(DeadLetter {
        function: row.get(0)?,
        position: partition.at(row.get(4)?),
        timestamp_ms: row.get(5)?,
        key: row.get(6)?,
        value: row.get(7)?,
        value_bytes: row.get::<_, i64>(8)? as usize,
        reason: row.get(9)?,
        headers: row.get_ref(10)?.as_blob_or_null()?.map_or_else(Vec::new, owned_headers),
    })
}

fn owned_headers(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    headers_from_bytes(bytes).into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}
