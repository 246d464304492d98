use std::{collections::VecDeque, ops::Range};

use arrow::array::Array as _;
use millstream_core::{Batch, Limits, Log, Position, Result, TopicPartition};

use super::Record;

/// What is held in memory, all partitions together; a single record may be larger.
const MAX_BYTES: usize = 64 << 20;
/// One request to the log.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// How many offsets are first looked at for the newest records: if these are large, little is read in vain.
const FIRST_STEP: i64 = 16;

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
    /// Are there others that were asked for: behind these, or before the newest ones if no more fit?
    pub more: bool,
}

/// Reads at most `limit` records of some partitions of a topic, outside every consumer group.
///
/// # Errors
/// Those of the log.
pub(super) async fn records(
    log: &dyn Log,
    topic: (&str, u32),
    partitions: Range<i32>,
    start: Start,
    limit: usize,
) -> Result<Peeked> {
    let room = Room { records: limit, bytes: MAX_BYTES / partitions.len().max(1) };
    let partitions = partitions.map(|partition| TopicPartition::new(topic.0, topic.1, partition));
    let mut parts = Vec::new();
    for partition in partitions {
        let held = log.watermarks(&partition).await?;
        let range = held.low..held.high;
        parts.push(match start {
            Start::Last(number) => last(log, &partition, range, Room { records: number, ..room }).await?,
            Start::Offset(offset) => first(log, &partition, offset.max(range.start)..range.end, room).await?,
            Start::Time(timestamp_ms) => match log.first_since(&partition, timestamp_ms).await? {
                None => continue,
                Some(from) => first(log, &partition, from.max(range.start)..range.end, room).await?,
            },
        });
    }
    Ok(match start {
        Start::Last(number) => newest(parts, number),
        _ => oldest(parts, limit),
    })
}

/// The first `limit` records of all partitions.
fn oldest(parts: Vec<Part>, limit: usize) -> Peeked {
    let cut = parts.iter().any(|part| part.cut);
    let mut records = by_time(parts);
    let more = cut || records.len() > limit;
    records.truncate(limit);
    Peeked { records, more }
}

/// The last `number` records of all partitions. Those before the first one of a partition that was cut are left out: among
/// them, others of that partition are missing.
fn newest(parts: Vec<Part>, number: usize) -> Peeked {
    let cut: Vec<Position> =
        parts.iter().filter(|part| part.cut).filter_map(|part| Some(part.records.front()?.position.clone())).collect();
    let mut records = by_time(parts);
    let whole = records.iter().rposition(|record| cut.contains(&record.position)).unwrap_or(0);
    records.drain(..whole.max(records.len().saturating_sub(number)));
    let more = !cut.is_empty() && records.len() < number;
    Peeked { records, more }
}

/// What one partition may give.
#[derive(Clone, Copy)]
struct Room {
    records: usize,
    bytes: usize,
}

/// Records of one partition.
#[derive(Debug, Default)]
struct Part {
    records: VecDeque<Record>,
    /// Are there others that were asked for?
    cut: bool,
}

/// The first records of a range.
async fn first(log: &dyn Log, partition: &TopicPartition, range: Range<i64>, room: Room) -> Result<Part> {
    let (mut part, mut bytes, mut next) = (Part::default(), 0, range.start);
    while next < range.end {
        if part.records.len() >= room.records || bytes >= room.bytes {
            part.cut = true;
            break;
        }
        let max_records = room.records - part.records.len();
        let limits = Limits { max_records, max_bytes: MAX_REQUEST_BYTES, max_wait_ms: 0 };
        let batch = log.read(partition, next..range.end, limits).await?;
        next = batch.range().end;
        bytes += batch.bytes();
        part.records.extend(records_of(&batch));
    }
    Ok(part)
}

/// The last records of a range. Offsets may be missing in it and the sizes of records aren't known, so it looks back in
/// steps, each longer than the one before, until there are enough or no more fit.
async fn last(log: &dyn Log, partition: &TopicPartition, range: Range<i64>, room: Room) -> Result<Part> {
    let (mut part, mut bytes, mut end) = (Part::default(), 0, range.end);
    let mut step = FIRST_STEP;
    while part.records.len() < room.records && end > range.start && !part.cut {
        let missing = room.records - part.records.len();
        let is_dense = i64::try_from(part.records.len()).is_ok_and(|records| records == range.end - end);
        let offsets = if is_dense { step.min(i64::try_from(missing).unwrap_or(i64::MAX)) } else { step };
        let from = end.saturating_sub(offsets).max(range.start);
        let (mut before, mut next) = (VecDeque::new(), from);
        while next < end {
            let limits = Limits { max_records: room.records, max_bytes: MAX_REQUEST_BYTES, max_wait_ms: 0 };
            let batch = log.read(partition, next..end, limits).await?;
            next = batch.range().end;
            for record in records_of(&batch) {
                bytes += record.bytes();
                before.push_back(record);
            }
            // Only the newest ones are wanted, and only so many fit.
            loop {
                let held = before.len() + part.records.len();
                let is_too_large = bytes > room.bytes && held > 1;
                if held <= room.records && !is_too_large {
                    break;
                }
                let Some(oldest) = before.pop_front() else { break };
                bytes -= oldest.bytes();
                part.cut |= is_too_large;
            }
        }
        before.append(&mut part.records);
        part.records = before;
        end = from;
        step = step.saturating_mul(4);
    }
    // Those that didn't fit aren't missing if there are enough newer ones.
    part.cut &= part.records.len() < room.records;
    Ok(part)
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
fn by_time(mut parts: Vec<Part>) -> Vec<Record> {
    let mut merged = Vec::new();
    loop {
        let next = parts.iter().enumerate().filter_map(|(at, of)| Some((of.records.front()?.timestamp_ms, at))).min();
        let Some(record) = next.and_then(|(_, at)| parts[at].records.pop_front()) else { return merged };
        merged.push(record);
    }
}

#[cfg(test)]
mod tests;
