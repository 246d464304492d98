use async_trait::async_trait;
use millstream_core::{DeadLetter, DeadLetters, MAX_LISTED_BYTES, Position, Result, TopicPartition};
use rusqlite::{Connection, Row, params};

use crate::{
    Embedded,
    connections::Work,
    headers::{headers_from_bytes, headers_to_bytes},
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
                let mut select = connection.prepare(&format!(
                    r#"SELECT {COLUMNS} FROM millstream_dead_letters WHERE ?1 IS NULL OR function = ?1
                       ORDER BY created_at DESC, topic DESC, generation DESC, partition DESC, "offset" DESC, function DESC
                       LIMIT ?2"#,
                ))?;
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let mut rows = select.query(params![function, limit])?;
                let (mut letters, mut bytes) = (Vec::new(), 0);
                while let Some(row) = rows.next()? {
                    let letter = read(row)?;
                    bytes += letter.bytes();
                    if bytes > MAX_LISTED_BYTES && !letters.is_empty() {
                        break;
                    }
                    letters.push(letter);
                }
                Ok(letters)
            })
            .await
    }

    async fn find(&self, function: Option<&str>, position: &Position) -> Result<Vec<DeadLetter>> {
        let (function, position) = (function.map(str::to_owned), position.clone());
        self.connections
            .read(move |connection| {
                let mut select = connection.prepare(&format!(
                    r#"SELECT {COLUMNS} FROM millstream_dead_letters WHERE (?1 IS NULL OR function = ?1)
                       AND topic = ?2 AND generation = ?3 AND partition = ?4 AND "offset" = ?5"#,
                ))?;
                let Position { partition, offset } = &position;
                let key = params![function, partition.topic, partition.generation, partition.partition, offset];
                let letters = select.query_map(key, read)?;
                Ok(letters.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }

    async fn count(&self, function: &str) -> Result<Option<u64>> {
        let function = function.to_owned();
        self.connections
            .read(move |connection| {
                let select = "SELECT count(*) FROM millstream_dead_letters WHERE function = ?1";
                Ok(Some(connection.query_row(select, [function], |row| row.get::<_, i64>(0))? as u64))
            })
            .await
    }

    async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let (from, to, now) = (from.to_owned(), to.to_owned(), self.now());
        let copy = r#"INSERT OR REPLACE INTO millstream_dead_letters
            SELECT ?2, topic, generation, partition, "offset", timestamp_ms, key, value, value_bytes, headers, reason, ?3
            FROM millstream_dead_letters WHERE function = ?1"#;
        self.connections.write(move |connection| Ok(connection.execute(copy, params![from, to, now]).map(drop)?)).await
    }

    async fn remove(&self, function: &str, positions: &[Position]) -> Result<()> {
        let (function, positions) = (function.to_owned(), positions.to_vec());
        self.connections
            .write(move |connection| {
                let mut delete = connection.prepare(
                    r#"DELETE FROM millstream_dead_letters
                       WHERE function = ?1 AND topic = ?2 AND generation = ?3 AND partition = ?4 AND "offset" = ?5"#,
                )?;
                for Position { partition, offset } in &positions {
                    let key = params![function, partition.topic, partition.generation, partition.partition, offset];
                    delete.execute(key)?;
                }
                Ok(())
            })
            .await
    }

    async fn positions(&self, function: &str, visit: &mut (dyn FnMut(Position) + Send)) -> Result<()> {
        let mut last = None;
        loop {
            let (function, after) = (function.to_owned(), last.take());
            let page = self.connections.read(move |connection| page(connection, &function, after)).await?;
            last = page.last().cloned();
            let full = page.len() == PAGE;
            page.into_iter().for_each(&mut *visit);
            if !full {
                return Ok(());
            }
        }
    }
}

/// How many positions are read at once.
const PAGE: usize = 10_000;

/// The next positions of a function's letters after one.
fn page(connection: &Connection, function: &str, after: Option<Position>) -> Work<Vec<Position>> {
    // No name sorts before the empty one.
    let after = after.unwrap_or_else(|| TopicPartition::new("", 0, 0).at(0));
    let mut select = connection.prepare(
        r#"SELECT topic, generation, partition, "offset" FROM millstream_dead_letters
           WHERE function = ?1 AND (topic, generation, partition, "offset") > (?2, ?3, ?4, ?5)
           ORDER BY function, topic, generation, partition, "offset" LIMIT ?6"#,
    )?;
    let Position { partition, offset } = &after;
    let key = params![function, partition.topic, partition.generation, partition.partition, offset, PAGE as i64];
    let positions = select.query_map(key, |row| {
        Ok(TopicPartition::new(row.get::<_, String>(0)?, row.get(1)?, row.get(2)?).at(row.get(3)?))
    })?;
    Ok(positions.collect::<rusqlite::Result<_>>()?)
}

/// What [`read`] reads.
const COLUMNS: &str =
    r#"function, topic, generation, partition, "offset", timestamp_ms, key, value, value_bytes, reason, headers"#;

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
