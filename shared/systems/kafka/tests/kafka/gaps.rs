//! No record comes after one that was refused.

use std::time::Duration;

use millstream_core::{
    Compression, Error, Log as _, LogStore as _, NewRecord, Producer as _, TopicPartition, Topics as _,
};

use crate::support::{address, new_topic, record, stop_text, unique, with_config};

/// Sends 50 records, of which the one at `refused` is too large for the topic, each in a request of its own. Returns how many are
/// written.
async fn written_around_a_refused_record(refused: usize, ordered: bool) -> i64 {
    let config = [("batch.num.messages", "1"), ("linger.ms", "0")];
    let kafka = with_config(address("MILLSTREAM_TEST_KAFKA"), &config);
    let topic = unique("gaps");
    kafka.create_topic(&topic, 1, &[("max.message.bytes", "2000")]).await.unwrap();
    let producer = match ordered {
        true => kafka.ordered_producer(Compression::None).unwrap(),
        false => kafka.producer(Compression::None).unwrap(),
    };
    let records = (0..50).map(|at| record(0, vec![b'x'; if at == refused { 5_000 } else { 10 }])).collect();
    let error = producer.send(&topic, records).await.unwrap_err();
    assert!(matches!(error, Error::Poison(_)), "{error}");
    kafka.watermarks(&TopicPartition::new(&topic, 1, 0)).await.unwrap().high
}

/// Readers of a function's topic drop what is not above what they have seen: a record that comes after a gap makes them lose the
/// gap's records.
#[tokio::test]
async fn an_ordered_producer_writes_nothing_after_a_record_that_was_refused() {
    for refused in [0, 0, 0, 20] {
        let written = written_around_a_refused_record(refused, true).await;
        assert!(written <= refused as i64, "{written} of {refused}");
    }
}

/// The broker takes any number as the first one of a producer that it doesn't know, so the requests behind the refused one are
/// written. If this fails, brokers or librdkafka have become stricter.
#[tokio::test]
async fn a_producer_with_several_requests_in_flight_does() {
    let mut written = 0;
    for _ in 0..20 {
        written += written_around_a_refused_record(0, false).await;
    }
    assert!(written > 0);
}

/// Whoever sends next must not be followed by what a send left behind that was cancelled.
#[tokio::test]
async fn an_ordered_producer_writes_nothing_of_a_send_that_was_cancelled() {
    let kafka = with_config(address("MILLSTREAM_TEST_KAFKA"), &[("linger.ms", "1000")]);
    let topic = new_topic(&kafka, "cancelled", 1).await;
    let producer = kafka.ordered_producer(Compression::None).unwrap();
    let end = async || kafka.watermarks(&TopicPartition::new(&topic, 1, 0)).await.unwrap().high;
    producer.send(&topic, vec![record(0, "first")]).await.unwrap();
    let cancelled = producer.send(&topic, vec![record(0, "cancelled"); 10]);
    assert!(tokio::time::timeout(Duration::from_millis(300), cancelled).await.is_err(), "the client waits for more");
    assert_eq!(end().await, 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(end().await, 1, "nothing is written later");
    let positions = producer.send(&topic, vec![record(0, "next")]).await.unwrap();
    assert_eq!(positions[0].offset, 1);
}

#[tokio::test]
async fn a_refused_time_stops() {
    let kafka = with_config(address("MILLSTREAM_TEST_KAFKA"), &[]);
    let topic = unique("times");
    kafka.create_topic(&topic, 1, &[("message.timestamp.before.max.ms", "1000")]).await.unwrap();
    let old = NewRecord { timestamp_ms: Some(1_000_000_000_000), ..record(0, "x") };
    let said = stop_text(kafka.send(&topic, vec![old]).await);
    assert!(said.contains("LogAppendTime") && said.contains("`message.timestamp.before.max.ms`"), "{said}");
}
