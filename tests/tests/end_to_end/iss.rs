//! From a polled API over a topic to files and a table, with each function killed again and again: pipelines/iss as it ships,
//! but for its address and its pace.

use std::{
    collections::BTreeSet,
    f64::consts::TAU,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Decimal128Type, Int64Type},
};
use millstream_assembly::audit;
use millstream_core::{Clock as _, SystemClock, TopicPartition};
use millstream_tests::{
    Lake, PATIENCE, Scene, Shipped, Store, kill_within, number_of_kills, postgres_client, unique, until,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

const FUNCTIONS: [(&str, &str); 3] = [("ingest", "positions"), ("archive", "archive"), ("aggregate", "ground_speed")];
const KILLS: usize = 10;
/// Long enough for some polls.
const LIFE_MS: Range<u64> = 300..1_500;
/// One answer of so many is no JSON, and one has no position.
const BROKEN_EVERY: u64 = 60;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/iss")
}

/// An API whose answer number n has the latitude n / 10,000, so that each answer is known again.
struct Api {
    port: u16,
    answered: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Api {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (port, answered) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
        let counted = answered.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let counted = counted.clone();
                tokio::spawn(async move {
                    let mut head = [0; 4096];
                    // One request per connection; a client that was killed has gone.
                    if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                        let body = answer(counted.fetch_add(1, Ordering::Relaxed));
                        let length = body.len();
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                        let _ = stream.write_all((head + &body).as_bytes()).await;
                    }
                });
            }
        });
        Self { port, answered, task }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn has_position(number: u64) -> bool {
    !matches!(number % BROKEN_EVERY, 20 | 40)
}

fn latitude(number: u64) -> String {
    format!("{}.{:04}", number / 10_000, number % 10_000)
}

fn answer(number: u64) -> String {
    let now_s = SystemClock.now_us() / 1_000_000;
    match number % BROKEN_EVERY {
        20 => "<html>busy</html>".to_owned(),
        40 => json!({ "message": "failure", "timestamp": now_s }).to_string(),
        _ => {
            let position = json!({ "latitude": latitude(number), "longitude": "0.0000" });
            json!({ "iss_position": position, "message": "success", "timestamp": now_s }).to_string()
        }
    }
}

/// The pipeline that ships, on topics of its own, polling this address every 100 ms.
async fn scene(store: Store, lake: Lake, port: u16) -> Scene {
    let (name, text) = (unique("iss"), std::fs::read_to_string(folder().join("pipeline.yaml")).unwrap());
    let topic = format!("{name}_project_topic");
    let text = text.split("tests:").next().unwrap();
    let stand_in = text.lines().find(|line| line.contains("stand_in:")).unwrap();
    let mut text = text.replace(stand_in, "");
    for (old, new) in [
        ("name: iss", format!("name: {name}")),
        ("project_topic", topic.clone()),
        ("http://api.open-notify.org/iss-now.json", format!("http://127.0.0.1:{port}/")),
        ("every: 5s", "every: 100ms".to_owned()),
        (
            "into: lake.parquet_files",
            "into: lake.parquet_files\n    batch: { max_records: 5, max_wait: 100ms }".to_owned(),
        ),
    ] {
        assert!(text.contains(old), "{old} is not in the file");
        text = text.replace(old, &new);
    }
    Scene::of(Shipped { store, lake, topic, text: &text, files: &[], variables: &[] }).await
}

/// The offsets and latitudes of the positions in the topic.
async fn in_topic(scene: &Scene) -> Vec<(i64, String)> {
    let (log, partition) = (scene.systems.source(), TopicPartition::new(&scene.topic, 1, 0));
    let held = log.watermarks(&partition).await.unwrap();
    let (mut found, mut next) = (Vec::new(), held.low);
    while next < held.high {
        let batch = log.read(&partition, next..held.high, scene.limits("archive")).await.unwrap();
        for row in 0..batch.len() {
            let value: Value = serde_json::from_slice(batch.values().value(row)).unwrap();
            if value["message"] == "success" {
                let latitude = value["iss_position"]["latitude"].as_str().unwrap().to_owned();
                found.push((batch.offsets().value(row), latitude));
            }
        }
        next = batch.range().end;
    }
    found
}

/// The same from the files of the lake.
fn in_files(batches: &[RecordBatch]) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    for batch in batches {
        let latitudes = batch.column_by_name("latitude").unwrap().as_primitive::<Decimal128Type>();
        let offsets = batch.column_by_name("_offset").unwrap().as_primitive::<Int64Type>();
        found.extend(
            (0..batch.num_rows())
                .map(|row| (offsets.value(row), latitude(u64::try_from(latitudes.value(row)).unwrap()))),
        );
    }
    found.sort();
    found
}

