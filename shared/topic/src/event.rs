//! The records of the fences' topic.

use millstream_core::{Error, Fence, NewRecord, OwnerRecord, Result, TopicPartition};
use serde::{Deserialize, Serialize};

/// What a record of the topic says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// A function begins to read a partition.
    Start { function: String, partition: TopicPartition, fence: Fence },
    /// A process is about to send records.
    Announced(Announced),
    /// A fence has moved: all records that were announced below it are in the topic. Only who announced them, or has sent them
    /// again, says so.
    Moved {
        function: String,
        partition: TopicPartition,
        fence: Fence,
        #[serde(default)]
        table: String,
    },
    /// A function becomes the owner of a topic, if the owner is still the expected one.
    Claimed { expected: Option<OwnerRecord>, record: OwnerRecord, begins_term: bool, forgets_rows: bool },
    /// What a topic's records are, and how many of its partitions are written to: those that it had at first.
    Made {
        topic: String,
        generation: u32,
        partitions: i32,
        columns: Vec<(String, String)>,
        /// The id that the log gave the topic.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic_id: Option<String>,
    },
}

/// The records of a topic that are made of the offsets `from..to` of a partition are about to be sent, or have been.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Announced {
    /// The topic that they go to, as a table.
    pub table: String,
    /// Its generation; 0 where that was not kept.
    #[serde(default)]
    pub generation: u32,
    pub function: String,
    pub partition: TopicPartition,
    pub from: i64,
    pub to: i64,
    pub term: i64,
    /// The hash of the plan that makes them. Without `rows`, they can be made again only by it.
    pub plan: String,
    /// The records themselves, if the plan may make others the next time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Stored>,
}

/// Where announced records are kept in the outbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// The fence that they move to.
    pub fence: Fence,
    /// The partition of the outbox.
    pub partition: i32,
    /// The offsets of their parts, in order.
    pub offsets: Vec<i64>,
}

impl Announced {
    /// Do both come from the same plan?
    pub fn has_plan_of(&self, other: &Self) -> bool {
        self.is_by(other.term, &other.plan)
    }

    /// Was the topic deleted, with what was sent? It has this generation now.
    pub fn is_gone(&self, table: &str, generation: u32) -> bool {
        self.table == table && self.generation != 0 && self.generation != generation
    }

    /// Does the plan make these records? Within a term, only its hash may have changed.
    pub fn is_by(&self, term: i64, plan: &str) -> bool {
        self.term == term || self.plan == plan
    }
}

/// What the keys of the records begin with that are removed once they don't count any more.
pub(crate) fn passing(function: &str, partition: &TopicPartition) -> String {
    format!("passing/{function}/{partition}/")
}

impl Event {
    /// The record. No two have the same key (`unique` sees to that), so compaction removes none by itself: of the records that
    /// contradict each other the first one counts, or the highest, and never the last.
    pub fn record(&self, unique: &str) -> Result<NewRecord> {
        let value = serde_json::to_vec(self)
            .map_err(|error| Error::stop("internal: a fence has no JSON form").caused_by(error))?;
        let key = match self {
            Self::Start { function, partition, .. } => format!("start/{function}/{partition}/"),
            Self::Announced(Announced { function, partition, .. }) | Self::Moved { function, partition, .. } => {
                passing(function, partition)
            }
            Self::Claimed { record, .. } => format!("owner/{}/{}/", record.table, record.term),
            Self::Made { topic, generation, .. } => format!("topic/{topic}/{generation}/"),
        };
        Ok(in_order(key + unique, Some(value)))
    }
}

/// A record that removes the one with this key.
pub(crate) fn removal(key: String) -> NewRecord {
    in_order(key, None)
}

/// The order of all of them counts, so all stand in one partition.
fn in_order(key: String, value: Option<Vec<u8>>) -> NewRecord {
    NewRecord { key: Some(key.into_bytes()), value, partition: Some(0), ..NewRecord::default() }
}
