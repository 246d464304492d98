//! Clients, topics and records for the tests.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use millstream_core::{Error, Limits, NewRecord, Producer, Result, Subscription, Topics};
use millstream_kafka::{Kafka, KafkaSettings, Profile};

pub const LIMITS: Limits = Limits { max_records: 5_000, max_bytes: 1 << 20, max_wait_ms: 50 };

/// No condition that a test waits for may take longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "tests read their services' addresses here")]
pub fn address(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: source the file that `tests/services start kafka` names"))
}

#[expect(clippy::disallowed_methods, reason = "names must differ from run to run, as the broker may be the same")]
pub fn unique(name: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    format!("{name}-{now}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[expect(clippy::disallowed_methods, reason = "tests check that what must end in time does")]
pub fn now() -> Instant {
    Instant::now()
}

pub fn settings(brokers: String) -> KafkaSettings {
    KafkaSettings {
        brokers,
        config: BTreeMap::new(),
        profile: Profile::Default,
        compression: millstream_core::Compression::Gzip,
        client_id: "millstream-test".into(),
    }
}

pub fn kafka() -> Kafka {
    Kafka::new(settings(address("MILLSTREAM_TEST_KAFKA"))).unwrap()
}

pub fn with_config(brokers: String, config: &[(&str, &str)]) -> Kafka {
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Kafka::new(KafkaSettings { config, ..settings(brokers) }).unwrap()
}

pub async fn new_topic(kafka: &Kafka, name: &str, partitions: i32) -> String {
    let topic = unique(name);
    kafka.create_topic(&topic, partitions, &[]).await.unwrap();
    topic
}

pub fn subscription(topic: &str, limits: Limits) -> Subscription {
    Subscription { group: format!("{topic}-group"), topics: vec![(topic.to_owned(), 1)], limits, every_ms: None }
}

pub fn record(partition: i32, value: impl Into<Vec<u8>>) -> NewRecord {
    NewRecord { value: Some(value.into()), partition: Some(partition), ..NewRecord::default() }
}

pub async fn fill(kafka: &Kafka, topic: &str, partition: i32, values: std::ops::Range<usize>) {
    let records = values.map(|value| record(partition, value.to_string())).collect();
    kafka.send(topic, records).await.unwrap();
}

pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = now() + PATIENCE;
    while !condition() {
        assert!(now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn texts(values: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    values.map(|value| value.to_string().into_bytes()).collect()
}

pub fn stop_text(result: Result<impl std::fmt::Debug>) -> String {
    match result {
        Err(Error::Stop(cause)) => cause.to_string(),
        other => panic!("must be Stop, got {other:?}"),
    }
}
