//! A table as a log: its change feed.

use std::{
    ops::{ControlFlow, Range},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray},
    datatypes::{DataType, Int64Type, TimestampMicrosecondType},
    util::display::{ArrayFormatter, FormatOptions},
};
use async_trait::async_trait;
use millstream_core::{
    Batch, BatchBuilder, Error, Feed, Fence, Limits, Log, Result, Role, TopicPartition, WHOLE_TOPIC, Watermarks, meta,
};

use crate::{
    client::Client,
    fences::{FENCES, Held},
    layout::{BUCKET, Layout},
    read::{PAGE_ROWS, Row},
};

/// The most buckets of a range that one read looks into: a function that keeps few rows leaves most of them empty.
const MAX_BUCKETS: i64 = 64;

/// The rows of a table up to the fences of the function that fills it, at the offsets of the records that they were made of.
///
/// Records that were redriven are not in it: they have come after what stands above them, which may have been read by then.
pub(crate) struct CosmosFeed {
    client: Arc<Client>,
    layout: Layout,
    feed: Feed,
    /// The place of `_timestamp`.
    timestamp: usize,
    /// The places of the columns that values are made of.
    values: Vec<usize>,
    /// Is the place of the fences known to be there?
    is_prepared: AtomicBool,
}

impl CosmosFeed {
    pub(crate) fn new(client: Arc<Client>, feed: Feed) -> Result<Self> {
        let layout = Layout::new(feed.table.clone())?;
        let columns = &layout.table.columns;
        let timestamp = columns.iter().position(|column| column.name == meta::TIMESTAMP).ok_or_else(|| {
            Error::stop(format!("internal: table {} has no column {}", feed.table.name, meta::TIMESTAMP))
        })?;
        let values = (0..columns.len()).filter(|at| columns[*at].role != Role::Carried).collect();
        Ok(Self { client, layout, feed, timestamp, values, is_prepared: AtomicBool::new(false) })
    }

