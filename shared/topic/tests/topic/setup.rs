//! Functions that write a topic or read one, on a log in memory that may fail.

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
    Decode, Error, Late, Limits, Log, ManualClock, NewRecord, OnGap, Position, Producer, Result, Sink, Start,
    TopicPartition, Transform, meta,
};
use millstream_runner::{Parts, Runner, Timeliness};
use millstream_testkit::{MemoryDeadLetters, MemoryLog, PlainDecode, PlainTransform};
use millstream_topic::{FencesTopic, Key, Shape, TopicSink};

use crate::sink::shape_of;

const LATE: Timeliness = Timeliness { ahead_ms: None, late: Late::Merge, lateness_ms: 0 };

/// A producer that may write only a part of what it is given, or lose its answer.
struct Flaky {
    log: MemoryLog,
    /// What becomes of the next sends, the last one first: how many records are written before the error (if there are as many),
    /// or [`GOES_THROUGH`].
    failures: Mutex<Vec<usize>>,
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

/// The sink of a process that writes topic `to`, whose records have their text as key.
pub(crate) fn keyed_sink(
    log: &MemoryLog,
    function: &str,
    to: &str,
    failures: Vec<usize>,
    change: impl FnOnce(Shape) -> Shape,
) -> TopicSink<MemoryLog> {
    let table = PlainTransform::Append.table(to);
    let keys = Keys::new(table.schema().field(0)).unwrap();
    let key = Key { column: "text".into(), texts: Arc::new(move |column| keys.texts(column)) };
    let shape = change(Shape { key: Some(key), ..shape_of(&table) });
    let flaky = Arc::new(Flaky { log: log.clone(), failures: Mutex::new(failures) });
    let clock = Arc::new(ManualClock::at_us(0));
    let (name, outbox) = ("suite.fences".into(), "suite.outbox".into());
    let fences = FencesTopic { name, outbox, producer: Arc::clone(&flaky) as _, clock };
    TopicSink::new(Arc::new(log.clone()), flaky, fences, function, table, shape)
}

/// A function from one topic to the next, or to a table.
pub(crate) fn runner(
    log: &MemoryLog,
    name: &str,
    from: &str,
    sink: Arc<dyn Sink>,
    transform: Arc<dyn Transform>,
    max_records: usize,
) -> Runner {
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
        transform,
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
