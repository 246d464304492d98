use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use arrow::array::{Array, AsArray};
use async_trait::async_trait;
use millstream_core::{Batch, BatchBuilder, Error, Limits, OnGap, Result, Start, Subscription, TopicPartition};
use millstream_emulators::kafka_event;
use millstream_runner::{Parts, Runner, Timeliness};
use millstream_testkit::{MemoryDeadLetters, MemoryLog, MemorySink, PlainDecode, PlainTransform};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use super::{KafkaEvent, Process, answer};

/// A partition that `process` fails.
struct Failing {
    /// The sink's next offset, where it can tell.
    fence: Option<i64>,
    error: fn() -> Error,
}

/// A runner that keeps what it gets, and fails where it is told to.
#[derive(Default)]
struct Fake {
    /// By partition number.
    failing: HashMap<i32, Failing>,
    /// Set where all partitions must be in flight before one goes on.
    meet: Option<Barrier>,
    batches: Mutex<Vec<Batch>>,
}

#[async_trait]
impl Process for Fake {
    fn function(&self) -> &str {
        "bank.fake"
    }

    async fn start(&self, _partition: &TopicPartition) -> Result<i64> {
        Err(Error::stop("Lambda says itself where a batch begins"))
    }

    async fn process(&self, batch: Batch) -> Result<i64> {
        if let Some(meet) = &self.meet {
            meet.wait().await;
        }
        let end = batch.range().end;
        let failing = self.failing.get(&batch.partition().partition);
        self.batches.lock().unwrap().push(batch);
        failing.map_or(Ok(end), |failing| Err((failing.error)()))
    }

    async fn next_offset(&self, partition: &TopicPartition) -> Result<Option<i64>> {
        let fence = self.failing[&partition.partition].fence;
        fence.map(Some).ok_or_else(|| Error::retry("the sink can't be reached"))
    }
}

/// The very first event wakes the function, and the log does not answer at once. What was delivered must come again.
#[tokio::test]
async fn a_first_event_that_fails_is_delivered_again() {
    let (log, sink, runner) = real(Start::Latest);
    log.append("transaction", 1, (0..10).map(|at| at.to_string()));
    let delivered = || event(kafka_event(&[pushed(1, &(7..10).collect::<Vec<_>>())]));
    log.fail_next_watermarks(1);
    let answered = answer(&runner, delivered(), &subscription()).await.unwrap();
    assert_eq!(serde_json::to_value(answered).unwrap(), failed_from(7));
    assert_eq!(sink.texts().await.len(), 0);
    let answered = answer(&runner, delivered(), &subscription()).await.unwrap();
    assert_eq!((answered.batch_item_failures.len(), sink.texts().await.len()), (0, 3));
}

/// The fence of the old topic is above the records of the new one: they are not "all in the sink".
#[tokio::test]
async fn a_re_created_topic_is_not_acknowledged_when_the_log_is_away_for_a_moment() {
    let (log, _, runner) = real(Start::Earliest);
    log.append("transaction", 1, ["a", "b", "c"]);
    let batch = log.all(&TopicPartition::new("transaction", 2, 1));
    runner.process(batch).await.unwrap();
    log.recreate("transaction", 2);
    log.append("transaction", 1, ["x"]);
    let delivered = kafka_event(&[log.all(&TopicPartition::new("transaction", 2, 1))]);
    for failing in [0, 1] {
        log.fail_next_watermarks(failing);
        let answered = answer(&runner, event(delivered.clone()), &subscription()).await.unwrap();
        assert_eq!(serde_json::to_value(answered).unwrap(), failed_from(0));
    }
}

fn failed_from(offset: i64) -> Value {
    json!({"batchItemFailures": [{"itemIdentifier": {"partition": "transaction-1", "offset": offset}}]})
}

