//! The event with which Lambda's mappings for MSK and for self-managed Kafka call a function, and the answer to it.
//!
//! Both are described in <https://docs.aws.amazon.com/lambda/latest/dg/with-msk.html> and
//! <https://docs.aws.amazon.com/lambda/latest/dg/kafka-retry-configurations.html>.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use millstream_core::{Batch, BatchBuilder, Error, Result, Subscription, TopicPartition};
use serde::{Deserialize, Serialize};

/// What Lambda hands over: records by `topic-partition`.
///
/// Not the type of `aws_lambda_events`: that one takes a timestamp through a float and cuts it, so that half of all
/// timestamps come out a millisecond early, and a window would hold other records than on another host.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KafkaEvent {
    /// `aws:kafka` or `SelfManagedKafka`.
    #[serde(default)]
    pub event_source: String,
    /// The records of each `topic-partition`.
    #[serde(default)]
    pub records: BTreeMap<String, Vec<KafkaRecord>>,
}

/// A record as Lambda writes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KafkaRecord {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The key in base64, where there is one.
    pub key: Option<String>,
    /// The value in base64; a tombstone has no value.
    pub value: Option<String>,
    /// Each header as an object of one field, whose bytes are signed numbers.
    pub headers: Option<Vec<BTreeMap<String, Vec<i16>>>>,
}

/// The answer: what must be delivered again. An empty list says that everything is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    /// One entry per partition that is not done.
    pub batch_item_failures: Vec<BatchItemFailure>,
}

/// A partition that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchItemFailure {
    /// From where on.
    pub item_identifier: ItemIdentifier,
}

/// The first record to be delivered again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ItemIdentifier {
    /// `topic-partition`, as the event names it.
    pub partition: String,
    /// The record's offset.
    pub offset: i64,
}

/// The records of one partition of an event, under the name that the event gives it.
#[derive(Clone, Debug)]
pub struct NamedBatch {
    /// `topic-partition`.
    pub name: String,
    /// Its records.
    pub batch: Batch,
}

impl KafkaEvent {
    /// The event as one batch per partition, in offset order; a record that comes twice is kept once. `subscription` holds
    /// every topic that the function reads.
    ///
    /// # Errors
    /// `Stop` when the event is not of Kafka, holds a topic that the function does not read, or a record that can't be
    /// read; nothing of it is processed then.
    pub fn into_batches(self, subscription: &Subscription) -> Result<Vec<NamedBatch>> {
        if !matches!(self.event_source.as_str(), "aws:kafka" | "SelfManagedKafka") {
            return Err(Error::stop(format!(
                "this function takes events of Kafka (eventSource aws:kafka or SelfManagedKafka), not of {:?}: correct \
                 its event source mapping",
                self.event_source
            )));
        }
        let batches = self.records.into_iter().map(|(name, records)| {
            let batch = batch(&name, records, subscription)?;
            Ok(batch.map(|batch| NamedBatch { name, batch }))
        });
        batches.filter_map(Result::transpose).collect()
    }
}

/// The records of one partition as a batch; `None` when there are none.
fn batch(name: &str, mut records: Vec<KafkaRecord>, subscription: &Subscription) -> Result<Option<Batch>> {
    let Some(first) = records.first() else { return Ok(None) };
    let Some(generation) = subscription.generation(&first.topic) else {
        let read = subscription.topics.iter().map(|(topic, _)| topic.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Error::stop(format!(
            "the event holds topic {}, which this function does not read (it reads {read}): correct the event source \
             mapping or the pipeline file",
            first.topic
        )));
    };
    let partition = TopicPartition::new(&first.topic, generation, first.partition);
    records.sort_by_key(|record| record.offset);
    let mut builder = BatchBuilder::new(partition.clone());
    for record in &records {
        if record.topic != partition.topic || record.partition != partition.partition {
            return Err(Error::stop(format!(
                "the event holds a record of {}-{} under the name {name}",
                record.topic, record.partition
            )));
        }
        push(&mut builder, record).map_err(|error| error.context(partition.at(record.offset)))?;
    }
    Ok(builder.finish_pushed())
}

fn push(builder: &mut BatchBuilder, record: &KafkaRecord) -> Result<()> {
    let (key, value) = (decode("key", record.key.as_deref())?, decode("value", record.value.as_deref())?);
    let mut headers = Vec::new();
    for (name, bytes) in record.headers.iter().flatten().flatten() {
        headers.push((name.as_str(), bytes.iter().map(byte).collect::<Result<Vec<_>>>()?));
    }
    let headers = headers.iter().map(|(name, bytes)| (*name, bytes.as_slice()));
    builder.push(record.offset, record.timestamp, key.as_deref(), value.as_deref(), headers);
    Ok(())
}

fn decode(what: &str, text: Option<&str>) -> Result<Option<Vec<u8>>> {
    let bytes = text.map(|text| STANDARD.decode(text)).transpose();
    // The error beneath quotes a byte of the data, so it is left out.
    bytes.map_err(|_| Error::stop(format!("the {what} in the event is not base64")))
}

/// Lambda writes a header's byte as Java does, from -128 to 127; 128 to 255 can mean nothing else than themselves.
fn byte(number: &i16) -> Result<u8> {
    match *number {
        -128..=255 => Ok(*number as u8),
        other => Err(Error::stop(format!("a header of the event holds {other}, which is not a byte"))),
    }
}
