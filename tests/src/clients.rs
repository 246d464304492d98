//! Clients of the tests' own: what they do to Kafka and PostgreSQL, past the code under test.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};

use millstream_core::{Clock, Compression, Log, SystemClock};
use millstream_kafka::{Kafka, KafkaSettings, Profile};
use millstream_testkit::database_url;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList, admin::AdminClient, admin::AdminOptions, client::DefaultClientContext,
};
use tokio_postgres::NoTls;

use crate::wait::{PATIENCE, until};

/// A setting of the test run: the address of a service.
#[expect(clippy::disallowed_methods, reason = "the edge: the addresses of the services come from the environment")]
pub fn setting(name: &str) -> String {
    let hint = "start services by `tests/services start` and source the env file that it prints";
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: {hint}, or run `tests/run`"))
}

/// A name that is unique among tests, and among runs on the same services.
pub fn unique(name: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{name}_{}_{}", SystemClock.now_ms() % 1_000_000_000, NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A client of the tests' own.
pub fn kafka(brokers: &str, compression: Compression) -> Kafka {
    let settings = KafkaSettings {
        brokers: brokers.to_owned(),
        config: BTreeMap::new(),
        profile: Profile::Default,
        compression,
        client_id: "millstream-tests".to_owned(),
    };
    Kafka::new(settings).unwrap()
}

/// Deletes a topic and waits until it is gone.
pub async fn delete_topic(brokers: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let kafka = kafka(brokers, Compression::None);
    until(PATIENCE, "the end of a topic", async || match kafka.partitions(topic).await {
        Err(error) if !error.is_retry() => Ok(()),
        other => Err(format!("it is still there: {other:?}")),
    })
    .await;
}

/// Deletes the records of a partition below `offset`, as retention does.
pub async fn delete_records(brokers: &str, topic: &str, partition: i32, offset: i64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let mut below = TopicPartitionList::new();
    below.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    admin.delete_records(&below, &AdminOptions::new()).await.unwrap();
}

/// Creates a database on the server of `url`, and gives its URL.
pub async fn new_database(url: &str, name: &str) -> String {
    create_database(url, &unique(name)).await
}

/// Creates a database of exactly this name on the server of `url`, and gives its URL.
pub(crate) async fn create_database(url: &str, name: &str) -> String {
    postgres_client(url).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    database_url(url, name).unwrap()
}

/// A PostgreSQL connection of the test itself.
pub async fn postgres_client(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