/// A runner over a log and a sink in memory.
fn real(start: Start) -> (MemoryLog, Arc<MemorySink>, Runner) {
    let log = MemoryLog::with_topic("transaction", 2);
    let sink = Arc::new(MemorySink::new("bank.copy", PlainTransform::Append.table("copy")));
    let runner = Runner::new(Parts {
        function: "bank.copy".into(),
        decoders: BTreeMap::from([("transaction".to_owned(), Arc::new(PlainDecode) as _)]),
        hops: BTreeSet::new(),
        transform: Arc::new(PlainTransform::Append),
        sink: sink.clone(),
        dead_letters: Arc::new(MemoryDeadLetters::new()),
        log: Arc::new(log.clone()),
        start,
        on_gap: OnGap::Heal,
        timeliness: Timeliness::default(),
        stops_when_refused: true,
        limits: LIMITS,
    });
    (log, sink, runner)
}

const LIMITS: Limits = Limits { max_records: 100, max_bytes: 1 << 20, max_wait_ms: 0 };

fn subscription() -> Subscription {
    Subscription {
        group: "bank.copy".into(),
        topics: vec![("transaction".to_owned(), 2)],
        limits: LIMITS,
        every_ms: None,
    }
}

fn event(text: Value) -> KafkaEvent {
    serde_json::from_value(text).unwrap()
}

async fn answered(fake: &Fake, text: Value) -> Value {
    serde_json::to_value(answer(fake, event(text), &subscription()).await.unwrap()).unwrap()
}

/// The text of the error with which an event is refused, having checked that nothing of it was processed.
async fn refused(text: Value) -> String {
    let fake = Fake::default();
    let error = answer(&fake, event(text), &subscription()).await.unwrap_err();
    assert!(matches!(error, Error::Stop(_)) && fake.batches.lock().unwrap().is_empty());
    error.to_string()
}

/// A batch with records at these offsets.
fn pushed(partition: i32, offsets: &[i64]) -> Batch {
    let mut builder = BatchBuilder::new(TopicPartition::new("transaction", 2, partition));
    for offset in offsets {
        builder.push(*offset, 1_700_000_000_000 + offset, Some(b"k"), Some(b"v"), []);
    }
    builder.finish_pushed().unwrap()
}

fn msk() -> Value {
    serde_json::from_str(include_str!("../../fixtures/msk.json")).unwrap()
}

