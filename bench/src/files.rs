//! W2: a backlog of nested positions, as `pipelines/iss` has them → flattened Parquet on an S3, beside a bare consumer.

use std::{path::Path, process::Command, time::Duration};

use millstream_core::{Compression, Env, NewRecord, Sink as _, Table, TopicPartition};
use millstream_lake::{LakeSink, Opened};
use object_store::ObjectStore as _;

use crate::{
    Failure, Place,
    drain::{PATIENCE, floor, in_turns},
    fill,
    process::Measured,
    table::{Row, Run, Side, compare},
};

const PARTITIONS: i32 = 3;
/// How often the fences are asked for: each is a request to the store, which shares the machine.
const POLL: Duration = Duration::from_millis(50);
const TABLE: &str = "parquet_files";
/// 2026-01-01T00:00:00Z.
const FIRST_S: u64 = 1_767_225_600;

/// A file of the table.
struct File {
    bytes: u64,
    rows: usize,
}

pub async fn w2(place: &Place, events: u64, rounds: usize) -> Result<Vec<Row>, Failure> {
    let topic = format!("w2_{}_{events}", std::process::id());
    let gzip = (PARTITIONS, Compression::Gzip);
    fill::send(place, &topic, gzip, events, |numbers| Ok(numbers.map(position).collect())).await?;
    // The first reader of a topic finds a cold broker, so it is not measured.
    floor(place, &topic, events)?;
    let (mut bare, mut ours) = (Side::new("bare consumer"), Side::new("**millstream archive**"));
    let mut files = Vec::new();
    for round in 0..rounds.max(1) {
        for turn in in_turns(round, 2) {
            if turn == 0 {
                bare.runs.push(floor(place, &topic, events)?);
            } else {
                let (run, written) = archive(place, &topic, events, round).await?;
                ours.runs.push(run);
                files = written;
            }
        }
    }
    let mut rows = compare("W2, nested events to Parquet on S3", events, &[bare, ours]);
    let sizes = || files.iter().map(|file| file.bytes as f64 / 1024.0);
    rows.push(Row {
        what: format!("W2: {} files of the last round", files.len()),
        median: format!("{:.1} MiB", sizes().sum::<f64>() / 1024.0),
        spread: format!("{:.0}–{:.0} KiB", sizes().fold(f64::INFINITY, f64::min), sizes().fold(0.0, f64::max)),
        ..Row::default()
    });
    Ok(rows)
}

/// The position of this number: a point that moves, as open-notify writes it.
fn position(number: u64) -> NewRecord {
    let turn = number as f64 * 5.0 / 5_574.0 * std::f64::consts::TAU;
    let (latitude, longitude) = (51.64 * turn.sin(), (number as f64 * 0.32) % 360.0 - 180.0);
    let value = format!(
        r#"{{"iss_position": {{"latitude": "{latitude:.4}", "longitude": "{longitude:.4}"}}, "timestamp": {}, "message": "success"}}"#,
        FIRST_S + number * 5
    );
    NewRecord { value: Some(value.into_bytes()), ..NewRecord::default() }
}

fn pipeline_text(name: &str, topic: &str) -> String {
    format!(
        r#"name: {name}
topics:
  {topic}:
    partitions: {PARTITIONS}
    schema:
      iss_position: {{ latitude: string not null, longitude: string not null }}
      timestamp: timestamp(s) not null
      message: string
    event_time: timestamp
functions:
  archive:
    uses: archive
    from: {topic}
    sql: |
      SELECT "timestamp" AS at,
             CAST(iss_position['latitude'] AS decimal(7,4)) AS latitude,
             CAST(iss_position['longitude'] AS decimal(7,4)) AS longitude,
             _partition, _offset
      FROM {topic}
      WHERE message = 'success' AND iss_position IS NOT NULL
    into: lake.{TABLE}
    # The end of the backlog would wait for more records, ten seconds long.
    batch: {{ max_wait: 200ms }}
"#
    )
}

