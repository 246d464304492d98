//! Is the log still the one that a fence was made from?

use millstream_core::{Error, Fence, Limits, Result, TopicPartition};

use crate::Runner;

/// How often a log that ends below the fence is looked at before it is judged: a broker that has just come back may not
/// know its own end yet. At the stream host's pace that is half a minute.
const MAX_LOOKS: u32 = 12;

impl Runner {
    /// Compares the topic's id with the one that the fence knows, and answers it, where the log has one. `Stop` when it is
    /// another: the topic was deleted and re-created.
    pub(crate) async fn check_topic_id(&self, partition: &TopicPartition, fence: &Fence) -> Result<Option<String>> {
        let found = self.parts.log.topic_id(&partition.topic).await?;
        match (&fence.topic_id, &found) {
            (Some(known), Some(found)) if known != found => {
                let (topic, next_offset) = (&partition.topic, fence.next_offset);
                Err(Error::stop(format!(
                    "topic {topic} was deleted and re-created, or is another cluster's: its id is {found} where {known} is \
                     known. The sink has everything of the old one below offset {next_offset} of {partition}. If the \
                     new one has other records, raise the topic's `generation` in the pipeline file to read it from its \
                     beginning; if it has the old ones once more (a mirror, a replay), they would be counted twice"
                )))
            }
            _ => Ok(found),
        }
    }

    /// Does the log reach up to the fence, and has the last record below it the timestamp that the fence knows? Where that
    /// record is gone (compaction, retention) there is nothing to compare, and the log is taken for the same.
    pub(crate) async fn check_records(&self, partition: &TopicPartition, fence: &Fence) -> Result<()> {
        let held = self.parts.log.watermarks(partition).await?;
        if fence.next_offset > held.high {
            let found = format!("the log ends at offset {}", held.high);
            return match self.known.one_look_more(partition) {
                looks if looks < MAX_LOOKS => Err(Error::retry(format!(
                    "the sink has everything below offset {} of {partition}, but {found}: a broker that has just come back \
                     may not know its end yet",
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
                let found = format!("the record at offset {last} is of {found_ms} ms where {known_ms} ms is known");
                Err(not_the_same(partition, fence, &found))
            }
            _ => Ok(()),
        }
    }
}

/// The records below the fence are not those that the sink has. A fence whose topic's id is known was compared by it
/// before, so the topic is the same and has lost records.
fn not_the_same(partition: &TopicPartition, fence: &Fence, found: &str) -> Error {
    let known = format!("the sink has everything below offset {} of {partition}, but {found}", fence.next_offset);
    Error::stop(match fence.topic_id {
        Some(_) => format!(
            "{known}. It is the same topic, so the log has lost records: an unclean leader election, or a broker that came \
             back without its data. What the sink has of them stays there. Restore the broker's data if you can; there is no \
             command yet to go on without it, and raising `generation` would read all of the topic once more into the same \
             table"
        ),
        None => format!(
            "{known}: the topic was deleted and re-created, or the log has lost records. If it was re-created, raise \
             `generation` of topic {} in the pipeline file",
            partition.topic
        ),
    })
}
