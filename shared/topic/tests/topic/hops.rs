//! Records over two and three hops, under random schedules of crashes, lost answers and zombies: each comes out once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use millstream_codec::{JsonDecoder, JsonOptions, Keys, Tombstones};
use millstream_core::{
    Decode, Error, Late, Limits, Log, ManualClock, NewRecord, OnGap, Position, Producer, Result, SOURCE_HEADER, Sink,
    Start, TopicPartition, meta,
};
use millstream_runner::{Parts, Runner, Timeliness};
use millstream_testkit::{MemoryDeadLetters, MemoryLog, MemorySink, PlainDecode, PlainTransform};
use millstream_topic::{FencesTopic, Key, Shape, TopicSink};
use proptest::prelude::*;

use crate::sink::shape_of;

const PARTITIONS: i32 = 3;
pub(crate) const LATE: Timeliness = Timeliness { ahead_ms: None, late: Late::Merge, lateness_ms: 0 };

/// A producer that may write only a part of what it is given, or lose its answer.
pub(crate) struct Flaky {
    pub(crate) log: MemoryLog,
    /// What becomes of the next sends, the last one first: how many records are written before the error (if there are as many),
    /// or [`GOES_THROUGH`].
    pub(crate) failures: Mutex<Vec<usize>>,
}

#[async_trait]
impl Producer for Flaky {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        let failure = self.failures.lock().unwrap().pop();
        match failure {
            None | Some(GOES_THROUGH..) => self.log.send(topic, records).await,
            Some(written) => {
                self.log.send(topic, records.into_iter().take(written).collect()).await?;
                Err(Error::retry("the answer was lost"))
            }
        }
    }
}

/// A send without an error.
pub(crate) const GOES_THROUGH: usize = 6;

/// A function from one topic to the next, or to a table.
fn runner(log: &MemoryLog, name: &str, from: &str, sink: Arc<dyn Sink>, max_records: usize) -> Runner {
    let decoder: Arc<dyn Decode> = if from == "in" {
        Arc::new(PlainDecode)
    } else {
        let schema = PlainTransform::Append.table(from).schema();
        let schema = Arc::new(schema.project(&[0]).unwrap());
        let columns = Some(vec!["text".to_owned(), meta::OFFSET.to_owned()]);
        let options = JsonOptions { schema, columns, event_time: None, tombstones: Tombstones::DeadLetter };
        Arc::new(JsonDecoder::new(options).unwrap())
    };
    Runner::new(Parts {
        function: name.into(),
        decoders: BTreeMap::from([(from.to_owned(), decoder)]),
        hops: BTreeSet::from(["first".to_owned(), "second".to_owned()]),
        transform: Arc::new(PlainTransform::Append),
        sink,
        dead_letters: Arc::new(MemoryDeadLetters::default()),
        log: Arc::new(log.clone()),
        start: Start::Earliest,
        on_gap: OnGap::Heal,
        timeliness: LATE,
        stops_when_refused: true,
        limits: Limits { max_records, max_bytes: 1 << 20, max_wait_ms: 0 },
    })
}

/// A process of a function that writes topic `to`, with caches of its own.
async fn hop(log: &MemoryLog, from: &str, to: &str, failures: Vec<usize>, max_records: usize) -> Runner {
    let table = PlainTransform::Append.table(to);
    let keys = Keys::new(table.schema().field(0)).unwrap();
    let key = Key { column: "text".into(), texts: Arc::new(move |column| keys.texts(column)) };
    let shape = Shape { key: Some(key), ..shape_of(&table) };
    let flaky = Arc::new(Flaky { log: log.clone(), failures: Mutex::new(failures) });
    let log_of = Arc::new(log.clone());
    let name = format!("suite.{to}");
    let clock = Arc::new(ManualClock::at_us(0));
    let (name_of_fences, outbox) = ("suite.fences".into(), "suite.outbox".into());
    let fences = FencesTopic { name: name_of_fences, outbox, producer: Arc::clone(&flaky) as _, clock };
    let sink = TopicSink::new(log_of, flaky, fences, &name, table, shape);
    // A process that can't even prepare is started again.
    for _ in 0..100 {
        if sink.prepare(true).await.is_ok() {
            break;
        }
    }
    runner(log, &name, from, Arc::new(sink), max_records)
}

/// Reads what is in the log now, or as far as it gets.
pub(crate) async fn drain(
    log: &MemoryLog,
    runner: &Runner,
    from: &str,
    max_records: usize,
    steps: &AtomicUsize,
) -> Result<()> {
    for number in 0..log.partitions(from).await? {
        let next = runner.start(&TopicPartition::new(from, 1, number)).await?;
        go_on(log, runner, TopicPartition::new(from, 1, number), next, max_records, steps).await?;
    }
    Ok(())
}

/// What a process does that was thought to be dead: it writes what it had in hand, at the fences that it knew.
pub(crate) async fn wake(log: &MemoryLog, zombie: &Runner, from: &str, max_records: usize) {
    for number in 0..log.partitions(from).await.unwrap() {
        let partition = TopicPartition::new(from, 1, number);
        let _ = go_on(log, zombie, partition, 0, max_records, &AtomicUsize::new(10)).await;
    }
}

/// Reads a partition from `next` on.
async fn go_on(
    log: &MemoryLog,
    runner: &Runner,
    partition: TopicPartition,
    mut next: i64,
    max_records: usize,
    steps: &AtomicUsize,
) -> Result<()> {
    loop {
        let high = log.watermarks(&partition).await?.high;
        if next >= high || steps.fetch_sub(1, Ordering::Relaxed) == 0 {
            steps.fetch_max(1, Ordering::Relaxed);
            return Ok(());
        }
        let limits = Limits { max_records, max_bytes: 1 << 20, max_wait_ms: 0 };
        next = runner.process(log.read(&partition, next..high, limits).await?).await?;
    }
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
        "out" => runner(log, "suite.out", from, Arc::clone(table) as _, run.max_records),
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
