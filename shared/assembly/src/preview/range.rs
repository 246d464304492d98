//! Which records a preview reads.

use std::ops::Range;

use millstream_core::{Fence, Log, Result, TopicPartition};
use millstream_pipeline::{Pipeline, Reading};

/// The offsets of each partition: between the fences where there are some, otherwise all that the log has; from the
/// first record on that is not older than `since_ms`, if that is given.
pub(super) async fn ranges(
    pipeline: &Pipeline,
    reading: &Reading,
    log: &dyn Log,
    fences: &[(TopicPartition, Fence)],
    since_ms: Option<i64>,
    notes: &mut Vec<String>,
) -> Result<Vec<(TopicPartition, Range<i64>)>> {
    let mut ranges = Vec::new();
    for name in reading.topics() {
        let generation = pipeline.topics[name].generation;
        for partition in 0..log.partitions(name).await? {
            let partition = TopicPartition::new(name, generation, partition);
            let held = log.watermarks(&partition).await?;
            let fence = fences.iter().find(|(fenced, _)| *fenced == partition).map(|(_, fence)| fence);
            let mut range = match fence {
                Some(fence) => fence.start_offset..fence.next_offset,
                // The deployed table has nothing of this partition.
                None if fences.iter().any(|(fenced, _)| is_of(fenced, name, generation)) => held.low..held.low,
                None => held.low..held.high,
            };
            if range.end > held.high {
                notes.push(format!(
                    "the table is made of {partition} up to offset {}, and the log ends at {}",
                    range.end, held.high
                ));
                range = range.start.min(held.high)..held.high;
            }
            if range.start < held.low && range.start < range.end {
                notes.push(format!(
                    "offsets {}..{} of {partition} are no longer in the log (retention), so their rows can't be computed",
                    range.start,
                    held.low.min(range.end)
                ));
                range.start = held.low.min(range.end);
            }
            if let Some(since_ms) = since_ms {
                let first = log.first_since(&partition, since_ms).await?;
                range.start = first.map_or(range.end, |first| first.clamp(range.start, range.end));
            }
            ranges.push((partition, range));
        }
    }
    let is_read = |fenced: &TopicPartition| {
        let topic = reading.topics().find(|topic| **topic == fenced.topic);
        topic.is_some_and(|topic| is_of(fenced, topic, pipeline.topics[topic].generation))
    };
    let gone = fences
        .iter()
        .filter(|(fenced, fence)| !is_read(fenced) && !fenced.is_redrive() && fence.next_offset > fence.start_offset);
    let gone: Vec<String> = gone.map(|(fenced, _)| fenced.to_string()).collect();
    if !gone.is_empty() {
        notes.push(format!("the table also holds data of {}, which the statement doesn't read", gone.join(", ")));
    }
    Ok(ranges)
}

fn is_of(partition: &TopicPartition, topic: &str, generation: u32) -> bool {
    partition.topic == topic && partition.generation == generation
}
