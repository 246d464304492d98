//! Makes and sends the transactions of `pipelines/bank`.

use std::{ops::Range, path::Path};

use millstream_core::{Compression, Log, NewRecord, Position, Producer, TopicPartition, Topics};
use millstream_kafka::{Kafka, KafkaSettings, Profile};
use millstream_pipeline::Pipeline;

use millstream_ingest::Events;

use crate::{Failure, Place};

/// Events per second of event time: this decides how many fall into one 2-second window.
pub const EVENTS_PER_S: u64 = 10_000;

/// Of a topic, where nothing else is said.
pub const PARTITIONS: i32 = 3;

const PORTION: u64 = 20_000;
/// 2026-01-01T00:00:00Z.
const FIRST_US: i64 = 1_767_225_600_000_000;

/// The bank pipeline with its own topic, and a line about its batches. Each run has its own name, so that its consumer
/// group doesn't wait for members of an earlier run.
pub fn pipeline_text(name: &str, topic: &str, partitions: i32, batch: &str) -> String {
    format!(
        r#"name: {name}
topics:
  {topic}:
    partitions: {partitions}
    schema: {{ branch: string not null, currency: string not null, amount: "decimal(18,2) not null", at: timestamp not null }}
    event_time: at
functions:
  generate:
    uses: ingest
    generate:
      rate_per_s: 1000
      fields:
        branch: {{ one_of: [Amsterdam, Bruges, Geneva, Lisbon, Oslo, Prague, Vienna, Zurich] }}
        currency: {{ one_of: [EUR, USD, GBP, CHF, NOK] }}
        amount: {{ decimal: {{ min: 0.01, max: 10000 }} }}
        at: now
    into: topic.{topic}
  flow:
    uses: aggregate
    from: {topic}
    sql: |
      SELECT tumble(at, INTERVAL '2 seconds') AS curr_time, branch AS branch_name, currency AS currency_code,
             sum(amount) AS batch_value
      FROM {topic} GROUP BY 1, 2, 3
    into: postgres.transaction_flow
{batch}"#
    )
}

/// Writes a pipeline into `folder`, and creates the topic of its dead letters like `millstream up`.
pub async fn write_pipeline(place: &Place, folder: &Path, name: &str, text: &str) -> Result<(), Failure> {
    std::fs::write(folder.join("pipeline.yaml"), text)?;
    kafka(&place.brokers)?.create_topic(&format!("{name}.dead-letters"), 1, &[]).await?;
    Ok(())
}

/// Is this record broken, if one in `broken_every` is?
pub fn is_broken(number: u64, broken_every: u64) -> bool {
    broken_every > 0 && number % broken_every == broken_every / 2
}

/// How many dead letters a pipeline has.
pub async fn dead_letters(place: &Place, name: &str) -> Result<u64, Failure> {
    let partition = TopicPartition::new(format!("{name}.dead-letters"), 1, 0);
    Ok(kafka(&place.brokers)?.watermarks(&partition).await?.high as u64)
}

pub fn kafka(brokers: &str) -> Result<Kafka, Failure> {
    compressing(brokers, Compression::Gzip)
}

fn compressing(brokers: &str, compression: Compression) -> Result<Kafka, Failure> {
    Ok(Kafka::new(KafkaSettings {
        brokers: brokers.to_owned(),
        config: Default::default(),
        profile: Profile::Default,
        compression,
        client_id: "bench".into(),
    })?)
}

pub fn events(topic: &str, seed: u64) -> Result<Events, Failure> {
    let pipeline = Pipeline::parse(&pipeline_text("fill", topic, PARTITIONS, ""), "pipeline.yaml".as_ref())?;
    let making = pipeline.functions["generate"].making().ok_or("the function `generate` makes no records")?;
    Ok(Events::new(&pipeline.topics[topic], making, seed)?)
}

/// Makes transactions, 10,000 for each second of event time. One in `broken_every` is truncated.
pub fn transactions(
    topic: &str,
    broken_every: u64,
) -> Result<impl FnMut(Range<u64>) -> Result<Vec<NewRecord>, Failure> + Send + use<>, Failure> {
    let mut events = events(topic, 1)?;
    Ok(move |numbers: Range<u64>| {
        let mut records = Vec::with_capacity(PORTION as usize);
        for first in numbers.clone().step_by(1_000) {
            let chunk = 1_000.min(numbers.end - first) as usize;
            records.extend(events.next(chunk, FIRST_US + (first * 1_000_000 / EVENTS_PER_S) as i64)?);
        }
        for (number, record) in numbers.zip(&mut records) {
            if is_broken(number, broken_every)
                && let Some(value) = &mut record.value
            {
                value.truncate(20);
            }
        }
        Ok(records)
    })
}

/// Creates a topic of 3 partitions with so many gzip transactions.
pub async fn bank(place: &Place, topic: &str, count: u64) -> Result<(), Failure> {
    send(place, topic, (PARTITIONS, Compression::Gzip), count, transactions(topic, 0)?).await
}

/// Creates the topic, and sends `count` records in turns to each of its partitions. `make` makes the records with these numbers.
pub async fn send(
    place: &Place,
    topic: &str,
    (partitions, compression): (i32, Compression),
    count: u64,
    mut make: impl FnMut(Range<u64>) -> Result<Vec<NewRecord>, Failure>,
) -> Result<(), Failure> {
    let kafka = compressing(&place.brokers, compression)?;
    kafka.create_topic(topic, partitions, &[]).await?;
    let mut sent = 0;
    let mut waiting: Option<tokio::task::JoinHandle<millstream_core::Result<Vec<Position>>>> = None;
    while sent < count {
        let numbers = sent..count.min(sent + PORTION);
        let mut records = make(numbers.clone())?;
        for (number, record) in numbers.clone().zip(&mut records) {
            record.partition = Some((number % partitions as u64) as i32);
        }
        sent = numbers.end;
        // The next portion is made while this one is being sent.
        if let Some(waiting) = waiting.take() {
            waiting.await??;
        }
        let (kafka, topic) = (kafka.clone(), topic.to_owned());
        waiting = Some(tokio::spawn(async move { kafka.send(&topic, records).await }));
    }
    if let Some(waiting) = waiting {
        waiting.await??;
    }
    Ok(())
}
