use std::fmt;

use crate::Position;

/// The header in which a record that a function has written says what it was made of: a [`Lineage`] as text.
pub const SOURCE_HEADER: &str = "millstream-source";

/// What a record of a topic was made of by the function that wrote it, as its header [`SOURCE_HEADER`] says:
/// `topic/generation/partition/offset/index`.
///
/// One writer's records reach a partition in the order of their lineage, and a writer that begins again begins at or below
/// its fence. So whoever reads the topic keeps the highest lineage of each upstream partition, and drops what is not above
/// it: nothing comes twice, whatever was sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The record that it was made of.
    pub source: Position,
    /// Which of the records that were made of it, from 0.
    pub index: i32,
}

impl Lineage {
    /// Reads what [`fmt::Display`] writes; `None` for anything else, which is somebody else's header.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (source, index) = std::str::from_utf8(bytes).ok()?.rsplit_once('/')?;
        Some(Self { source: Position::parse(source)?, index: index.parse().ok().filter(|index| *index >= 0)? })
    }

    /// How it compares with others of the same upstream partition.
    pub fn order(&self) -> (i64, i32) {
        (self.source.offset, self.index)
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TopicPartition;

    #[test]
    fn a_lineage_reads_what_it_writes() {
        let lineage = Lineage { source: TopicPartition::new("orders.v1", 2, 7).at(9_000_000_000), index: 3 };
        assert_eq!(Lineage::parse(lineage.to_string().as_bytes()), Some(lineage));
        for other in ["", "a/1/2/3", "a/1/2/3/-1", "a/1/2/3/4/5", "a/1/2/3/x", "/1/2/3/4"] {
            assert_eq!(Lineage::parse(other.as_bytes()), None, "{other}");
        }
        assert_eq!(Lineage::parse(b"\xff/1/2/3/4"), None);
    }
}
