//! The same 200,000 transactions through every host: identical tables, and files with each record once.

use std::time::Duration;

use millstream_core::Batch;
use millstream_emulators::{InvocationError, LambdaRuntimeApi, kafka_event};
use millstream_tests::{Child, Scene, Setting, Store, Written, bank};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

const TRANSACTIONS: usize = 200_000;
const INVOCATION: Duration = Duration::from_secs(60);

/// The log that all tests of this file read. It is written once.
async fn log() -> &'static (String, Written) {
    static LOG: OnceCell<(String, Written)> = OnceCell::const_new();
    LOG.get_or_init(async || {
        let store = Store::services("hosts").await;
        let scene = Scene::new(Setting { name: "hosts", store, ..Setting::default() }).await;
        let written = scene.write(bank::transactions(20, TRANSACTIONS)).await;
        (scene.topic.clone(), written)
    })
    .await
}

async fn scene(name: &str, store: Store) -> (Scene, &'static Written) {
    let (topic, written) = log().await;
    (Scene::new(Setting { name, store, topic: Some(topic.clone()), ..Setting::default() }).await, written)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_becomes_a_table_and_files() {
    let (scene, written) = scene("stream", Store::services("stream").await).await;
    let mut flow = Child::start("aggregate", &scene, "flow", &[]);
    let mut archive = Child::start("archive", &scene, "archive", &[]);
    scene.until_all_in("flow", &mut [&mut flow]).await;
    scene.until_all_in("archive", &mut [&mut archive]).await;
    flow.drain().await;
    archive.drain().await;
    scene.assert_exact(written, "stream host").await;
    scene.assert_archived(written, "stream host").await;
    // A function that drains commits its offsets to the group.
    for function in ["flow", "archive"] {
        let committed = scene.systems.group_offsets(&scene.group(function), &scene.topic, 1).await.unwrap();
        let ends: Vec<_> = written.ends().into_values().map(Some).collect();
        assert_eq!(committed, ends, "{function}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_becomes_the_same_table_through_pgbouncer() {
    let (scene, written) = scene("bouncer", Store::through_pgbouncer("bouncer").await).await;
    let mut flow = Child::start("aggregate", &scene, "flow", &[]);
    scene.until_all_in("flow", &mut [&mut flow]).await;
    flow.drain().await;
    scene.assert_exact(written, "through PgBouncer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lambda_events_become_the_same_table() {
    let (scene, written) = scene("lambda", Store::services("lambda").await).await;
    deliver(&scene, "aggregate", "flow", 22).await;
    scene.until_all_in("flow", &mut []).await;
    scene.assert_exact(written, "Lambda").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lambda_events_become_the_same_files() {
    let (scene, written) = scene("lambda_lake", Store::services("lambda_lake").await).await;
    deliver(&scene, "archive", "archive", 23).await;
    scene.until_all_in("archive", &mut []).await;
    scene.assert_archived(written, "Lambda").await;
}

/// Passes the whole log to a function as events with random cuts. Some events come twice, some records never, and three
/// times the process is killed with an event in flight, which is then delivered again to a new process.
async fn deliver(scene: &Scene, binary: &str, function: &str, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let api = LambdaRuntimeApi::start().await;
    let start = || Child::start(binary, scene, function, &api.environment());
    let events = events(scene, &mut random).await;
    let kills: Vec<usize> = (1..4).map(|quarter| quarter * events.len() / 4).collect();
    let mut child = start();
    for (number, event) in events.iter().enumerate() {
        if kills.contains(&number) {
            let after = Duration::from_millis(random.random_range(1..150));
            let (answer, ()) = tokio::join!(api.invoke(event.clone(), INVOCATION), async {
                tokio::time::sleep(after).await;
                child.kill().await;
            });
            assert!(matches!(answer, Err(InvocationError::Exited) | Ok(_)), "{answer:?}");
            child = start();
        }
        let times = if random.random_bool(0.1) { 2 } else { 1 };
        for _ in 0..times {
            let answer = api.invoke(event.clone(), INVOCATION).await;
            assert_eq!(answer, Ok(json!({ "batchItemFailures": [] })), "event {number}");
        }
        child.assert_runs();
    }
}

/// Events of one to three partitions each, in order within a partition; one batch of each partition is left out.
async fn events(scene: &Scene, random: &mut StdRng) -> Vec<Value> {
    let mut queues: Vec<Vec<Batch>> = Vec::new();
    for number in 0..3 {
        let mut batches = batches(scene, number, random).await;
        batches.remove(random.random_range(1..batches.len() - 1));
        batches.reverse();
        queues.push(batches);
    }
    let mut events = Vec::new();
    while queues.iter().any(|queue| !queue.is_empty()) {
        let chosen = queues.iter_mut().filter(|queue| !queue.is_empty() && random.random_bool(0.6));
        let batches: Vec<Batch> = chosen.filter_map(Vec::pop).collect();
        if !batches.is_empty() {
            events.push(kafka_event(&batches));
        }
    }
    events
}

/// A whole partition, cut at random.
async fn batches(scene: &Scene, number: i32, random: &mut StdRng) -> Vec<Batch> {
    let log = scene.systems.source();
    let partition = scene.partition(number);
    let end = log.watermarks(&partition).await.unwrap().high;
    let (mut next, mut batches) = (0, Vec::new());
    while next < end {
        let mut rest = Some(log.read(&partition, next..end, scene.limits("flow")).await.unwrap());
        while let Some(batch) = rest {
            next = batch.range().end;
            let cut = batch.first(random.random_range(1..4_000));
            rest = batch.after(cut.range().end);
            batches.push(cut);
        }
    }
    batches
}