    /// Where the rows of a partition of the feed lie.
    fn source(&self, partition: &TopicPartition) -> TopicPartition {
        TopicPartition { topic: self.feed.topic.clone(), ..partition.clone() }
    }

    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        if !self.is_prepared().await? {
            return Ok(None);
        }
        let found = self.client.fence(&self.feed.function, &self.source(partition)).await?;
        Ok(found.map(|found| found.held.fence))
    }

    /// Is there a place for fences? A reader may start before the function that makes it.
    async fn is_prepared(&self) -> Result<bool> {
        if !self.is_prepared.load(Ordering::Relaxed) {
            self.is_prepared.store(self.client.list_containers().await?.contains_key(FENCES), Ordering::Relaxed);
        }
        Ok(self.is_prepared.load(Ordering::Relaxed))
    }

    fn not_begun(&self) -> Error {
        Error::retry(format!(
            "Cosmos: {} has not begun to read the topic {}, so table {} has no change feed yet",
            self.feed.function, self.feed.topic, self.feed.table.name
        ))
    }

    /// The records of some rows, appended to `builder` until a limit is met: then it says so.
    fn append(&self, builder: &mut Taken, rows: &RecordBatch, limits: Limits) -> Result<ControlFlow<()>> {
        let internal = |error| Error::stop("internal: a row has no value of a feed").caused_by(error);
        let values = self.feed.encode.encode(&rows.project(&self.values).map_err(internal)?)?;
        let keys = self.layout.entity.map(|entity| keys(rows.column(entity))).transpose()?;
        let (offsets, times) = (offsets(rows, &self.layout), times(rows, self.timestamp));
        for (row, value) in values.iter().enumerate() {
            let key = keys.as_ref().and_then(|keys| keys.get(row)).and_then(Option::as_deref);
            let bytes = value.len() + key.map_or(0, <[u8]>::len);
            if builder.records > 0
                && (builder.records >= limits.max_records || builder.bytes + bytes > limits.max_bytes)
            {
                return Ok(ControlFlow::Break(()));
            }
            builder.batch.push(offsets.value(row), time_ms(times, row), key, Some(value), []);
            builder.records += 1;
            builder.bytes += bytes;
            builder.next = offsets.value(row) + 1;
        }
        let is_full = builder.records >= limits.max_records || builder.bytes >= limits.max_bytes;
        Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

/// What a read has so far.
struct Taken {
    batch: BatchBuilder,
    records: usize,
    bytes: usize,
    next: i64,
}

#[async_trait]
impl Log for CosmosFeed {
    /// Those of the topic when the function began to read it, and those that were added since.
    async fn partitions(&self, _topic: &str) -> Result<i32> {
        if !self.is_prepared().await? {
            return Err(self.not_begun());
        }
        let fences = self.client.fences(&self.feed.function).await?;
        let own = fences.iter().filter(|(at, _)| at.topic == self.feed.topic && !at.is_redrive());
        let newest = own.clone().map(|(at, _)| at.generation).max();
        let count = |(at, held): &(TopicPartition, Held)| {
            if at.partition == WHOLE_TOPIC { held.fence.start_offset } else { i64::from(at.partition) + 1 }
        };
        let count = own.filter(|(at, _)| Some(at.generation) == newest).map(count).max();
        match count.and_then(|count| i32::try_from(count).ok()) {
            Some(count) if count > 0 => Ok(count),
            _ => Err(self.not_begun()),
        }
    }

    async fn has_begun(&self, partition: &TopicPartition) -> Result<bool> {
        Ok(self.fence(partition).await?.is_some())
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks> {
        let fence = self.fence(partition).await?;
        let held = fence.map(|fence| Watermarks { low: fence.start_offset, high: fence.next_offset });
        held.ok_or_else(|| self.not_begun())
    }

    /// Reads all rows up to the first one.
    async fn first_since(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Option<i64>> {
        let Some(fence) = self.fence(partition).await? else { return Ok(None) };
        let mut first = None;
        let take = |rows: Vec<Row>| {
            let rows = self.layout.decode(rows)?;
            let (offsets, times) = (offsets(&rows, &self.layout), times(&rows, self.timestamp));
            first = (0..rows.num_rows()).find(|row| time_ms(times, *row) >= timestamp_ms).map(|row| offsets.value(row));
            Ok(if first.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        let range = fence.start_offset..fence.next_offset;
        self.client.read_range(&self.layout, &self.source(partition), range, PAGE_ROWS, take).await?;
        Ok(first)
    }

    async fn read(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Result<Batch> {
        let fence = self.fence(partition).await?;
        let Some(fence) = fence.filter(|fence| range.start < fence.next_offset) else {
            return Err(Error::retry(format!("Cosmos: {partition} ends before offset {}", range.start)));
        };
        if range.start < fence.start_offset {
            return Err(Error::stop(format!(
                "Cosmos: {} began to read {partition} at offset {}: there are no rows of offset {}",
                self.feed.function, fence.start_offset, range.start
            )));
        }
        let reach = (range.start.div_euclid(BUCKET) + MAX_BUCKETS) * BUCKET;
        let end = range.end.min(fence.next_offset).min(reach);
        let mut taken = Taken { batch: BatchBuilder::new(partition.clone()), records: 0, bytes: 0, next: range.start };
        let mut is_cut = false;
        let take = |rows| {
            let flow = self.append(&mut taken, &self.layout.decode(rows)?, limits)?;
            is_cut |= flow.is_break();
            Ok(flow)
        };
        let page_rows = limits.max_records.min(PAGE_ROWS);
        let read =
            self.client.read_range(&self.layout, &self.source(partition), range.start..end, page_rows, take).await;
        match read {
            Ok(()) => {}
            // What was read before is good, and the next read goes on behind it.
            Err(error) if error.is_retry() && taken.records > 0 => is_cut = true,
            Err(error) => return Err(error),
        }
        let end = if is_cut { taken.next } else { end };
        Ok(taken.batch.finish_read(range.start, end))
    }
}

fn offsets<'a>(rows: &'a RecordBatch, layout: &Layout) -> &'a Int64Array {
    rows.column(layout.offset).as_primitive::<Int64Type>()
}

fn times(rows: &RecordBatch, timestamp: usize) -> &TimestampMicrosecondArray {
    rows.column(timestamp).as_primitive::<TimestampMicrosecondType>()
}

/// A row without a time counts as old.
fn time_ms(times: &TimestampMicrosecondArray, row: usize) -> i64 {
    if times.is_valid(row) { times.value(row).div_euclid(1_000) } else { -1 }
}

/// The entities of some rows as bytes: binaries as they are, and all else as its text.
fn keys(entities: &ArrayRef) -> Result<Vec<Option<Vec<u8>>>> {
    let internal = |error| Error::stop("internal: an entity has no text").caused_by(error);
    if matches!(entities.data_type(), DataType::Binary | DataType::LargeBinary | DataType::BinaryView) {
        let bytes = arrow::compute::cast(entities, &DataType::Binary).map_err(internal)?;
        return Ok(bytes.as_binary::<i32>().iter().map(|bytes| bytes.map(<[u8]>::to_vec)).collect());
    }
    let options = FormatOptions::new();
    let texts = ArrayFormatter::try_new(entities.as_ref(), &options).map_err(internal)?;
    let text = |row| entities.is_valid(row).then(|| texts.value(row).to_string().into_bytes());
    Ok((0..entities.len()).map(text).collect())
}
