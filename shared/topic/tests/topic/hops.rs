//! Records over two and three hops, under random schedules of crashes, lost answers and zombies: each comes out once.

use std::sync::{Arc, atomic::AtomicUsize};

use millstream_core::{SOURCE_HEADER, Sink as _, TopicPartition};
use millstream_runner::Runner;
use millstream_testkit::{MemoryLog, MemorySink, PlainTransform};
use proptest::prelude::*;

use crate::setup::{GOES_THROUGH, drain, keyed_sink, runner, wake};

const PARTITIONS: i32 = 3;

/// A process of a function that writes topic `to`, with caches of its own.
async fn hop(log: &MemoryLog, from: &str, to: &str, failures: Vec<usize>, max_records: usize) -> Runner {
    let name = format!("suite.{to}");
    let sink = keyed_sink(log, &name, to, failures, |shape| shape);
    // A process that can't even prepare is started again.
    for _ in 0..100 {
        if sink.prepare(true).await.is_ok() {
            break;
        }
    }
    runner(log, &name, from, Arc::new(sink), Arc::new(PlainTransform::Append), max_records)
}

/// One run of one process: it ends after some steps, or with its first error.
#[derive(Clone, Debug)]
struct Run {
    /// Which function, from the source on.
    function: usize,
    steps: usize,
    max_records: usize,
    failures: Vec<usize>,
    /// Is it a process that runs on beside later ones of its function, with what it knew before?
    zombie: bool,
}

fn run() -> impl Strategy<Value = Run> {
    let failures = prop::collection::vec(0_usize..10, 0..6);
    (0_usize..3, 1_usize..6, 1_usize..8, failures, prop::bool::weighted(0.3)).prop_map(
        |(function, steps, max_records, failures, zombie)| Run { function, steps, max_records, failures, zombie },
    )
}

const TOPICS: [&str; 4] = ["in", "first", "second", "out"];

async fn make(log: &MemoryLog, table: &Arc<MemorySink>, run: &Run) -> Runner {
    let (from, to) = (TOPICS[run.function], TOPICS[run.function + 1]);
    match to {
        "out" => {
            let append = Arc::new(PlainTransform::Append);
            runner(log, "suite.out", from, Arc::clone(table) as _, append, run.max_records)
        }
        _ => hop(log, from, to, run.failures.clone(), run.max_records).await,
    }
}

async fn comes_out_once(values: usize, runs: Vec<Run>) {
    let log = MemoryLog::with_topic("in", PARTITIONS);
    log.recreate("first", PARTITIONS);
    log.recreate("second", 2);
    for value in 0..values {
        log.append("in", value as i32 % PARTITIONS, [format!("value {value}")]);
    }
    let table = Arc::new(MemorySink::new("suite.out", PlainTransform::Append.table("out")));
    let mut zombies: Vec<(Run, Runner)> = Vec::new();
    for run in &runs {
        let runner = make(&log, &table, run).await;
        let _ = drain(&log, &runner, TOPICS[run.function], run.max_records, &AtomicUsize::new(run.steps)).await;
        // A zombie of the same function writes what it had in hand.
        for (old, zombie) in zombies.iter().filter(|(old, _)| old.function == run.function) {
            wake(&log, zombie, TOPICS[old.function], old.max_records).await;
        }
        if run.zombie {
            zombies.push((run.clone(), runner));
        }
    }
    for (function, from) in TOPICS.iter().take(3).enumerate() {
        let last = Run { function, steps: usize::MAX, max_records: 100, failures: vec![], zombie: false };
        let runner = make(&log, &table, &last).await;
        drain(&log, &runner, from, 100, &AtomicUsize::new(usize::MAX)).await.unwrap();
    }
    let mut out: Vec<String> = table.texts().await.into_iter().map(|row| row[0].clone()).collect();
    out.sort();
    let mut expected: Vec<String> = (0..values).map(|value| format!("value {value}")).collect();
    expected.sort();
    assert_eq!(out, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn records_come_out_once(values in 1_usize..30, runs in prop::collection::vec(run(), 0..14)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(comes_out_once(values, runs));
    }
}

/// The test above would not see a hop that never sends anything again.
#[tokio::test]
async fn what_is_sent_again_is_in_the_topic_twice() {
    let log = MemoryLog::with_topic("in", 1);
    log.recreate("first", 1);
    log.append("in", 0, ["a", "b"]);
    // The records are written, and the answer is lost (the three sends before are of the fences).
    for failures in [vec![2, GOES_THROUGH, GOES_THROUGH, GOES_THROUGH], vec![]] {
        let runner = hop(&log, "in", "first", failures, 10).await;
        let _ = drain(&log, &runner, "in", 10, &AtomicUsize::new(usize::MAX)).await;
    }
    let all = log.all(&TopicPartition::new("first", 1, 0));
    let sources: Vec<_> = (0..all.len()).map(|row| all.find_header(row, SOURCE_HEADER).unwrap().to_vec()).collect();
    let once = [b"in/1/0/0/0".to_vec(), b"in/1/0/1/0".to_vec()];
    assert_eq!(sources, [once.clone(), once].concat());
}