/// Runs the function until its fences are at the topic's end.
async fn archive(place: &Place, topic: &str, events: u64, round: usize) -> Result<(Run, Vec<File>), Failure> {
    let (name, folder) = (format!("{topic}_{round}"), tempfile::tempdir()?);
    std::fs::write(folder.path().join("pipeline.yaml"), pipeline_text(&name, topic))?;
    let store = store(&name)?;
    let lake = millstream_lake::open(&store[0].1, &Env::of(store.clone()))?;
    // Like `millstream up`.
    let kafka = fill::kafka(&place.brokers)?;
    millstream_core::Topics::create_topic(&kafka, &format!("{name}.dead-letters"), 1, &[]).await?;
    let measured = Measured::start(process(place, folder.path())?.envs(store))?;
    let run = until_written(&lake, &name, topic, events, measured).await?;
    match fill::dead_letters(place, &name).await? {
        0 => Ok((run, written(&lake, events).await?)),
        letters => Err(format!("{letters} dead letters").into()),
    }
}

/// The variables of a lake of its own in the S3 of the tests; the first is its address.
fn store(name: &str) -> Result<Vec<(String, String)>, Failure> {
    let needed = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set: run bench/run"));
    Ok(vec![
        ("MILLSTREAM_LAKE_URL".into(), format!("s3://{}/{name}", needed("MILLSTREAM_TEST_BUCKET")?)),
        ("AWS_ENDPOINT_URL".into(), needed("MILLSTREAM_TEST_S3")?),
        ("AWS_ACCESS_KEY_ID".into(), needed("MILLSTREAM_TEST_S3_KEY")?),
        ("AWS_SECRET_ACCESS_KEY".into(), needed("MILLSTREAM_TEST_S3_SECRET")?),
    ])
}

fn process(place: &Place, folder: &Path) -> Result<Command, Failure> {
    let mut command = Command::new(place.binary("archive")?);
    command
        .env("MILLSTREAM_PIPELINE", folder)
        .env("MILLSTREAM_FUNCTION", "archive")
        .env("MILLSTREAM_KAFKA_BROKERS", &place.brokers)
        .env("MILLSTREAM_DATA_DIR", folder)
        .env("MILLSTREAM_LOG", "warn");
    Ok(command)
}

async fn until_written(
    lake: &Opened,
    name: &str,
    topic: &str,
    events: u64,
    mut measured: Measured,
) -> Result<Run, Failure> {
    // Another function finds no fences.
    let function = format!("{name}.archive");
    let table = Table { name: TABLE.into(), columns: Vec::new(), combine: None, view: None };
    loop {
        measured.alive()?;
        // A new reader each time: one that has seen a chain remembers where it was.
        let reader = LakeSink::new(lake.store.clone(), lake.root.clone(), &function, table.clone());
        let mut done = 0;
        for number in 0..PARTITIONS {
            let fence = reader.fence(&TopicPartition::new(topic, 1, number)).await?;
            done += fence.map_or(0, |fence| fence.next_offset);
        }
        if done as u64 >= events {
            let seconds = measured.elapsed().as_secs_f64();
            return Ok(Run { seconds, usage: measured.usage()?, first_row_s: 0.0 });
        }
        if measured.elapsed() > PATIENCE {
            return Err(format!("{done} of {events} records after {PATIENCE:?}").into());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The table's files; an error unless they have as many rows as there are events.
async fn written(lake: &Opened, events: u64) -> Result<Vec<File>, Failure> {
    let folder = lake.root.clone().join(TABLE);
    let listed = lake.store.list_with_delimiter(Some(&folder)).await?;
    let mut files = Vec::new();
    for day in listed.common_prefixes.iter().filter(|path| path.filename().is_some_and(|name| name.contains('='))) {
        for object in lake.store.list_with_delimiter(Some(day)).await?.objects {
            let batches = millstream_lake::read_parquet(lake.store.as_ref(), &object.location).await?;
            files.push(File { bytes: object.size, rows: batches.iter().map(|batch| batch.num_rows()).sum() });
        }
    }
    // A turn from one day to the next has no rows.
    files.retain(|file| file.rows > 0);
    match files.iter().map(|file| file.rows).sum::<usize>() as u64 {
        rows if rows == events => Ok(files),
        rows => Err(format!("{rows} rows instead of {events}").into()),
    }
}
