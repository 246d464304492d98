use millstream_core::{Error, Fence, Result, TopicPartition, WHOLE_TOPIC};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{Embedded, connections::Work};

const COLUMNS: &str = "topic, generation, partition, start_offset, next_offset, last_timestamp_ms, max_event_time_us, upstream, \
     topic_id, rows";

/// The fence of one partition.
pub(crate) fn find(connection: &Connection, function: &str, partition: &TopicPartition) -> Work<Option<Fence>> {
    let select = format!(
        "SELECT {COLUMNS} FROM millstream_fences
         WHERE function = ?1 AND topic = ?2 AND generation = ?3 AND partition = ?4"
    );
    let key = params![function, partition.topic, partition.generation, partition.partition];
    connection
        .query_row(&select, key, |row| Ok(read(row)))
        .optional()?
        .transpose()
        .map(|found| found.map(|(_, fence)| fence))
}

/// All fences of a function, by partition.
pub(crate) fn list(connection: &Connection, function: &str) -> Work<Vec<(TopicPartition, Fence)>> {
    let select = format!(
        "SELECT {COLUMNS} FROM millstream_fences WHERE function = ?1 AND partition <> {WHOLE_TOPIC}
         ORDER BY function, topic, generation, partition"
    );
    let mut select = connection.prepare(&select)?;
    let mut rows = select.query([function])?;
    let mut fences = Vec::new();
    while let Some(row) = rows.next()? {
        fences.push(read(row)?);
    }
    Ok(fences)
}

/// Creates the fence if there is none, and returns the fence that exists afterwards.
pub(crate) fn create(
    connection: &Connection,
    function: &str,
    term: i64,
    partition: &TopicPartition,
    fence: &Fence,
    now: &str,
) -> Work<Fence> {
    connection.execute(
        "INSERT OR IGNORE INTO millstream_fences (function, topic, generation, partition, start_offset, next_offset,
             last_timestamp_ms, max_event_time_us, upstream, updated_at, topic_id, rows, term)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            function,
            partition.topic,
            partition.generation,
            partition.partition,
            fence.start_offset,
            fence.next_offset,
            fence.last_timestamp_ms,
            fence.max_event_time_us,
            fence.upstream_text()?,
            now,
            fence.topic_id,
            fence.rows,
            term
        ],
    )?;
    let missing = || Error::stop("internal: a fence that was just created is not there");
    Ok(find(connection, function, partition)?.ok_or_else(missing)?)
}

/// Moves the fence from `from` to `to`, within the caller's write transaction; `Fenced` when it is not at `from`. A fence of
/// another term doesn't move.
pub(crate) fn advance(
    connection: &Connection,
    function: &str,
    term: i64,
    partition: &TopicPartition,
    from: i64,
    to: &Fence,
    now: &str,
) -> Work<()> {
    let moved = connection.execute(
        "UPDATE millstream_fences
         SET next_offset = ?6, last_timestamp_ms = ?7, max_event_time_us = ?8, upstream = ?9, updated_at = ?10,
             topic_id = ?11, rows = ?12, term = ?13
         WHERE function = ?1 AND topic = ?2 AND generation = ?3 AND partition = ?4 AND next_offset = ?5
             AND coalesce(term, ?13) = ?13",
        params![
            function,
            partition.topic,
            partition.generation,
            partition.partition,
            from,
            to.next_offset,
            to.last_timestamp_ms,
            to.max_event_time_us,
            to.upstream_text()?,
            now,
            to.topic_id,
            to.rows,
            term
        ],
    )?;
    if moved == 1 {
        return Ok(());
    }
    let current = find(connection, function, partition)?.map(|fence| fence.next_offset);
    Err(Error::Fenced { current }.into())
}

fn read(row: &Row<'_>) -> Work<(TopicPartition, Fence)> {
    let partition = TopicPartition::new(row.get::<_, String>(0)?, row.get(1)?, row.get(2)?);
    let upstream = Fence::parse_upstream(&row.get::<_, String>(7)?);
    let fence = Fence {
        start_offset: row.get(3)?,
        next_offset: row.get(4)?,
        last_timestamp_ms: row.get(5)?,
        max_event_time_us: row.get(6)?,
        upstream: upstream.map_err(|error| error.context(format_args!("the fence of {partition}")))?,
        topic_id: row.get(8)?,
        rows: row.get(9)?,
    };
    Ok((partition, fence))
}

impl Embedded {
    /// The fence of every partition that a function (`pipeline.function`) has begun to read into this file.
    ///
    /// # Errors
    /// `Retry` when the file can't be read now.
    pub async fn fences(&self, function: &str) -> Result<Vec<(TopicPartition, Fence)>> {
        let function = function.to_owned();
        self.connections.read(move |connection| list(connection, &function)).await
    }
}
