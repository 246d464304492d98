//! Errors for offsets that a broker does not give out.

use millstream_core::{Error, TopicPartition, Watermarks};
use rdkafka::error::RDKafkaErrorCode as Code;

/// What a read is doing, for an error.
pub(crate) fn reading(partition: &TopicPartition, offset: i64) -> String {
    format!("reading topic {}, partition {} at offset {offset}", partition.topic, partition.partition)
}

/// Why a broker that holds the offsets `held` has nothing at `offset`. `Stop` if retention deleted it. `Retry` if it isn't
/// there (yet, or any more): the restart of the partition finds out which.
pub(crate) fn out_of_range(partition: &TopicPartition, offset: i64, held: Watermarks) -> Error {
    let TopicPartition { topic, generation, partition: number } = partition;
    let Watermarks { low, high } = held;
    if offset < low {
        return Error::stop(format!(
            "topic {topic}, partition {number}: offsets {offset}..{low} were deleted by retention before this function read \
             them, so their records are lost to it unless they can be restored upstream. To go on after them, move the \
             function's fence there; there is no command for that yet. In PostgreSQL, while the function is \
             stopped: UPDATE millstream_fences SET next_offset = {low} WHERE topic = '{topic}' AND generation = {generation} \
             AND partition = {number} AND next_offset = {offset} AND function = '…' (pipeline.function). Do not rename the \
             function instead: under another name it would read all that is left into the same table once more. Lengthen the \
             topic's `retention.ms`"
        ));
    }
    if offset > high {
        return Error::retry(format!(
            "topic {topic}, partition {number} ends at offset {high}, but the fence is at {offset}: a broker that has just \
             come back may not know its end yet, or the topic was re-created or has lost records"
        ));
    }
    Error::retry(format!("topic {topic}, partition {number}: the broker had nothing at offset {offset} for a moment"))
}

/// What is wrong with a record batch, if the error code blames the batch.
pub(crate) fn find_damage(code: Code) -> Option<&'static str> {
    match code {
        Code::BadMessage | Code::InvalidMessage => Some("the broker gives out a record batch that is damaged"),
        Code::BadCompression => Some(
            "the broker gives out a record batch that can't be decompressed: it is damaged, of an unknown codec, or larger \
             than the client takes (100 MB, or its `receive.message.max.bytes`); the log says which of these a gzip batch is",
        ),
        Code::NotImplemented => Some("the broker gives out a record batch of a version that this client does not know"),
        _ => None,
    }
}

/// The error for a batch that can't be read: nothing after it may be read until a person has acted.
pub(crate) fn damaged(partition: &TopicPartition, offset: i64, what: &str) -> Error {
    Error::stop(format!(
        "topic {}, partition {}, offset {offset}: {what}. Nothing of this partition is read beyond it. Restore the partition's \
         log on the broker from a replica or a backup; there is no command yet to go on without these records",
        partition.topic, partition.partition
    ))
}
