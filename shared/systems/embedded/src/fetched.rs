use millstream_core::{Batch, BatchBuilder, Limits, TopicPartition};
use rusqlite::{Connection, Row, params};

use crate::{connections::Work, headers::headers_from_bytes, topics::find_partition};

/// A batch that is being filled from the log, until the limits end it.
pub(crate) struct Fetched {
    partition: TopicPartition,
    builder: BatchBuilder,
    /// Where it begins.
    pub(crate) start: i64,
    /// One past the last offset that it covers.
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
        // The offsets between the last record and this one are known to be empty.
        self.end = offset;
        Ok(false)
    }

    pub(crate) fn finish(mut self) -> Batch {
        self.builder.finish_read(self.start, self.end)
    }
}
