//! The process kills itself by SIGKILL at every fault point and is restarted. No record is lost or duplicated.

use std::collections::BTreeSet;

use futures::future::join_all;
use millstream_core::fault::POINTS;
use millstream_tests::{Child, Scene, Setting, Store, Written, bank, say_goodbye};
use tokio::sync::OnceCell;

/// The fault point, the passage at which it kills, and the function, on Kafka and Postgres. The archive has fewer
/// passages: each of its writes is a file.
const ON_SERVICES: &[(&str, u32, &str)] = &[
    ("runner.before_decode", 1, "flow"),
    ("runner.before_decode", 6, "flow"),
    ("runner.before_dead_letters", 1, "flow"),
    ("runner.before_dead_letters", 5, "flow"),
    ("runner.after_dead_letters", 1, "flow"),
    ("runner.after_dead_letters", 7, "archive"),
    ("runner.after_write", 1, "flow"),
    ("runner.after_write", 9, "flow"),
    ("host.before_acknowledge", 1, "flow"),
    ("host.before_acknowledge", 8, "archive"),
    ("host.after_acknowledge", 1, "flow"),
    ("host.after_acknowledge", 6, "flow"),
    ("postgres.before_commit", 1, "flow"),
    ("postgres.before_commit", 7, "flow"),
    ("postgres.after_commit", 1, "flow"),
    ("postgres.after_commit", 7, "flow"),
    ("lake.before_file", 1, "archive"),
    ("lake.before_file", 8, "archive"),
    ("lake.after_file", 1, "archive"),
    ("lake.after_file", 2, "archive"),
    ("lake.after_file", 9, "archive"),
    ("lake.after_fence", 1, "archive"),
    ("lake.after_fence", 5, "archive"),
];

/// The same with everything embedded.
const EMBEDDED: &[(&str, u32, &str)] = &[
    ("embedded.before_commit", 1, "flow"),
    ("embedded.before_commit", 7, "flow"),
    ("embedded.after_commit", 1, "flow"),
    ("embedded.after_commit", 7, "flow"),
    ("runner.after_dead_letters", 4, "flow"),
    ("runner.after_write", 3, "flow"),
    ("host.before_acknowledge", 5, "flow"),
    ("host.after_acknowledge", 2, "flow"),
    ("lake.after_file", 4, "archive"),
];

/// How many cases run at once: they spend more time waiting for groups and processes than computing.
const AT_ONCE: usize = 3;
const GOOD: usize = 6_000;

#[test]
fn every_fault_point_is_tried_at_its_first_passage_and_at_a_later_one() {
    // A topic is the sink of functions that these scenes don't have: see `hops`.
    for point in POINTS.iter().filter(|point| !point.starts_with("topic.")) {
        let passages: BTreeSet<u32> = ON_SERVICES
            .iter()
            .chain(EMBEDDED)
            .filter(|(name, ..)| name == point)
            .map(|(_, passage, _)| *passage)
            .collect();
        assert!(passages.contains(&1) && passages.len() > 1, "{point} is tried at passages {passages:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_point_on_kafka_and_postgres() {
    let store = Store::services("faults").await;
    try_all(ON_SERVICES, &store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_point_with_everything_embedded() {
    try_all(EMBEDDED, &Store::Embedded).await;
}

async fn try_all(cases: &'static [(&str, u32, &str)], store: &Store) {
    let shared = OnceCell::new();
    let lanes = (0..AT_ONCE).map(|lane| {
        let shared = &shared;
        async move {
            for case in cases.iter().skip(lane).step_by(AT_ONCE) {
                killed_at(*case, store, shared).await;
            }
        }
    });
    join_all(lanes).await;
}

/// All cases on Kafka share one log; an embedded log is in the scene's own folder.
async fn killed_at(case: (&str, u32, &str), store: &Store, shared: &OnceCell<(String, Written)>) {
    let (point, passage, function) = case;
    let records = || bank::transactions_with_bad(30, GOOD, 40);
    let setting =
        |topic| Setting { name: "fault", store: store.clone(), max_records: 300, topic, ..Setting::default() };
    let (scene, written) = if *store == Store::Embedded {
        let scene = Scene::new(setting(None)).await;
        let written = scene.write(records()).await;
        (scene, written)
    } else {
        let log = shared.get_or_init(async || {
            let scene = Scene::new(setting(None)).await;
            let written = scene.write(records()).await;
            (scene.topic.clone(), written)
        });
        let (topic, written) = log.await.clone();
        (Scene::new(setting(Some(topic))).await, written)
    };
    let what = format!("killed at passage {passage} of {point} in {function} on {}", store.kind());
    let binary = if function == "flow" { "aggregate" } else { "archive" };
    let fault = ("MILLSTREAM_FAULT", format!("{point}:{passage}"));
    Child::start(binary, &scene, function, &[fault]).dies().await;
    if scene.has_kafka() {
        say_goodbye(scene.brokers(), &scene.group(function)).await;
    }
    let mut child = Child::start(binary, &scene, function, &[]);
    scene.until_all_in(function, &mut [&mut child]).await;
    child.drain().await;
    if function == "flow" {
        scene.assert_exact(&written, &what).await;
    } else {
        scene.assert_archived(&written, &what).await;
        scene.assert_letters(function, &written, &what).await;
    }
}
