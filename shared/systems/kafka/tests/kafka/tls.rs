//! The same over TLS, with and without a password, and what a certificate that doesn't fit does.

use std::{sync::Arc, time::Duration};

use millstream_core::{Error, Log, LogStore, Source, TopicPartition, Watermarks};
use millstream_kafka::{Kafka, KafkaSettings};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::{
    authentication::{PLAIN, SCRAM, stop_texts},
    support::{LIMITS, address, fill, new_topic, now, settings, stop_text, subscription, texts, with_config},
    table::{Member, Table},
};

/// What only a person can help with must be reported in this time, however many calls there are.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

pub fn encrypted(brokers: String, ca: &str) -> Kafka {
    with_config(brokers, &[("security.protocol", "SSL"), ("ssl.ca.location", ca)])
}

fn encrypted_and_authenticated(ca: &str, mechanism: &str, user: &str, password: &str) -> Kafka {
    let config = [
        ("security.protocol", "SASL_SSL"),
        ("ssl.ca.location", ca),
        ("sasl.mechanism", mechanism),
        ("sasl.username", user),
        ("sasl.password", password),
    ];
    with_config(address("MILLSTREAM_TEST_KAFKA_SASL_TLS"), &config)
}

/// Each kind of client that this crate makes: administration, producer, questions, range reads, a member of a group.
async fn all_clients_work(kafka: &Kafka) {
    let topic = new_topic(kafka, "tls", 1).await;
    fill(kafka, &topic, 0, 0..10).await;
    let partition = TopicPartition::new(&topic, 1, 0);
    assert_eq!(kafka.watermarks(&partition).await.unwrap(), Watermarks { low: 0, high: 10 });
    assert_eq!(kafka.read(&partition, 0..10, LIMITS).await.unwrap().range(), 0..10);
    let table = Arc::new(Table::default());
    kafka.consume(subscription(&topic, LIMITS), Member::new(&table, 10)).await.unwrap();
    assert_eq!(table.values.lock().unwrap()[&0], texts(0..10));
    let committed = kafka.group_offsets(&format!("{topic}-group"), &topic, 1).await.unwrap();
    assert_eq!(committed, [Some(10)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_clients_work_over_tls() {
    all_clients_work(&encrypted(address("MILLSTREAM_TEST_KAFKA_TLS"), &address("MILLSTREAM_TEST_CA"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_over_tls_works_and_a_wrong_password_stops() {
    let ca = address("MILLSTREAM_TEST_CA");
    for (mechanism, user) in [PLAIN, SCRAM] {
        all_clients_work(&encrypted_and_authenticated(&ca, mechanism, user, "secret")).await;
        let wrong = encrypted_and_authenticated(&ca, mechanism, user, "hunter2");
        let text = stop_text(wrong.partitions("none").await);
        assert!(text.contains("check") && text.contains("password") && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_holds_no_certificates_stops() {
    for file in ["/nowhere.pem", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
        let config = [("security.protocol", "SASL_SSL"), ("sasl.mechanism", "PLAIN"), ("ssl.ca.location", file)];
        let config = config.into_iter().chain([("sasl.username", "u"), ("sasl.password", "hunter2")]);
        let config = config.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let text = stop_text(Kafka::new(KafkaSettings { config, ..settings("127.0.0.1:9".into()) }));
        assert!(text.contains("ssl.ca.location") && !text.contains("hunter2"), "{text}");
    }
}

/// The message says that the certificate is to blame, and what to check.
fn blames_the_certificate(text: &str, brokers: &str) {
    for part in [brokers, "certificate", "MILLSTREAM_KAFKA_CA"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_stops() {
    let (tls, sasl_tls) = (address("MILLSTREAM_TEST_KAFKA_TLS"), address("MILLSTREAM_TEST_KAFKA_SASL_TLS"));
    let other_ca = address("MILLSTREAM_TEST_OTHER_CA");
    let begun = now();
    for text in stop_texts(&encrypted(tls.clone(), &other_ca), "none").await {
        blames_the_certificate(&text, &tls);
    }
    // The password is never sent, so that it need not be a right one.
    let authenticating = encrypted_and_authenticated(&other_ca, PLAIN.0, PLAIN.1, "hunter2");
    blames_the_certificate(&stop_text(authenticating.partitions("none").await), &sasl_tls);
    // Without a file, the system's authorities are asked.
    let system = with_config(tls.clone(), &[("security.protocol", "SSL")]);
    blames_the_certificate(&stop_text(system.partitions("none").await), &tls);
    assert!(begun.elapsed() < TOLD_WITHIN, "took {:?}", begun.elapsed());
}

/// Listens at a port of `host`, and forwards bytes both ways.
async fn proxy(host: &str, to: String) -> u16 {
    let listener = TcpListener::bind((host, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&to).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_host_stops() {
    // Loopback as well, but the certificate does not have it.
    let port = proxy("127.0.0.2", address("MILLSTREAM_TEST_KAFKA_TLS")).await;
    let elsewhere = format!("127.0.0.2:{port}");
    let kafka = encrypted(elsewhere.clone(), &address("MILLSTREAM_TEST_CA"));
    blames_the_certificate(&stop_text(kafka.partitions("none").await), &elsewhere);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_of_the_other_kind_is_named_in_time() {
    let (plain, tls) = (address("MILLSTREAM_TEST_KAFKA"), address("MILLSTREAM_TEST_KAFKA_TLS"));
    let begun = now();
    let encrypted = encrypted(plain.clone(), &address("MILLSTREAM_TEST_CA"));
    let not_encrypted = Kafka::new(settings(tls.clone())).unwrap();
    // Both look like a broker that is away, which may come back: the connection ends without a word.
    for (kafka, brokers, hint) in
        [(encrypted, plain, "PLAINTEXT broker listener?"), (not_encrypted, tls, "MILLSTREAM_KAFKA_SECURITY")]
    {
        match kafka.partitions("none").await {
            Err(Error::Retry(cause)) => {
                let text = cause.to_string();
                assert!(text.contains(&brokers) && text.contains(hint), "{text}");
            }
            other => panic!("must be Retry, got {other:?}"),
        }
    }
    assert!(begun.elapsed() < TOLD_WITHIN, "took {:?}", begun.elapsed());
}
