//! The rows of a table that are kept by their positions, as a log.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType},
};
use async_trait::async_trait;
use millstream_core::{
    Batch, BatchBuilder, Error, Feed, Fence, Limits, Log, Result, Role, TopicPartition, Watermarks, meta,
    quote_identifier,
};
use rusqlite::params;

use crate::{Embedded, fences, row_reader::RowReader, tables::Stored};

/// How many rows are looked at in one read at most.
const CHUNK_ROWS: usize = 8_192;

/// See [`millstream_core::TableStore::feed`].
pub(crate) struct EmbeddedFeed {
    store: Embedded,
    of: Feed,
    table: Arc<Stored>,
}

impl EmbeddedFeed {
    pub(crate) fn new(store: Embedded, of: Feed) -> Self {
        let table = Arc::new(Stored::states(&of.table));
        Self { store, of, table }
    }

    /// The partition of the topic that the table's rows come from.
    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        let (function, source) = (self.of.function.clone(), self.source(partition));
        self.store.connections.read(move |connection| fences::find(connection, &function, &source)).await
    }

    fn source(&self, partition: &TopicPartition) -> TopicPartition {
        TopicPartition::new(&self.of.topic, partition.generation, partition.partition)
    }

    /// The rows in a range of offsets, at most `limit` of them.
    async fn rows(&self, partition: &TopicPartition, range: Range<i64>, limit: usize) -> Result<Vec<RecordBatch>> {
        let (table, source) = (Arc::clone(&self.table), self.source(partition));
        let own: Vec<_> = table.schema.fields().iter().map(|field| quote_identifier(field.name())).collect();
        let select = format!(
            "SELECT {} FROM {} WHERE _topic = ?1 AND _generation = ?2 AND _partition = ?3 AND _offset >= ?4 AND _offset < ?5 \
             ORDER BY _offset LIMIT {limit}",
            own.join(", "),
            quote_identifier(&table.name)
        );
        self.store
            .connections
            .read(move |connection| {
                let mut select = connection.prepare(&select)?;
                let (topic, generation, number) = (&source.topic, source.generation, source.partition);
                let mut found = select.query(params![topic, generation, number, range.start, range.end])?;
                let mut rows = RowReader::new(table.schema.clone());
                while let Some(row) = found.next()? {
                    rows.push(row, 0)?;
                }
                Ok(rows.finish()?)
            })
            .await
    }

    /// Adds the records of the rows, until the limits end the batch: then the offset that did not fit any more.
    fn push(&self, builder: &mut BatchBuilder, rows: &RecordBatch, limits: Limits) -> Result<Option<i64>> {
        let broken = |error| Error::stop("internal: rows without their columns").caused_by(error);
        let columns = &self.of.table.columns;
        let own: Vec<usize> = (0..columns.len()).filter(|at| columns[*at].role != Role::Carried).collect();
        let values = self.of.encode.encode(&rows.project(&own).map_err(broken)?)?;
        let carried = |name: &str| {
            let at = columns.iter().position(|column| column.role == Role::Carried && column.name == name);
            at.map(|at| rows.column(at)).ok_or_else(|| Error::stop(format!("internal: rows without `{name}`")))
        };
        let offsets = carried(meta::OFFSET)?.as_primitive::<Int64Type>();
        let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, None);
        let times = cast(carried(meta::TIMESTAMP)?, &milliseconds).map_err(broken)?;
        let times = times.as_primitive::<TimestampMillisecondType>();
        let entity = columns.iter().position(|column| matches!(column.role, Role::Entity | Role::Newest));
        let keys = entity.map(|at| cast(rows.column(at), &DataType::Utf8).map_err(broken)).transpose()?;
        for (row, value) in values.iter().enumerate() {
            let fits = builder.len() < limits.max_records.max(1) && builder.bytes() + value.len() <= limits.max_bytes;
            if !builder.is_empty() && !fits {
                return Ok(Some(offsets.value(row)));
            }
            let key = keys.as_ref().map(|keys| keys.as_string::<i32>().value(row).as_bytes());
            let time_ms = if times.is_null(row) { -1 } else { times.value(row) };
            builder.push(offsets.value(row), time_ms, key, Some(value), []);
        }
        Ok(None)
    }
}

fn not_begun(feed: &Feed) -> Error {
    let (function, topic, table) = (&feed.function, &feed.topic, &feed.table.name);
    Error::retry(format!("{function} has not begun to read {topic}, so table {table} has no change feed yet"))
}

#[async_trait]
impl Log for EmbeddedFeed {
    /// Those that its function has fences of, in the newest generation.
    async fn partitions(&self, _topic: &str) -> Result<i32> {
        let function = self.of.function.clone();
        let fences = self.store.connections.read(move |connection| fences::list(connection, &function)).await?;
        let own = || fences.iter().map(|(at, _)| at).filter(|at| at.topic == self.of.topic && !at.is_redrive());
        let newest = own().map(|at| at.generation).max();
        let count = own().filter(|at| Some(at.generation) == newest).map(|at| at.partition + 1).max();
        count.ok_or_else(|| not_begun(&self.of))
    }

    async fn has_begun(&self, partition: &TopicPartition) -> Result<bool> {
        Ok(self.fence(partition).await?.is_some())
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks> {
        let held =
            self.fence(partition).await?.map(|fence| Watermarks { low: fence.start_offset, high: fence.next_offset });
        held.ok_or_else(|| not_begun(&self.of))
    }

    async fn first_since(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Option<i64>> {
        let Watermarks { low, high } = self.watermarks(partition).await?;
        let limits = Limits { max_records: CHUNK_ROWS, max_bytes: usize::MAX, max_wait_ms: 0 };
        let mut next = low;
        while next < high {
            let batch = self.read(partition, next..high, limits).await?;
            let found = batch.timestamps_ms().values().iter().position(|time_ms| *time_ms >= timestamp_ms);
            if let Some(row) = found {
                return Ok(Some(batch.offsets().value(row)));
            }
            next = batch.range().end;
        }
        Ok(None)
    }

    async fn read(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Result<Batch> {
        let Watermarks { low, high } = self.watermarks(partition).await?;
        if range.start < low {
            return Err(Error::stop(format!(
                "{partition}: the event store begins at offset {low}, not at {}",
                range.start
            )));
        }
        if range.start >= high {
            return Err(Error::retry(format!("{partition}: the event store ends before offset {}", range.start)));
        }
        let end = range.end.min(high);
        let most = limits.max_records.clamp(1, CHUNK_ROWS);
        let rows = self.rows(partition, range.start..end, most).await?;
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        let mut builder = BatchBuilder::new(partition.clone());
        let (mut last, mut refused) = (None, None);
        for rows in &rows {
            refused = self.push(&mut builder, rows, limits)?;
            if refused.is_some() {
                break;
            }
            let at = self.table.schema.index_of(meta::OFFSET).ok();
            last = at.and_then(|at| rows.column(at).as_primitive::<Int64Type>().values().last().copied());
        }
        let end = match (refused, last) {
            // The offsets before it are known to be empty.
            (Some(refused), _) => refused,
            (None, Some(last)) if count == most => last + 1,
            _ => end,
        };
        Ok(builder.finish_read(range.start, end))
    }
}