#[tokio::test]
async fn an_event_of_msk_becomes_one_batch_per_partition() {
    let fake = Fake::default();
    assert_eq!(answered(&fake, msk()).await, json!({"batchItemFailures": []}));
    let batches = fake.batches.into_inner().unwrap();
    assert_eq!(batches.len(), 2);
    // The fixture has this partition's records out of order, and one of them twice.
    let batch = &batches[0];
    assert_eq!(batch.partition(), &TopicPartition::new("transaction", 2, 0));
    assert_eq!(batch.offsets().values(), &[15, 16, 17]);
    assert_eq!(batch.timestamps_ms().values(), &[1_763_726_400_001, 1_763_726_400_002, 1_763_726_400_003]);
    assert_eq!(batch.keys().value(0), b"a");
    assert_eq!(batch.values().value(0), br#"{"branch":"a","amount":"1.50"}"#);
    assert!(batch.values().is_null(1) && batch.keys().is_null(2), "a tombstone, and a record without a key");
    let headers = batch.headers().unwrap().value(0);
    assert_eq!(headers.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["trace", "trace"]);
    assert_eq!(headers.column(1).as_binary::<i32>().value(0), b"\x00\x7f\x80\xff");
    assert_eq!(batches[1].partition().partition, 2);
    assert_eq!(batch.gap(15), None);
}

#[tokio::test]
async fn an_event_of_self_managed_kafka_is_read_too() {
    let fake = Fake::default();
    let event = serde_json::from_str(include_str!("../../fixtures/self_managed.json")).unwrap();
    assert_eq!(answered(&fake, event).await, json!({"batchItemFailures": []}));
    assert_eq!(fake.batches.into_inner().unwrap()[0].offsets().values(), &[0]);
}

#[tokio::test]
async fn no_timestamp_is_off_by_a_millisecond() {
    let offsets: Vec<_> = (0..2_000).collect();
    let fake = Fake::default();
    answered(&fake, kafka_event(&[pushed(0, &offsets)])).await;
    assert_eq!(fake.batches.into_inner().unwrap(), [pushed(0, &offsets)]);
}

#[tokio::test]
async fn each_failed_partition_says_where_to_go_on() {
    let retry = || Error::retry("the connection was lost");
    let stop = || Error::stop("a column is missing");
    let fake = Fake {
        failing: HashMap::from([
            // Nothing of it is in the sink, and the sink is far behind.
            (1, Failing { fence: Some(3), error: retry }),
            // Half of it is; the fence lies in a hole of the batch.
            (2, Failing { fence: Some(13), error: stop }),
            // All of it is: the outcome was unknown.
            (3, Failing { fence: Some(12), error: retry }),
            // The sink can't tell.
            (4, Failing { fence: None, error: retry }),
        ]),
        ..Fake::default()
    };
    let batches =
        [pushed(0, &[10, 11]), pushed(1, &[10, 11]), pushed(2, &[10, 15]), pushed(3, &[10, 11]), pushed(4, &[10, 11])];
    let failure = |partition, offset: i64| json!({"itemIdentifier": {"partition": partition, "offset": offset}});
    let expected = [failure("transaction-1", 10), failure("transaction-2", 15), failure("transaction-4", 10)];
    assert_eq!(answered(&fake, kafka_event(&batches)).await, json!({"batchItemFailures": expected}));
}

#[tokio::test]
async fn a_batch_that_is_not_all_in_the_sink_is_not_done() {
    struct Half;
    #[async_trait]
    impl Process for Half {
        fn function(&self) -> &str {
            "bank.half"
        }
        async fn start(&self, _partition: &TopicPartition) -> Result<i64> {
            Err(Error::stop("Lambda says itself where a batch begins"))
        }
        async fn process(&self, batch: Batch) -> Result<i64> {
            Ok(batch.range().start + 1)
        }
        async fn next_offset(&self, _partition: &TopicPartition) -> Result<Option<i64>> {
            Ok(Some(11))
        }
    }
    let event = event(kafka_event(&[pushed(0, &[10, 11])]));
    let response = answer(&Half, event, &subscription()).await.unwrap();
    assert_eq!(response.batch_item_failures[0].item_identifier.offset, 11);
}

#[tokio::test]
async fn the_partitions_of_an_event_are_processed_at_once() {
    // Each waits for the others: one after the other would wait for ever.
    let fake = Fake { meet: Some(Barrier::new(4)), ..Fake::default() };
    let batches: Vec<_> = (0..4).map(|partition| pushed(partition, &[1])).collect();
    let limit = std::time::Duration::from_secs(10);
    tokio::time::timeout(limit, answered(&fake, kafka_event(&batches))).await.unwrap();
    let seen: BTreeSet<_> =
        fake.batches.into_inner().unwrap().iter().map(|batch| batch.partition().partition).collect();
    assert_eq!(seen, (0..4).collect());
}

#[tokio::test]
async fn an_event_without_records_is_done() {
    let none = json!({"eventSource": "aws:kafka", "records": {"transaction-0": []}});
    assert_eq!(answered(&Fake::default(), none).await, json!({"batchItemFailures": []}));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_its_place() {
    let with = |field: &str, value: Value| {
        let mut event = msk();
        event["records"]["transaction-0"][1][field] = value;
        event
    };
    for (event, says) in [
        (with("value", "%%%".into()), "transaction/2/0/15: the value in the event is not base64"),
        (with("key", "a".into()), "transaction/2/0/15: the key in the event is not base64"),
        (with("headers", json!([{"h": [256]}])), "transaction/2/0/15: a header of the event holds 256"),
        (with("partition", 7.into()), "a record of transaction-7 under the name transaction-0"),
        (json!({"source": "aws.events", "detail-type": "Scheduled Event"}), "takes events of Kafka"),
    ] {
        let error = refused(event).await;
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_topic_that_the_function_does_not_read_is_refused() {
    let mut event = msk();
    for record in event["records"]["transaction-2"].as_array_mut().unwrap() {
        record["topic"] = "orders".into();
    }
    let error = refused(event).await;
    assert!(error.contains("topic orders") && error.contains("it reads transaction"), "{error}");
}
