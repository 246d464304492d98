use std::fmt;

use serde::{Deserialize, Serialize};

/// Generations above this number are no incarnations of a topic, but selections of its dead letters that are redriven. So
/// their fences stand beside the function's own, and their rows have the topic and the offsets of their records.
pub const FIRST_REDRIVE: u32 = 1_000_000_000;

/// A partition of one generation of a topic: the unit that a fence is kept for.
///
/// The *generation* is a number in the pipeline file. The user raises it when a topic is deleted and re-created, so that
/// the new topic's offset 0 is never taken for the old one's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic's name in the cluster.
    pub topic: String,
    /// Which incarnation of the topic, from the pipeline file; starts at 1.
    pub generation: u32,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// A partition by its parts.
    pub fn new(topic: impl Into<String>, generation: u32, partition: i32) -> Self {
        Self { topic: topic.into(), generation, partition }
    }

    /// Does it hold dead letters that are redriven?
    pub fn is_redrive(&self) -> bool {
        self.generation > FIRST_REDRIVE
    }

    /// The record at `offset` of this partition.
    pub fn at(&self, offset: i64) -> Position {
        Position { partition: self.clone(), offset }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.generation, self.partition)
    }
}

/// Where a record stands: `topic/generation/partition/offset`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset in it.
    pub offset: i64,
}

impl Position {
    /// Reads what [`fmt::Display`] writes. Topic names hold no slash in Kafka, so the parts are unambiguous.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (topic, generation, partition, offset) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if topic.is_empty() || parts.next().is_some() {
            return None;
        }
        Some(TopicPartition::new(topic, generation.parse().ok()?, partition.parse().ok()?).at(offset.parse().ok()?))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_what_it_writes() {
        let position = TopicPartition::new("orders.v1", 2, 7).at(9_000_000_000);
        assert_eq!(Position::parse(&position.to_string()), Some(position));
        for bad in ["", "a/1/2", "a/1/2/3/4", "/1/2/3", "a/x/2/3"] {
            assert_eq!(Position::parse(bad), None, "{bad}");
        }
    }
}
