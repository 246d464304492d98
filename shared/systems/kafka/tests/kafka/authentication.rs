//! SASL, and what a wrong password says.

use std::sync::Arc;

use millstream_core::{Log, Producer, Source, TopicPartition, Topics};
use millstream_kafka::Kafka;

use crate::{
    support::{LIMITS, address, fill, new_topic, record, stop_text, subscription, unique, with_config},
    table::{Member, Table},
};

pub const PLAIN: (&str, &str) = ("PLAIN", "$ConnectionString");

pub const SCRAM: (&str, &str) = ("SCRAM-SHA-512", "millstream");

#[tokio::test(flavor = "multi_thread")]
async fn a_right_password_works_and_a_wrong_one_stops_unquoted() {
    for (mechanism, user) in [PLAIN, SCRAM] {
        let kafka = authenticated(mechanism, user, "secret");
        let topic = new_topic(&kafka, "sasl", 1).await;
        fill(&kafka, &topic, 0, 0..10).await;
        let table = Arc::new(Table::default());
        kafka.consume(subscription(&topic, LIMITS), Member::new(&table, 10)).await.unwrap();
        assert_eq!(table.count(), 10, "{mechanism}");
        wrong_passwords_stop(&topic, mechanism, user).await;
    }
}

async fn wrong_passwords_stop(topic: &str, mechanism: &str, user: &str) {
    for text in stop_texts(&authenticated(mechanism, user, "hunter2"), topic).await {
        assert!(text.contains("password") && !text.contains("hunter2"), "{text}");
    }
}

/// What each thing that a client can do says, all of which must be Stop.
pub async fn stop_texts(kafka: &Kafka, topic: &str) -> [String; 6] {
    assert!(!format!("{kafka:?}").contains("hunter2"));
    let table = Arc::new(Table::default());
    let partition = TopicPartition::new(topic, 1, 0);
    [
        stop_text(kafka.partitions(topic).await),
        stop_text(kafka.watermarks(&partition).await),
        stop_text(kafka.read(&partition, 0..10, LIMITS).await),
        stop_text(kafka.send(topic, vec![record(0, "v")]).await),
        stop_text(kafka.create_topic(&unique("stopped"), 1, &[]).await),
        stop_text(kafka.consume(subscription(topic, LIMITS), Member::new(&table, usize::MAX)).await),
    ]
}

fn authenticated(mechanism: &str, user: &str, password: &str) -> Kafka {
    let config = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", mechanism),
        ("sasl.username", user),
        ("sasl.password", password),
    ];
    with_config(address("MILLSTREAM_TEST_KAFKA_SASL"), &config)
}
