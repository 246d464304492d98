use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Batch, Error, Lineage, Result, SOURCE_HEADER};

/// Of each partition upstream (`topic/generation/partition`), the offset and the index of a [`Lineage`].
pub type Upstream = BTreeMap<String, (i64, i32)>;

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
    pub upstream: Upstream,
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

    /// Which records of `batch` are above what this fence has seen of their upstream partitions, and what it has seen after
    /// them: see [`crate::Lineage`]. `None` if no record says where it comes from.
    pub fn find_new(&self, batch: &Batch) -> Option<(Vec<bool>, Upstream)> {
        batch.headers()?;
        let lineages: Vec<_> =
            (0..batch.len()).map(|row| batch.find_header(row, SOURCE_HEADER).and_then(Lineage::parse)).collect();
        if lineages.iter().all(Option::is_none) {
            return None;
        }
        let mut upstream = self.upstream.clone();
        let mut is_new = |lineage: &Option<Lineage>| {
            let Some(lineage) = lineage else { return true };
            let partition = lineage.source.partition.to_string();
            let is_new = upstream.get(&partition).is_none_or(|highest| *highest < lineage.order());
            if is_new {
                upstream.insert(partition, lineage.order());
            }
            is_new
        };
        let new = lineages.iter().map(&mut is_new).collect();
        Some((new, upstream))
    }

    /// [`Fence::upstream`] as the JSON text that a store keeps in a column.
    ///
    /// # Errors
    /// `Stop`, which can't happen: texts and numbers have a JSON form.
    pub fn upstream_text(&self) -> Result<String> {
        serde_json::to_string(&self.upstream)
            .map_err(|error| Error::stop("internal: a fence's upstream positions have no JSON form").caused_by(error))
    }

    /// [`Fence::upstream`] from [`Fence::upstream_text`].
    ///
    /// # Errors
    /// `Stop` if it is another text: a person has changed the store's fences.
    pub fn parse_upstream(text: &str) -> Result<Upstream> {
        serde_json::from_str(text)
            .map_err(|error| Error::stop("the column `upstream` of millstream_fences can't be read").caused_by(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, TopicPartition};

    #[test]
    fn what_was_sent_again_is_not_new() {
        let mut builder = BatchBuilder::new(TopicPartition::new("out", 1, 0));
        let sources =
            ["in/1/0/5/0", "in/1/0/5/1", "in/1/1/2/0", "in/1/0/5/0", "in/1/0/5/1", "in/1/0/7/0", "else", "in/1/0/6/0"];
        for (offset, source) in (0..).zip(sources) {
            builder.push(offset, 0, None, None, [("other", &b"x"[..]), (SOURCE_HEADER, source.as_bytes())]);
        }
        builder.push(8, 0, None, None, []);
        let batch = builder.finish_read(0, 9);
        let fence = Fence { upstream: BTreeMap::from([("in/1/1".to_owned(), (2, 0))]), ..Fence::starting_at(0) };
        let (new, upstream) = fence.find_new(&batch).unwrap();
        assert_eq!(new, [true, true, false, false, false, true, true, false, true]);
        assert_eq!(upstream, BTreeMap::from([("in/1/0".to_owned(), (7, 0)), ("in/1/1".to_owned(), (2, 0))]));
        assert_eq!(fence.find_new(&batch.after(8).unwrap()), None);
    }

    #[test]
    fn upstream_positions_survive_their_text() {
        let upstream = BTreeMap::from([("orders/1/0".to_owned(), (i64::MAX, 3)), ("\"ø\"/2/1".to_owned(), (0, -1))]);
        let fence = Fence { upstream: upstream.clone(), ..Fence::starting_at(0) };
        assert_eq!(Fence::parse_upstream(&fence.upstream_text().unwrap()).unwrap(), upstream);
        assert_eq!(Fence::parse_upstream("{}").unwrap(), BTreeMap::new());
        let error = Fence::parse_upstream("{\"a\": 1}").unwrap_err();
        assert!(error.to_string().contains("the column `upstream` of millstream_fences"), "{error}");
    }
}
