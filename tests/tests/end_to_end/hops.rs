//! Two functions between a topic and a table, each killed again and again: each record is in the sums once.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use millstream_assembly::audit;
use millstream_core::{Lineage, SOURCE_HEADER, TopicPartition};
use millstream_tests::{Child, Flow, Scene, Setting, Store, Written, bank, kill_often, say_goodbye};

const FUNCTIONS: [(&str, &str); 3] = [("transform", "clean"), ("transform", "route"), ("aggregate", "flow")];
const KILLS: usize = 30;
const FLOW: Flow = Flow { portion: 150, every: Duration::from_millis(80), bad_every: 100 };

fn setting(store: Store, name: &str) -> Setting<'_> {
    Setting { name, store, max_records: 300, hops: true, ..Setting::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_kills_of_each_function_of_a_chain_on_kafka_and_postgres() {
    thirty_kills(Store::services("hops").await, 70).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_kills_of_each_function_of_a_chain_with_everything_embedded() {
    thirty_kills(Store::Embedded, 71).await;
}

async fn thirty_kills(store: Store, seed: u64) {
    let scene = Scene::new(setting(store, "hops")).await;
    let done = AtomicBool::new(false);
    let killing = async {
        let of = |at: usize| kill_often(&scene, FUNCTIONS[at], KILLS, seed + at as u64);
        let ended = tokio::join!(of(0), of(1), of(2));
        done.store(true, Ordering::Relaxed);
        ended
    };
    let (written, (mut clean, mut route, mut flow)) = tokio::join!(scene.write_until(&done, seed, FLOW), killing);
    for ((_, name), child) in FUNCTIONS.iter().zip([&mut clean, &mut route, &mut flow]) {
        scene.until_all_in(name, &mut [child]).await;
        child.drain().await;
    }
    assert_exact(&scene, &written, "after 30 kills").await;
}

async fn assert_exact(scene: &Scene, written: &Written, what: &str) {
    bank::assert_same(&scene.table().await, &written.sums(), what);
    scene.assert_letters("clean", written, what).await;
    for (_, name) in FUNCTIONS {
        let report = audit(&scene.systems, &scene.pipeline, name).await.unwrap();
        assert!(report.is_clean(), "{what}: {name}: {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_killed_at_every_point_of_a_topic() {
    for store in [Store::services("hop_faults").await, Store::Embedded] {
        for (point, passage) in [
            ("after_outbox", 3),
            ("before_send", 1),
            ("after_send", 1),
            ("after_send", 4),
            ("after_fence", 1),
            ("after_fence", 6),
        ] {
            let scene = Scene::new(setting(store.clone(), "hop_faults")).await;
            let written = scene.write(bank::transactions_with_bad(72, 3_000, 40)).await;
            let what = format!("killed at passage {passage} of {point} on {}", store.kind());
            for (binary, name) in FUNCTIONS {
                // Only `route` joins a reference.
                if binary == "transform" && (name == "route" || point != "after_outbox") {
                    let fault = ("MILLSTREAM_FAULT", format!("topic.{point}:{passage}"));
                    Child::start(binary, &scene, name, &[fault]).dies().await;
                    if scene.has_kafka() {
                        say_goodbye(scene.brokers(), &scene.group(name)).await;
                    }
                }
                let mut child = Child::start(binary, &scene, name, &[]);
                scene.until_all_in(name, &mut [&mut child]).await;
                child.drain().await;
            }
            assert_exact(&scene, &written, &what).await;
            if point == "after_send" {
                assert!(sent_again(&scene).await > 0, "{what}: nothing was sent again, so nothing was tested");
            }
        }
    }
}

/// Records go to the partitions that a topic had when the function began; those that are added to the source are read.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_added_while_a_chain_runs() {
    for store in [Store::services("hop_growth").await, Store::Embedded] {
        let scene = Scene::new(setting(store.clone(), "hop_growth")).await;
        let mut written = scene.write(bank::transactions_with_bad(73, 1_000, 50)).await;
        let mut children = FUNCTIONS.map(|(binary, name)| Child::start(binary, &scene, name, &[]));
        for ((_, name), child) in FUNCTIONS.iter().zip(&mut children) {
            scene.until_all_in(name, &mut [child]).await;
        }
        let topics = [scene.topic.clone(), format!("{}.clean", scene.topic), format!("{}.routed", scene.topic)];
        for (topic, partitions) in topics.iter().zip([6, 4, 7]) {
            scene.systems.topics().raise_partitions(topic, partitions).await.unwrap();
        }
        let producer = scene.systems_anew().producer(&scene.pipeline.topics[&scene.topic]).unwrap();
        written.extend(scene.write_by(producer.as_ref(), bank::transactions_with_bad(74, 3_000, 50)).await);
        for ((_, name), child) in FUNCTIONS.iter().zip(&mut children) {
            scene.until_all_in(name, &mut [child]).await;
        }
        for child in &mut children {
            child.drain().await;
        }
        assert_exact(&scene, &written, &format!("partitions were added on {}", store.kind())).await;
        for (topic, before) in topics[1..].iter().zip([2, 4]) {
            for number in 0..scene.systems.source().partitions(topic).await.unwrap() {
                let partition = TopicPartition::new(topic, 1, number);
                let held = scene.systems.source().watermarks(&partition).await.unwrap();
                assert!(number < before || held.high == 0, "{partition} has records");
            }
        }
    }
}

/// How many records of the first topic between have come twice.
async fn sent_again(scene: &Scene) -> usize {
    let (log, topic) = (scene.systems.source(), format!("{}.clean", scene.topic));
    let (mut seen, mut again) = (std::collections::HashSet::new(), 0);
    for number in 0..log.partitions(&topic).await.unwrap() {
        let partition = TopicPartition::new(&topic, 1, number);
        let held = log.watermarks(&partition).await.unwrap();
        let mut next = held.low;
        while next < held.high {
            let batch = log.read(&partition, next..held.high, scene.limits("route")).await.unwrap();
            next = batch.range().end;
            let lineage = |row| Lineage::parse(batch.find_header(row, SOURCE_HEADER).unwrap()).unwrap().to_string();
            again += (0..batch.len()).filter(|row| !seen.insert(lineage(*row))).count();
        }
    }
    again
}
