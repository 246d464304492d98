//! A function's topic against the conformance suite, and what is a topic's alone: lineage, partitions, what is sent again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_codec::{JsonDecoder, JsonEncoder, JsonOptions, Tombstones};
use millstream_core::{
    Compression, Error, Fence, Log, LogStore as _, ManualClock, Producer, Sink, SystemClock, Table, TopicPartition,
    Topics, meta,
};
use millstream_embedded::Embedded;
use millstream_kafka::{Kafka, KafkaSettings, Profile};
use millstream_testkit::{
    MemoryLog, PlainTransform,
    conformance::{SinkCheck, SinkHarness},
};
use millstream_topic::{FencesTopic, Shape, TopicSink};

/// A log for each store.
#[derive(Default)]
struct Logs(Mutex<HashMap<String, MemoryLog>>);

fn own(table: &Table) -> SchemaRef {
    let carried = [meta::OFFSET, meta::TIMESTAMP, meta::HEADERS];
    let fields = table
        .schema()
        .fields()
        .iter()
        .filter(|field| !carried.contains(&field.name().as_str()))
        .cloned()
        .collect::<Vec<_>>();
    Arc::new(Schema::new(
        fields.iter().map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect::<Vec<_>>(),
    ))
}

/// Records without a key, as JSON.
pub(crate) fn shape_of(table: &Table) -> Shape {
    let schema = own(table);
    let (columns, event_time, tombstones) = (None, None, Tombstones::DeadLetter);
    Shape {
        topic: table.name.clone(),
        generation: 1,
        partitions: 3,
        key: None,
        timestamp: None,
        partition: None,
        keeps_rows: false,
        encode: Arc::new(JsonEncoder::new(Arc::clone(&schema)).unwrap()),
        decode: Arc::new(JsonDecoder::new(JsonOptions { schema, columns, event_time, tombstones }).unwrap()),
    }
}

/// A sink whose topics' names begin with `prefix`.
pub(crate) fn sink_of<L: Log + Topics + ?Sized>(
    log: Arc<L>,
    producer: Arc<dyn Producer>,
    prefix: &str,
    (function, table): (&str, Table),
    change: impl FnOnce(&mut Shape),
) -> TopicSink<L> {
    let mut shape = shape_of(&table);
    let letters = |letter: char| {
        if letter.is_ascii_alphanumeric() { letter.to_string() } else { format!("_{}", u32::from(letter)) }
    };
    shape.topic = prefix.to_owned() + &shape.topic.chars().map(letters).collect::<String>();
    change(&mut shape);
    let clock = Arc::new(ManualClock::at_us(0));
    let (name, outbox) = (format!("{prefix}suite.fences"), format!("{prefix}suite.outbox"));
    let fences = FencesTopic { name, outbox, producer: Arc::clone(&producer), clock };
    TopicSink::new(log, producer, fences, function, table, shape)
}

fn in_memory(log: &MemoryLog, function: &str, table: Table) -> TopicSink<MemoryLog> {
    let log = Arc::new(log.clone());
    sink_of(Arc::clone(&log), log, "", (function, table), |_| ())
}

#[async_trait]
impl SinkHarness for Logs {
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink> {
        let log = self.0.lock().unwrap().entry(store.to_owned()).or_default().clone();
        Arc::new(in_memory(&log, function, table))
    }

    fn is_atomic(&self) -> bool {
        false
    }
}

async fn conforms(check: SinkCheck) {
    check.run(&Logs::default()).await;
}

millstream_testkit::sink_tests!(conforms);

/// A file for each store.
struct Files(tempfile::TempDir);

#[async_trait]
impl SinkHarness for Files {
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink> {
        let log = Embedded::open(&self.0.path().join(store), Arc::new(SystemClock)).unwrap();
        Arc::new(sink_of(Arc::clone(&log), log, "", (function, table), |_| ()))
    }

    fn is_atomic(&self) -> bool {
        false
    }
}

mod embedded {
    async fn conforms(check: super::SinkCheck) {
        check.run(&super::Files(tempfile::tempdir().unwrap())).await;
    }

    millstream_testkit::sink_tests!(conforms);
}

#[expect(clippy::disallowed_methods, reason = "tests read their services' addresses here")]
pub(crate) fn kafka() -> Arc<Kafka> {
    let missing = "MILLSTREAM_TEST_KAFKA is not set: source the file that `tests/services start kafka` names";
    let brokers = std::env::var("MILLSTREAM_TEST_KAFKA").unwrap_or_else(|_| panic!("{missing}"));
    let (config, profile, compression) = (BTreeMap::new(), Profile::Default, Compression::Gzip);
    let settings = KafkaSettings { brokers, config, profile, compression, client_id: "millstream-test".into() };
    Arc::new(Kafka::new(settings).unwrap())
}

/// A text that no other call has, nor one of another run on the same broker.
#[expect(clippy::disallowed_methods, reason = "names must differ from run to run, as the broker may be the same")]
pub(crate) fn unique() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    format!("{now}-{}-", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Topics with names of its own for each store.
struct OnKafka(String);

#[async_trait]
impl SinkHarness for OnKafka {
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink> {
        let (log, prefix) = (kafka(), format!("{}{store}-", self.0));
        let producer = log.ordered_producer(Compression::None).unwrap();
        Arc::new(sink_of(log, producer, &prefix, (function, table), |_| ()))
    }

    fn is_atomic(&self) -> bool {
        false
    }
}

mod kafka {
    async fn conforms(check: super::SinkCheck) {
        check.run(&super::OnKafka(super::unique())).await;
    }

    millstream_testkit::sink_tests!(conforms);
}

#[tokio::test]
async fn fences_need_a_topic_of_one_partition() {
    let log = MemoryLog::with_topic("suite.fences", 3);
    let sink = in_memory(&log, "suite.f", PlainTransform::Append.table("out"));
    let error = sink.prepare(true).await.unwrap_err();
    assert!(matches!(&error, Error::Stop(_)) && error.to_string().contains("has 3 partitions"), "{error}");
}

/// What was in the topic is gone, and so is what the fences of one that is made again would say.
#[tokio::test]
async fn a_topic_that_was_made_again_stops() {
    let stops = async |sink: &TopicSink<MemoryLog>, text: &str| {
        let error = sink.fence(&partition()).await.unwrap_err();
        assert!(matches!(&error, Error::Stop(_)) && error.to_string().contains(text), "{error}");
    };
    for name in ["out", "suite.fences"] {
        let log = MemoryLog::new();
        let sink = in_memory(&log, "suite.f", PlainTransform::Append.table("out"));
        sink.prepare(true).await.unwrap();
        sink.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
        assert!(sink.fence(&partition()).await.unwrap().is_some());
        log.recreate(name, 1);
        stops(&sink, &format!("topic {name} was deleted and created again")).await;
        if name == "out" {
            let again = in_memory(&log, "suite.f", PlainTransform::Append.table("out"));
            let error = again.prepare(true).await.unwrap_err();
            assert!(error.to_string().contains("Raise its `generation`"), "{error}");
        }
    }
}

fn partition() -> TopicPartition {
    TopicPartition::new("in", 1, 0)
}
