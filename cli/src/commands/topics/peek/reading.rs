use std::ops::Range;

use arrow::array::Array as _;
use millstream_core::{Batch, Limits, Log, Result, TopicPartition};

use super::Record;

/// What is held in memory, all partitions together; a single record may be larger.
const MAX_BYTES: usize = 64 << 20;
/// One request to the log.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// Where the records begin.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    /// At an offset of the one partition that is read; or at the oldest one there, if that is higher.
    Offset(i64),
    /// At the first record that isn't older, in milliseconds since 1970.
    Time(i64),
    /// So many before the end.
    Last(usize),
}

/// Records of a topic, ordered by time; those of one partition stay in their order.
pub(super) struct Peeked {
    pub records: Vec<Record>,
    /// Are there others behind these that were asked for?
    pub more: bool,
}

/// Reads at most `limit` records of some partitions of a topic, outside every consumer group.
///
/// # Errors
/// Those of the log.
pub(super) async fn records(
    log: &dyn Log,
    (topic, generation): (&str, u32),
    partitions: Range<i32>,
    start: Start,
    limit: usize,
) -> Result<Peeked> {
    let room = Room { records: limit, bytes: MAX_BYTES / partitions.len().max(1) };
    let (mut all, mut more) = (Vec::new(), false);
    for partition in partitions {
        let partition = TopicPartition::new(topic, generation, partition);
        let held = log.watermarks(&partition).await?;
        let (found, cut) = match start {
            Start::Last(number) => {
                let room = Room { records: number, ..room };
                (last(log, &partition, held.low..held.high, room).await?, false)
            }
            Start::Offset(offset) => first(log, &partition, offset.max(held.low)..held.high, room).await?,
            Start::Time(timestamp_ms) => match log.first_since(&partition, timestamp_ms).await? {
                None => continue,
                Some(from) => first(log, &partition, from.max(held.low)..held.high, room).await?,
            },
        };
        more |= cut;
        all.push(found);
    }
    let mut records = by_time(all);
    match start {
        Start::Last(number) => drop(records.drain(..records.len().saturating_sub(number))),
        _ => {
            more |= records.len() > limit;
            records.truncate(limit);
        }
    }
    Ok(Peeked { records, more })
}

/// What one partition may give.
#[derive(Clone, Copy)]
struct Room {
    records: usize,
    bytes: usize,
}

/// The first records of a range, and whether it has others.
async fn first(
    log: &dyn Log,
    partition: &TopicPartition,
    range: Range<i64>,
    room: Room,
) -> Result<(Vec<Record>, bool)> {
    let (mut records, mut bytes, mut next) = (Vec::new(), 0, range.start);
    while next < range.end {
        if records.len() >= room.records || bytes >= room.bytes {
            return Ok((records, true));
        }
        let limits = Limits { max_records: room.records - records.len(), max_bytes: MAX_REQUEST_BYTES, max_wait_ms: 0 };
        let batch = log.read(partition, next..range.end, limits).await?;
        next = batch.range().end;
        bytes += batch.bytes();
        records.extend(records_of(&batch));
    }
    Ok((records, false))
}

/// The last records of a range. Offsets may be missing in it, so it looks further back until there are enough.
async fn last(log: &dyn Log, partition: &TopicPartition, range: Range<i64>, room: Room) -> Result<Vec<Record>> {
    let (mut records, mut end) = (Vec::new(), range.end);
    let mut step = i64::try_from(room.records).unwrap_or(i64::MAX);
    while records.len() < room.records && end > range.start {
        let from = end.saturating_sub(step).max(range.start);
        // There are at most as many records as offsets, and at the first step no more than are wanted.
        let mut before = Vec::new();
        let (mut next, mut bytes) = (from, 0);
        while next < end {
            let limits = Limits { max_records: room.records, max_bytes: MAX_REQUEST_BYTES, max_wait_ms: 0 };
            let batch = log.read(partition, next..end, limits).await?;
            next = batch.range().end;
            bytes += batch.bytes();
            before.extend(records_of(&batch));
            // Only the last ones are wanted, and only so many fit.
            let too_many = (before.len() + records.len()).saturating_sub(room.records);
            before.drain(..too_many.min(before.len()));
            if bytes > room.bytes {
                before.drain(..before.len() / 2);
                bytes /= 2;
            }
        }
        before.append(&mut records);
        records = before;
        end = from;
        step = step.saturating_mul(4);
    }
    Ok(records)
}

fn records_of(batch: &Batch) -> impl Iterator<Item = Record> {
    let bytes =
        |column: &arrow::array::BinaryArray, row: usize| column.is_valid(row).then(|| column.value(row).to_vec());
    (0..batch.len()).map(move |row| Record {
        position: batch.partition().at(batch.offsets().value(row)),
        timestamp_ms: batch.timestamps_ms().value(row),
        key: bytes(batch.keys(), row),
        headers: batch.headers_of(row),
        value: bytes(batch.values(), row),
    })
}

/// Merges partitions: of their next records, the oldest comes first.
fn by_time(partitions: Vec<Vec<Record>>) -> Vec<Record> {
    let mut partitions: Vec<_> = partitions.into_iter().map(|records| records.into_iter().peekable()).collect();
    let mut merged = Vec::new();
    loop {
        let next = partitions.iter_mut().enumerate().filter_map(|(at, of)| Some((of.peek()?.timestamp_ms, at))).min();
        let Some(record) = next.and_then(|(_, at)| partitions[at].next()) else { return merged };
        merged.push(record);
    }
}
