use async_trait::async_trait;
use millstream_core::{Error, NewRecord, Position, Producer, Result, TopicPartition};
use rdkafka::{error::RDKafkaErrorCode as Code, producer::Producer as _};

use crate::{
    Kafka,
    control::blocking,
    sender::{Client, Sender, arrive, hand_over},
    shipment::Shipment,
};

/// How much librdkafka puts into one request for a partition (`batch.size`).
const BATCH_BYTES: usize = 1_000_000;

/// What librdkafka adds to a record, for the check against the limit.
const RECORD_OVERHEAD_BYTES: usize = 512;

#[async_trait]
impl Producer for Kafka {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        let limit = self.sender.find_limit(topic).filter(|limit| self.sender.is_ordered() && *limit < BATCH_BYTES);
        let Some(limit) = limit else { return self.send_all(topic, records).await };
        // The client fills its requests up to its own limit, and the broker would refuse the whole request.
        let (mut positions, mut run, mut bytes) = (Vec::with_capacity(records.len()), Vec::new(), 0);
        for record in records {
            let more = sent_bytes(&record);
            if bytes + more > limit {
                positions.extend(self.send_all(topic, std::mem::take(&mut run)).await?);
                bytes = 0;
            }
            bytes += more;
            run.push(record);
        }
        positions.extend(self.send_all(topic, run).await?);
        Ok(positions)
    }

    async fn check_sizes(&self, topic: &str, records: &[NewRecord]) -> Result<()> {
        let Some(largest) = records.iter().map(sent_bytes).max() else { return Ok(()) };
        if self.sender.find_limit(topic).is_none_or(|limit| largest > limit)
            && let Some(limit) = self.topic_setting(topic, "max.message.bytes").await
            && let Ok(limit) = limit.parse()
        {
            self.sender.set_limit(topic, limit);
        }
        match self.sender.find_limit(topic) {
            Some(limit) if largest > limit => Err(Error::poison(format!(
                "a record has {largest} bytes, and topic {topic} takes {limit} (its `max.message.bytes`)"
            ))),
            _ => self.check_records(topic, records).await,
        }
    }
}

impl Kafka {
    async fn send_all(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.check_records(topic, &records).await?;
        let mut sending = Sending { sender: &self.sender, discards: self.sender.is_ordered(), client: None };
        let client = &*sending.client.insert(self.sender.client()?);
        let (first, rest) = match self.sender.is_ordered() {
            true => client.context().1.divide(topic, &records),
            false => (Vec::new(), (0..records.len()).collect()),
        };
        let mut positions = vec![TopicPartition::new(topic, 0, -1).at(-1); records.len()];
        for part in [first, rest] {
            match ship(client, topic, part.iter().map(|at| &records[*at]).collect()).await {
                Ok(places) => {
                    client.context().0.mark_reachable();
                    client.context().1.meet(topic, places.iter().map(|(partition, _)| *partition));
                    for (at, (partition, offset)) in part.into_iter().zip(places) {
                        positions[at] = TopicPartition::new(topic, 0, partition).at(offset);
                    }
                }
                Err(code) => {
                    sending.discards = true;
                    return Err(self.send_error(client, topic, code).await);
                }
            }
        }
        sending.discards = false;
        Ok(positions)
    }
}

/// A send that is under way, which discards its client unless all went well. If its future is dropped, an ordered client would
/// write what it still holds after whatever is sent next. Any other may: sends of many callers share it, such as the requests of
/// a webhook, and whoever drops one must not fail the others.
struct Sending<'a> {
    sender: &'a Sender,
    discards: bool,
    client: Option<Client>,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take().filter(|_| self.discards) {
            self.sender.discard(client);
        }
    }
}

/// Sends records and waits until all are written; returns partition and offset of each.
async fn ship(client: &Client, topic: &str, records: Vec<&NewRecord>) -> Result<Vec<(i32, i64)>, Code> {
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let shipment = Shipment::new(records.len());
    hand_over(client, topic, &records, &shipment).await?;
    arrive(client, &shipment).await?;
    let places = std::mem::take(&mut shipment.state().places);
    Ok(places)
}

impl Kafka {
    /// Finds what can be found before anything is sent: a missing topic or partition, a record that is too large.
    async fn check_records(&self, topic: &str, records: &[NewRecord]) -> Result<()> {
        let most = records.iter().filter_map(|record| record.partition).max().unwrap_or(0);
        if self.sender.find_partitions(topic).is_none_or(|partitions| partitions <= most) {
            let (control, name) = (self.control.clone(), topic.to_owned());
            let partitions = blocking(move || control.partitions(&name)).await?;
            if partitions <= most {
                return Err(Error::stop(format!("topic {topic} has no partition {most}: it has {partitions}")));
            }
            self.sender.set_partitions(topic, Some(partitions));
        }
        let limit = self.settings.max_record_bytes();
        match records.iter().map(record_bytes).find(|bytes| bytes + RECORD_OVERHEAD_BYTES > limit) {
            Some(bytes) => Err(Error::poison(format!(
                "a record for topic {topic} has {bytes} bytes: more than the {limit} that are ever sent"
            ))),
            None => Ok(()),
        }
    }

    async fn send_error(&self, client: &Client, topic: &str, code: Code) -> Error {
        match code {
            Code::MessageSizeTooLarge => {
                let limit = self.topic_setting(topic, "max.message.bytes").await;
                let limit = limit.unwrap_or_else(|| "unknown".to_owned());
                Error::poison(format!(
                    "a record is larger than topic {topic} takes: its `max.message.bytes` is {limit}, compressed"
                ))
            }
            Code::InvalidTimestamp => Error::stop(format!(
                "topic {topic} refuses the timestamp of a record: let the brokers stamp its records \
                 (`message.timestamp.type=LogAppendTime`), or raise its `message.timestamp.before.max.ms` and \
                 `message.timestamp.after.max.ms`"
            )),
            Code::InvalidRecord => Error::stop(format!(
                "topic {topic} refuses a record, as a compacted topic (`cleanup.policy`) refuses one without a key"
            )),
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                self.sender.set_partitions(topic, None);
                client.context().0.missing_topic(topic)
            }
            code => client.context().0.failure(&format!("writing to topic {topic}"), code),
        }
    }
}

/// How many bytes a record has in a request of its own, not compressed, with every number at its longest (message format 2).
fn sent_bytes(record: &NewRecord) -> usize {
    record_bytes(record) + 100 + 10 * record.headers.len()
}

fn record_bytes(record: &NewRecord) -> usize {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    length(&record.key) + length(&record.value) + headers
}
