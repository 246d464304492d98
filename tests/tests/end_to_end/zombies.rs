//! A process that was presumed dead comes back while its successor works.

use std::time::Duration;

use futures::future::join_all;
use millstream_emulators::{LambdaRuntimeApi, kafka_event};
use millstream_tests::{Child, PATIENCE, Scene, Setting, Store, bank, until};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;

/// The log line of a process for each partition that the group assigns to it.
const TAKEN: &str = "partition taken";

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_was_frozen_wakes_up_while_another_has_its_partitions() {
    let store = Store::services("zombie").await;
    let scene = Scene::new(Setting { name: "zombie", store, max_records: 200, ..Setting::default() }).await;
    let mut written = scene.write(bank::transactions(50, 5_000)).await;
    let function = scene.function("flow").await;
    let brought_in = async |more_than: i64, children: &mut [&mut Child]| {
        until(PATIENCE, "progress", async || {
            children.iter_mut().for_each(|child| child.assert_runs());
            let now = scene.brought_in(&function).await;
            if now > more_than { Ok(now) } else { Err(format!("{now} records are in of {more_than}")) }
        })
        .await
    };
    let mut first = Child::start("aggregate", &scene, "flow", &[]);
    brought_in(500, &mut [&mut first]).await;
    let mut second = Child::start("aggregate", &scene, "flow", &[]);
    takes(&mut second, 1).await;
    // In each round, one process is frozen with batches in flight and more read ahead. The other takes all three
    // partitions when the first one's session times out, and has just started on the rest when the first one wakes up.
    for round in 0..4 {
        let (zombie, successor) = if round % 2 == 0 { (&mut first, &mut second) } else { (&mut second, &mut first) };
        let before = scene.brought_in(&function).await;
        written.extend(scene.write(bank::transactions(51 + round, 30_000)).await);
        brought_in(before + 1_000, &mut [zombie, successor]).await;
        zombie.freeze();
        let taken = successor.stderr().matches(TAKEN).count();
        takes(successor, taken + 3).await;
        zombie.thaw();
        scene.until_all_in("flow", &mut [zombie, successor]).await;
    }
    first.drain().await;
    second.drain().await;
    scene.assert_exact(&written, "after a zombie").await;
}

/// Waits until a process has logged this many assigned partitions.
async fn takes(child: &mut Child, times: usize) {
    until(PATIENCE, "a partition taken", async || {
        child.assert_runs();
        let taken = child.stderr().matches(TAKEN).count();
        if taken >= times { Ok(()) } else { Err(format!("{taken} of {times}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lambda_processes_are_given_the_same_records_at_once() {
    let store = Store::services("twins").await;
    let scene = Scene::new(Setting { name: "twins", store, max_records: 2_000, ..Setting::default() }).await;
    let written = scene.write(bank::transactions_with_bad(53, 20_000, 500)).await;
    for (binary, function) in [("aggregate", "flow"), ("archive", "archive")] {
        join_all([54, 55].map(|seed| deliver(&scene, binary, function, seed))).await;
        scene.until_all_in(function, &mut []).await;
    }
    scene.assert_exact(&written, "twins").await;
    scene.assert_archived(&written, "twins").await;
    scene.assert_letters("archive", &written, "twins").await;
}

/// Passes the whole log to a process, with its own cuts; failed items are delivered again.
async fn deliver(scene: &Scene, binary: &str, function: &str, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let api = LambdaRuntimeApi::start().await;
    let mut child = Child::start(binary, scene, function, &api.environment());
    let log = scene.systems.source();
    let mut left = Vec::new();
    for number in 0..3 {
        let partition = scene.partition(number);
        let end = log.watermarks(&partition).await.unwrap().high;
        left.push((partition, 0, end));
    }
    while left.iter().any(|(_, next, end)| next < end) {
        let mut batches = Vec::new();
        for (partition, next, end) in left.iter_mut().filter(|(_, next, end)| next < end) {
            let batch = log.read(partition, *next..*end, scene.limits("flow")).await.unwrap();
            let batch = batch.first(random.random_range(100..1_000));
            *next = batch.range().end;
            batches.push(batch);
        }
        let event = kafka_event(&batches);
        until(PATIENCE, "an event without failures", async || {
            child.assert_runs();
            let answer = api.invoke(event.clone(), Duration::from_secs(60)).await.unwrap();
            if answer == json!({ "batchItemFailures": [] }) { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    }
}
