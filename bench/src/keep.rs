//! W4: a backlog of transactions → rows of an event store in Cassandra, beside a bare driver that only inserts as many rows.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use millstream_core::Topics as _;
use scylla::client::{session::Session, session_builder::SessionBuilder};

use crate::{
    Failure, Place,
    drain::{PATIENCE, in_turns},
    fill,
    process::Measured,
    table::{Row, Run, Side, compare},
};

const PARTITIONS: i32 = 3;
const POLL: Duration = Duration::from_millis(50);
/// Offsets in a partition of the event store.
const BUCKET: i64 = 10_000;

fn pipeline_text(name: &str, topic: &str) -> String {
    format!(
        r#"name: {name}
topics:
  {topic}:
    partitions: {PARTITIONS}
    schema: {{ branch: string not null, currency: string not null, amount: "decimal(18,2) not null", at: timestamp not null }}
functions:
  keep: {{ uses: store, from: {topic}, into: cassandra.kept }}
"#
    )
}

pub async fn w4(place: &Place, cassandra: &str, events: u64, rounds: usize) -> Result<Vec<Row>, Failure> {
    let topic = format!("w4_{}_{events}", std::process::id());
    fill::bank(place, &topic, events).await?;
    let session = SessionBuilder::new().known_node(cassandra).build().await?;
    let (mut bare, mut ours) = (Side::new("bare driver, inserts"), Side::new("**millstream store**"));
    for round in 0..rounds.max(1) {
        for turn in in_turns(round, 2) {
            match turn {
                0 => {
                    bare.runs.push(inserts(place, &session, cassandra, &format!("{topic}_bare_{round}"), events).await?)
                }
                _ => ours.runs.push(store(place, &session, cassandra, &topic, events, round).await?),
            }
        }
    }
    Ok(compare("W4, rows into Cassandra", events, &[bare, ours]))
}

async fn keyspace(session: &Session, name: &str) -> Result<(), Failure> {
    let create =
        format!("CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}");
    session.query_unpaged(create, ()).await?;
    Ok(())
}

async fn inserts(place: &Place, session: &Session, cassandra: &str, name: &str, events: u64) -> Result<Run, Failure> {
    keyspace(session, name).await?;
    let mut command = Command::new(place.binary("bare")?);
    command.args(["insert", cassandra, name, &events.to_string()]).stdout(Stdio::piped());
    let mut measured = Measured::start(&mut command)?;
    let mut said = String::new();
    BufReader::new(measured.stdout()?).read_line(&mut said)?;
    if !said.starts_with("inserted") {
        return Err("the bare driver inserted too little".into());
    }
    Ok(Run { seconds: measured.elapsed().as_secs_f64(), usage: measured.usage()?, first_row_s: 0.0 })
}

async fn store(
    place: &Place,
    session: &Session,
    cassandra: &str,
    topic: &str,
    events: u64,
    round: usize,
) -> Result<Run, Failure> {
    let (kafka, name, folder) = (fill::kafka(&place.brokers)?, format!("{topic}_{round}"), tempfile::tempdir()?);
    keyspace(session, &name).await?;
    std::fs::write(folder.path().join("pipeline.yaml"), pipeline_text(&name, topic))?;
    kafka.create_topic(&format!("{name}.dead-letters"), 1, &[]).await?;
    let mut command = Command::new(place.binary("store")?);
    command
        .env("MILLSTREAM_PIPELINE", folder.path())
        .env("MILLSTREAM_KAFKA_BROKERS", &place.brokers)
        .env("MILLSTREAM_CASSANDRA_CONTACT_POINTS", cassandra)
        .env("MILLSTREAM_CASSANDRA_KEYSPACE", &name)
        .env("MILLSTREAM_DATA_DIR", folder.path())
        .env("MILLSTREAM_LOG", "warn");
    let mut measured = Measured::start(&mut command)?;
    loop {
        measured.alive()?;
        let fences = format!("SELECT next_offset FROM {name}.millstream_fences WHERE function = '{name}.keep'");
        let mut done = 0;
        if let Ok(answer) = session.query_unpaged(fences, ()).await {
            for row in answer.into_rows_result()?.rows::<(i64,)>()? {
                done += row?.0.max(0);
            }
        }
        if done as u64 >= events {
            let run = Run { seconds: measured.elapsed().as_secs_f64(), usage: measured.usage()?, first_row_s: 0.0 };
            check(session, &name, topic, events).await?;
            return match fill::dead_letters(place, &name).await? {
                0 => Ok(run),
                letters => Err(format!("{letters} dead letters").into()),
            };
        }
        if measured.elapsed() > PATIENCE {
            return Err(format!("{done} of {events} rows after {PATIENCE:?}").into());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Has the table a row of each event?
async fn check(session: &Session, keyspace: &str, topic: &str, events: u64) -> Result<(), Failure> {
    let count = format!(
        "SELECT count(*) FROM {keyspace}.kept WHERE \"_topic\" = ? AND \"_generation\" = 1 AND \"_partition\" = ? AND \"_bucket\" = ?"
    );
    let (count, mut rows) = (session.prepare(count).await?, 0);
    for partition in 0..PARTITIONS {
        for bucket in 0..=events as i64 / i64::from(PARTITIONS) / BUCKET {
            let answer = session.execute_unpaged(&count, (topic, partition, bucket)).await?;
            rows += answer.into_rows_result()?.single_row::<(i64,)>()?.0;
        }
    }
    if rows as u64 == events { Ok(()) } else { Err(format!("{rows} rows instead of {events}").into()) }
}
