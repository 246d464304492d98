//! W3: a backlog of transactions → filtered and joined with a reference → another topic, beside a bare loop that consumes and
//! produces with the same settings.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    Failure, Place,
    drain::{PATIENCE, floor, in_turns},
    fill,
    process::Measured,
    table::{Row, Run, Side, compare},
};
use millstream_core::{Log as _, TopicPartition, Topics as _};
use millstream_kafka::Kafka;

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

pub async fn w3(place: &Place, events: u64, rounds: usize) -> Result<Vec<Row>, Failure> {
    let topic = format!("w3_{}_{events}", std::process::id());
    fill::bank(place, &topic, events).await?;
    // The first reader of a topic finds a cold broker, so it is not measured.
    floor(place, &topic, events)?;
    let (mut bare, mut ours) = (Side::new("bare loop"), Side::new("**millstream transform**"));
    for round in 0..rounds.max(1) {
        for turn in in_turns(round, 2) {
            match turn {
                0 => bare.runs.push(bare_loop(place, &topic, events, round).await?),
                _ => ours.runs.push(transform(place, &topic, events, round).await?),
            }
        }
    }
    Ok(compare("W3, topic to topic with a join", events, &[bare, ours]))
}

async fn bare_loop(place: &Place, topic: &str, events: u64, round: usize) -> Result<Run, Failure> {
    let (kafka, into) = (fill::kafka(&place.brokers)?, format!("{topic}_loop_{round}"));
    kafka.create_topic(&into, PARTITIONS, &[]).await?;
    let mut command = Command::new(place.binary("bare")?);
    command.args(["hop", &place.brokers, topic, &into, &events.to_string()]).stdout(Stdio::null());
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
