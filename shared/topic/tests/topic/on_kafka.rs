//! What only a real broker does: it refuses records by their size and by their time.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use millstream_core::{Compression, Error, Fence, Log as _, LogStore as _, Result, Sink, TopicPartition, Topics as _};
use millstream_kafka::Kafka;
use millstream_testkit::PlainTransform;
use millstream_topic::TopicSink;

use crate::sink::{kafka, sink_of, unique};

fn source() -> TopicPartition {
    TopicPartition::new("in", 1, 0)
}

/// A sink whose topic has these settings, and that topic's only partition.
async fn sink(config: &[(&str, &str)]) -> (TopicSink<Kafka>, TopicPartition) {
    let (log, prefix) = (kafka(), unique());
    let topic = format!("{prefix}out");
    log.create_topic(&topic, 1, config).await.unwrap();
    let producer = log.ordered_producer(Compression::None).unwrap();
    let sink = sink_of(log, producer, &prefix, ("suite.f", PlainTransform::Append.table("out")), |_| ());
    sink.prepare(true).await.unwrap();
    sink.create_fence(&source(), Fence::starting_at(0)).await.unwrap();
    (sink, TopicPartition::new(topic, 1, 0))
}

/// Writes texts as the rows of the offsets from `from` on.
async fn write(sink: &dyn Sink, from: i64, texts: Vec<String>) -> Result<()> {
    let offsets: ArrayRef = Arc::new(Int64Array::from_iter_values((from..).take(texts.len())));
    let (start, end) = (Fence::starting_at(from), Fence::starting_at(from + texts.len() as i64));
    let columns = vec![Arc::new(StringArray::from(texts)) as _, offsets];
    let rows = RecordBatch::try_new(PlainTransform::Append.table("out").schema(), columns).unwrap();
    sink.write(&source(), &start, &Fence { start_offset: 0, ..end }, &[rows]).await
}

async fn high(topic: &TopicPartition) -> i64 {
    kafka().watermarks(topic).await.unwrap().high
}

/// A dead letter's record leaves no rows: its size is known before anything is sent.
#[tokio::test]
async fn nothing_of_a_batch_is_sent_when_one_of_its_records_is_too_large() {
    let (sink, topic) = sink(&[("max.message.bytes", "20000")]).await;
    let texts = |large: usize| (0..300).map(|at| "x".repeat(if at == 250 { large } else { 1_000 })).collect();
    let error = write(&sink, 0, texts(20_000)).await.unwrap_err();
    assert!(matches!(&error, Error::Poison(_)) && error.to_string().contains("`max.message.bytes`"), "{error}");
    assert_eq!(high(&topic).await, 0);
    // The client fills its requests up to a megabyte, which this topic would refuse.
    write(&sink, 0, texts(18_000)).await.unwrap();
    assert_eq!(high(&topic).await, 300);
    assert_eq!(sink.fence(&source()).await.unwrap().unwrap().next_offset, 300);
}

#[tokio::test]
async fn a_topic_that_refuses_a_time_stops_the_function() {
    let (sink, topic) = sink(&[("cleanup.policy", "compact")]).await;
    let error = write(&sink, 0, vec!["x".into()]).await.unwrap_err();
    assert!(matches!(&error, Error::Stop(_)) && error.to_string().contains("compacted topic"), "{error}");
    assert_eq!(high(&topic).await, 0);
}
