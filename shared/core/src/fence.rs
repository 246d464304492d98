use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a sink knows of one input partition of one function. It lives with the data and moves in the same atomic step
/// that makes the data visible; there is no other checkpoint anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Where this function began to read, fixed when the fence was created. An audit starts here.
    pub start_offset: i64,
    /// The next offset that the sink expects: everything below is in it, nothing at or above is.
    pub next_offset: i64,
    /// Kafka's timestamp of the last record below the fence, in milliseconds since 1970; `None` before the first one.
    pub last_timestamp_ms: Option<i64>,
    /// The highest event time below the fence, in microseconds since 1970: lateness is judged against it.
    pub max_event_time_us: Option<i64>,
    /// For topics that another millstream function writes: the highest source position seen of each upstream partition
    /// (`topic/generation/partition` → offset and index within the source record).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub upstream: BTreeMap<String, (i64, i32)>,
    /// The identity that the log gave the topic when it was created, where the log has such: another one under the same
    /// name means that the topic was deleted and re-created. `None` in a fence that was created without it, until its next write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// How many rows have been written with this fence, as far as it was counted: if there are some and the table is empty,
    /// it is not the table that they went to.
    #[serde(default)]
    pub rows: i64,
}

impl Fence {
    /// A fence of a function that begins at `offset`.
    pub fn starting_at(offset: i64) -> Self {
        Self {
            start_offset: offset,
            next_offset: offset,
            last_timestamp_ms: None,
            max_event_time_us: None,
            upstream: BTreeMap::new(),
            topic_id: None,
            rows: 0,
        }
    }
}
