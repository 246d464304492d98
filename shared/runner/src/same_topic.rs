//! Checks that the log is still the one that a fence belongs to.

use millstream_core::{Error, Fence, Limits, Result, TopicPartition};

use crate::Runner;

/// How many times a log that ends below the fence is checked before the function stops: a broker that has just
/// restarted may not know its own end yet. At the stream host's pace this takes half a minute.
const MAX_LOOKS: u32 = 12;

impl Runner {
    /// Checks that the log reaches up to the fence, and that the last record below the fence has the timestamp that the
    /// fence knows. If that record is gone (compaction, retention), there is nothing to compare, and the log counts as
    /// the same.
    pub(crate) async fn check_records(&self, partition: &TopicPartition, fence: &Fence) -> Result<()> {
        let held = self.parts.log.watermarks(partition).await?;
        if fence.next_offset > held.high {
            let found = format!("the log ends at offset {}", held.high);
            return match self.known.one_look_more(partition) {
                looks if looks < MAX_LOOKS => Err(Error::retry(format!(
                    "the sink has everything below offset {} of {partition}, but {found}: a broker that has just \
                     restarted may not know its end yet",
                    fence.next_offset
                ))),
                _ => Err(not_the_same(partition, fence, &found)),
            };
        }
        self.known.reaches_the_fence(partition);
        let last = fence.next_offset - 1;
        let Some(known_ms) = fence.last_timestamp_ms.filter(|_| last >= held.low) else { return Ok(()) };
        let one = Limits { max_records: 1, ..self.parts.limits };
        let batch = self.parts.log.read(partition, last..fence.next_offset, one).await?;
        match batch.timestamps_ms().values().first() {
            Some(found_ms) if *found_ms != known_ms => {
                let found =
                    format!("the record at offset {last} has the timestamp {found_ms} ms instead of {known_ms} ms");
                Err(not_the_same(partition, fence, &found))
            }
            _ => Ok(()),
        }
    }
}

/// Compares the topic's id, if the log has ids, with the fence's. `Stop` if they differ: the topic was deleted and re-created.
pub(crate) fn compare_topic_ids(partition: &TopicPartition, fence: &Fence, found: Option<&String>) -> Result<()> {
    match (&fence.topic_id, found) {
        (Some(known), Some(found)) if known != found => {
            let (topic, next_offset) = (&partition.topic, fence.next_offset);
            Err(Error::stop(format!(
                "topic {topic} was deleted and re-created, or is in another cluster: its id is {found} instead of \
                 {known}. The sink has everything of the old topic below offset {next_offset} of {partition}. If \
                 the new topic has other records, raise its `generation` in the pipeline file, and accept that by \
                 `millstream adopt`, to read it from its beginning; if it has the old records again (a mirror, a replay), they would be counted twice"
            )))
        }
        _ => Ok(()),
    }
}

/// The error if the records below the fence are not those that the sink has. If the fence has the topic's id, the ids
/// have already been compared: the topic is the same and has lost records.
fn not_the_same(partition: &TopicPartition, fence: &Fence, found: &str) -> Error {
    let known = format!("the sink has everything below offset {} of {partition}, but {found}", fence.next_offset);
    Error::stop(match fence.topic_id {
        Some(_) => format!(
            "{known}. It is the same topic, so the log has lost records: an unclean leader election, or a broker that \
             came back without its data. The sink keeps what it has from them. Restore the broker's data if you can; \
             there is no command yet to continue without it, and raising `generation` would read the whole topic again \
             into the same table"
        ),
        None => format!(
            "{known}: the topic was deleted and re-created, or the log has lost records. If it was re-created, raise \
             `generation` of topic {} in the pipeline file, and accept that by `millstream adopt`",
            partition.topic
        ),
    })
}
