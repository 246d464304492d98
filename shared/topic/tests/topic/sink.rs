//! A function's topic against the conformance suite, and what is a topic's alone: lineage, partitions, what is sent again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_codec::{JsonDecoder, JsonEncoder, JsonOptions, Tombstones};
use millstream_core::{Error, ManualClock, Sink, Table, meta};
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
        keeps_rows: false,
        encode: Arc::new(JsonEncoder::new(Arc::clone(&schema)).unwrap()),
        decode: Arc::new(JsonDecoder::new(JsonOptions { schema, columns, event_time, tombstones }).unwrap()),
    }
}

fn sink_of(log: &MemoryLog, function: &str, table: Table) -> TopicSink<MemoryLog> {
    let shape = shape_of(&table);
    let log = Arc::new(log.clone());
    let clock = Arc::new(ManualClock::at_us(0));
    let fences = FencesTopic {
        name: "suite.fences".into(),
        outbox: "suite.outbox".into(),
        producer: Arc::clone(&log) as _,
        clock,
    };
    TopicSink::new(Arc::clone(&log), log, fences, function, table, shape)
}

#[async_trait]
impl SinkHarness for Logs {
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink> {
        let log = self.0.lock().unwrap().entry(store.to_owned()).or_default().clone();
        Arc::new(sink_of(&log, function, table))
    }

    fn is_atomic(&self) -> bool {
        false
    }
}

async fn conforms(check: SinkCheck) {
    check.run(&Logs::default()).await;
}

millstream_testkit::sink_tests!(conforms);

#[tokio::test]
async fn fences_need_a_topic_of_one_partition() {
    let log = MemoryLog::with_topic("suite.fences", 3);
    let sink = sink_of(&log, "suite.f", PlainTransform::Append.table("out"));
    let error = sink.prepare(true).await.unwrap_err();
    assert!(matches!(&error, Error::Stop(_)) && error.to_string().contains("has 3 partitions"), "{error}");
}
