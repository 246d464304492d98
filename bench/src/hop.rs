//! W3: a backlog of transactions → filtered and joined with a reference → another topic, beside a bare loop that consumes and
//! produces with the same settings.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use millstream_core::{Log as _, TopicPartition, Topics as _};
use millstream_kafka::Kafka;
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};

use crate::{
    Failure, Place,
    drain::{PATIENCE, Run, line, median},
    fill,
    process::Measured,
};

/// How often the end of the topic is asked for.
const POLL: Duration = Duration::from_millis(20);

const PARTITIONS: i32 = 3;

const BRANCHES: &str =
    "name,country\nAmsterdam,NL\nBruges,BE\nGeneva,CH\nLisbon,PT\nOslo,NO\nPrague,CZ\nVienna,AT\nZurich,CH\n";

/// Every record of the backlog passes the filter, so that both sides write as many.
fn pipeline_text(name: &str, topic: &str) -> String {
    let fields = r#"branch: string not null, currency: string not null, amount: "decimal(18,2) not null", at: timestamp not null"#;
    format!(
        r#"name: {name}
topics:
  {topic}: {{ partitions: {PARTITIONS}, schema: {{ {fields} }} }}
  {name}.out: {{ partitions: {PARTITIONS}, compression: lz4, schema: {{ country: string, {fields} }} }}
functions:
  hop:
    uses: transform
    from: {topic}
    sql: |
      SELECT b.country, t.branch, t.currency, t.amount, t.at
      FROM {topic} t JOIN branches b ON b.name = t.branch WHERE t.currency <> 'XXX'
    into: topic.{name}.out
references:
  branches: {{ file: branches.csv, schema: {{ name: string, country: string }} }}
"#
    )
}

pub async fn w3(place: &Place, events: u64, rounds: usize) -> Result<(), Failure> {
    let topic = format!("w3_{}_{events}", std::process::id());
    fill::topic(&place.brokers, &topic, events, 0).await?;
    let (mut loops, mut hops) = (Vec::new(), Vec::new());
    for round in 0..rounds.max(1) {
        loops.push(bare_loop(place, &topic, events, round).await?);
        hops.push(transform(place, &topic, events, round).await?);
    }
    let (bare, hop) = (median(loops), median(hops));
    println!(
        "W3: {events} events from topic to topic, median of {rounds}, from start of the process to the last record"
    );
    line(events, "bare loop", &bare);
    line(events, "millstream transform", &hop);
    let (rate, cpu) = (100.0 * bare.seconds / hop.seconds, hop.usage.cpu_s / bare.usage.cpu_s);
    println!("ratio: {rate:.0} % of the bare loop's rate, {cpu:.2} times its CPU");
    Ok(())
}

async fn bare_loop(place: &Place, topic: &str, events: u64, round: usize) -> Result<Run, Failure> {
    let (kafka, into) = (fill::kafka(&place.brokers)?, format!("{topic}_loop_{round}"));
    kafka.create_topic(&into, PARTITIONS, &[]).await?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["loop", &place.brokers, topic, &into, &events.to_string()]).stdout(Stdio::null());
    until_written(&kafka, &into, events, Measured::start(&mut command)?).await
}

async fn transform(place: &Place, topic: &str, events: u64, round: usize) -> Result<Run, Failure> {
    let (kafka, name, folder) = (fill::kafka(&place.brokers)?, format!("{topic}_{round}"), tempfile::tempdir()?);
    std::fs::write(folder.path().join("pipeline.yaml"), pipeline_text(&name, topic))?;
    std::fs::write(folder.path().join("branches.csv"), BRANCHES)?;
    // Like `millstream up`.
    let (into, letters) = (format!("{name}.out"), format!("{name}.dead-letters"));
    kafka.create_topic(&letters, 1, &[("cleanup.policy", "compact")]).await?;
    kafka.create_topic(&into, PARTITIONS, &[]).await?;
    kafka.create_topic(&format!("{name}.fences"), 1, &[("cleanup.policy", "compact")]).await?;
    kafka.create_topic(&format!("{name}.outbox"), PARTITIONS, &[("cleanup.policy", "compact")]).await?;
    let run = until_written(&kafka, &into, events, Measured::start(&mut process(place, folder.path())?)?).await?;
    match kafka.watermarks(&TopicPartition::new(letters, 1, 0)).await?.high {
        0 => Ok(run),
        letters => Err(format!("{letters} dead letters").into()),
    }
}

fn process(place: &Place, folder: &Path) -> Result<Command, Failure> {
    let mut command = Command::new(place.binary("transform")?);
    command
        .env("MILLSTREAM_PIPELINE", folder)
        .env("MILLSTREAM_FUNCTION", "hop")
        .env("MILLSTREAM_KAFKA_BROKERS", &place.brokers)
        .env("MILLSTREAM_DATA_DIR", folder)
        .env("MILLSTREAM_LOG", "warn");
    Ok(command)
}

/// Waits until the topic has as many records as there are events.
async fn until_written(kafka: &Kafka, topic: &str, events: u64, mut measured: Measured) -> Result<Run, Failure> {
    loop {
        measured.alive()?;
        let mut written = 0;
        for number in 0..PARTITIONS {
            written += kafka.watermarks(&TopicPartition::new(topic, 1, number)).await?.high;
        }
        if written as u64 >= events {
            let seconds = measured.elapsed().as_secs_f64();
            let usage = measured.usage()?;
            return if written as u64 == events {
                Ok(Run { seconds, usage, first_row_s: 0.0 })
            } else {
                Err(format!("{written} records instead of {events}").into())
            };
        }
        if measured.elapsed() > PATIENCE {
            return Err(format!("{written} of {events} records after {PATIENCE:?}").into());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Consumes `records` records and produces each to the partition of its number, with the settings of a topic sink's producer.
pub fn consume_and_produce(brokers: &str, from: &str, into: &str, records: u64) -> Result<(), Failure> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("loop-{}", std::process::id()))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()?;
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "65536")
        .create()?;
    consumer.subscribe(&[from])?;
    let mut seen = 0;
    while seen < records {
        let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
        let message = message?;
        let mut record = BaseRecord::<[u8], [u8]>::to(into).partition(message.partition());
        (record.payload, record.key) = (message.payload(), message.key());
        record.timestamp = message.timestamp().to_millis();
        while let Err((error, refused)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            record = refused;
            std::thread::park_timeout(Duration::from_millis(5));
        }
        seen += 1;
    }
    producer.flush(Duration::from_secs(60))?;
    loop {
        std::thread::park();
    }
}