/// How many positions the table of speeds has counted.
async fn counted(scene: &Scene) -> i64 {
    if scene.has_kafka() {
        let sum = "SELECT sum(records)::bigint FROM ground_speed";
        return postgres_client(scene.direct()).await.query_one(sum, &[]).await.unwrap().get(0);
    }
    let (_, batches) = scene.systems.whole_table(&scene.pipeline, "ground_speed").await.unwrap();
    let records = |batch: &RecordBatch| batch.column_by_name("records").unwrap().as_primitive::<Int64Type>().clone();
    batches.iter().flat_map(|batch| records(batch).values().to_vec()).sum()
}

async fn kills(store: Store, lake: Lake, seed: u64) {
    let api = Api::start().await;
    let scene = scene(store, lake, api.port).await;
    let kills = number_of_kills(KILLS);
    let of = |at: usize| kill_within(LIFE_MS, &scene, FUNCTIONS[at], kills, seed + at as u64);
    let (mut ingest, mut archive, mut speed) = tokio::join!(of(0), of(1), of(2));
    let before = in_topic(&scene).await.len();
    until(PATIENCE, "positions after the last kill", async || {
        ingest.assert_runs();
        let now = in_topic(&scene).await.len();
        if now > before + 20 { Ok(()) } else { Err(format!("{now} positions, {before} before")) }
    })
    .await;
    ingest.drain().await;
    for ((_, name), child) in FUNCTIONS[1..].iter().zip([&mut archive, &mut speed]) {
        scene.until_all_in(name, &mut [child]).await;
        child.drain().await;
    }

    let answered = api.answered.load(Ordering::Relaxed);
    let expected: BTreeSet<String> = (0..answered).filter(|number| has_position(*number)).map(latitude).collect();
    let sent = in_topic(&scene).await;
    let distinct: BTreeSet<String> = sent.iter().map(|(_, latitude)| latitude.clone()).collect();
    assert!(distinct.is_subset(&expected), "only positions that were answered are in the topic");
    // A poll is lost only if its process was killed, or asked to end, between the answer and the topic.
    let lost = expected.len() - distinct.len();
    assert!(lost <= kills + 1, "{lost} of {} answers are not in the topic", expected.len());
    // Sent again only where the outcome of a send was unknown: never more than once per process.
    assert!(sent.len() - distinct.len() <= kills + 1, "{} records for {} positions", sent.len(), distinct.len());

    let (_, batches) = scene.systems.whole_table(&scene.pipeline, "archive").await.unwrap();
    assert_eq!(in_files(&batches), sent, "each record of the topic is one row of the files");
    assert_eq!(counted(&scene).await, sent.len() as i64, "each position counts once");
    for (_, name) in &FUNCTIONS[1..] {
        let report = audit(&scene.systems, &scene.pipeline, name).await.unwrap();
        assert!(report.is_clean() && report.dead_letters == 0, "{name}: {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_function_killed_again_and_again_on_kafka_postgres_and_s3() {
    kills(Store::services("iss").await, Lake::S3, 80).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_function_killed_again_and_again_embedded() {
    kills(Store::Embedded, Lake::Folder, 81).await;
}

/// A circular orbit over a sphere that turns: inclination 51.64°, one revolution in 92.9 minutes, one line for each 5 s of it.
#[test]
fn the_stand_in_replays_the_orbit_that_it_says() {
    let (period_s, inclination, turn_s) = (92.9 * 60.0, 51.64_f64.to_radians(), 86_164.090_5);
    let text = std::fs::read_to_string(folder().join("fixtures/orbit.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), (period_s / 5.0_f64).ceil() as usize);
    let mut others = 0;
    for (number, line) in lines.iter().enumerate() {
        let value: Value = serde_json::from_str(line).unwrap_or_default();
        if value["message"] != "success" {
            others += 1;
            continue;
        }
        let at_s = number as f64 * 5.0;
        let along = TAU * at_s / period_s;
        let latitude = (inclination.sin() * along.sin()).asin().to_degrees();
        let east = (inclination.cos() * along.sin()).atan2(along.cos()) - TAU * at_s / turn_s;
        let longitude = (east.to_degrees() + 180.0).rem_euclid(360.0) - 180.0;
        let given = |name: &str| value["iss_position"][name].as_str().unwrap().parse::<f64>().unwrap();
        assert!((given("latitude") - latitude).abs() < 1e-4, "line {}: {latitude}", number + 1);
        let off = (given("longitude") - longitude).abs();
        assert!(!(1e-4..=359.999).contains(&off), "line {}: {longitude}", number + 1);
    }
    assert_eq!(others, 2, "one failure, and one answer that is no JSON");
}
