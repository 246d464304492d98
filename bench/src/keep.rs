//! W4: a backlog of transactions → rows of an event store in Cassandra, beside a bare driver that only inserts as many rows.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use millstream_core::Topics as _;
use scylla::{
    client::{session::Session, session_builder::SessionBuilder},
    value::{CqlDecimal, CqlTimestamp},
};

use crate::{
    Failure, Place,
    drain::{PATIENCE, Run, line, median},
    fill,
    process::Measured,
};

const PARTITIONS: i64 = 3;
/// How many inserts are in flight at once: as many as the event store's.
const AT_ONCE: usize = 128;
/// Rows in a partition of the table: as in the event store.
const BUCKET: i64 = 10_000;
const POLL: Duration = Duration::from_millis(50);

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

pub async fn w4(place: &Place, cassandra: &str, events: u64, rounds: usize) -> Result<(), Failure> {
    let topic = format!("w4_{}_{events}", std::process::id());
    fill::topic(&place.brokers, &topic, events, 0).await?;
    let session = SessionBuilder::new().known_node(cassandra).build().await?;
    let (mut bares, mut stores) = (Vec::new(), Vec::new());
    for round in 0..rounds.max(1) {
        bares.push(inserts(&session, cassandra, &format!("{topic}_bare_{round}"), events).await?);
        stores.push(store(place, &session, cassandra, &topic, events, round).await?);
    }
    let (bare, store) = (median(bares), median(stores));
    println!("W4: {events} events into Cassandra, median of {rounds}, from start of the process to the last row");
    line(events, "bare driver, inserts", &bare);
    line(events, "millstream store", &store);
    let (rate, cpu) = (100.0 * bare.seconds / store.seconds, store.usage.cpu_s / bare.usage.cpu_s);
    println!("ratio: {rate:.0} % of the bare driver's rate, {cpu:.2} times its CPU");
    Ok(())
}

async fn keyspace(session: &Session, name: &str) -> Result<(), Failure> {
    let create =
        format!("CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}");
    session.query_unpaged(create, ()).await?;
    Ok(())
}

async fn inserts(session: &Session, cassandra: &str, name: &str, events: u64) -> Result<Run, Failure> {
    keyspace(session, name).await?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["inserts", cassandra, name, &events.to_string()]).stdout(Stdio::piped());
    let mut measured = Measured::start(&mut command)?;
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(measured.stdout()?), &mut said)?;
    if !said.starts_with("inserted") {
        return Err("the bare driver inserted too little".into());
    }
    Ok(Run { seconds: measured.elapsed().as_secs_f64(), usage: measured.usage()?, first_row_s: 0.0 })
}

/// Inserts `rows` rows of the shape of an event store's, and waits to be killed.
pub async fn insert(cassandra: &str, keyspace: &str, rows: u64) -> Result<(), Failure> {
    let session = SessionBuilder::new().known_node(cassandra).build().await?;
    session
        .query_unpaged(
            format!(
                "CREATE TABLE {keyspace}.kept (topic text, generation int, part int, bucket bigint, \"offset\" bigint, time timestamp, \
                 branch text, currency text, amount decimal, at bigint, PRIMARY KEY ((topic, generation, part, bucket), \"offset\"))"
            ),
            (),
        )
        .await?;
    let insert = format!(
        "INSERT INTO {keyspace}.kept (topic, generation, part, bucket, \"offset\", time, branch, currency, amount, at) VALUES \
         (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    );
    let mut insert = session.prepare(insert).await?;
    insert.set_is_idempotent(true);
    let (session, insert) = (Arc::new(session), Arc::new(insert));
    let one = |row: u64| {
        let (session, insert) = (Arc::clone(&session), Arc::clone(&insert));
        async move {
            let (partition, offset) = (row as i64 % PARTITIONS, row as i64 / PARTITIONS);
            let amount =
                CqlDecimal::from_signed_be_bytes_slice_and_exponent(&(row as u32 % 1_000_000).to_be_bytes(), 2);
            let time = CqlTimestamp(1_767_225_600_000 + row as i64 / 10);
            let at_us = 1_767_225_600_000_000 + row as i64 * 100;
            let values =
                ("w4", 1_i32, partition as i32, offset / BUCKET, offset, time, "Amsterdam", "EUR", amount, at_us);
            session.execute_unpaged(&insert, values).await.map(drop)
        }
    };
    stream::iter((0..rows).map(one)).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    println!("inserted {rows} rows");
    loop {
        std::thread::park();
    }
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
            return Ok(run);
        }
        if measured.elapsed() > PATIENCE {
            return Err(format!("{done} of {events} rows after {PATIENCE:?}").into());
        }
        tokio::time::sleep(POLL).await;
    }
}
