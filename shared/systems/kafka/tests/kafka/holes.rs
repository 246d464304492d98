//! Offsets without a record, and offsets that the broker denies.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering, time::Duration};

use millstream_core::{Limits, Log, Source, TopicPartition};
use millstream_kafka::Kafka;
use rdkafka::{
    ClientConfig,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, Producer},
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use crate::{
    support::{LIMITS, PATIENCE, address, fill, kafka, new_topic, now, settings, subscription, texts, until},
    table::{Member, Table},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_has_grown_since_its_end_was_met_is_read_on() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "grown", 1).await;
    let partition = TopicPartition::new(&topic, 1, 0);
    let limits = Limits { max_records: 100, ..LIMITS };
    fill(&kafka, &topic, 0, 0..100).await;
    assert_eq!(kafka.read(&partition, 0..1_000, limits).await.unwrap().range(), 0..100);
    // The client reads ahead, and meets the end.
    tokio::time::sleep(Duration::from_millis(500)).await;
    fill(&kafka, &topic, 0, 100..200).await;
    assert_eq!(kafka.read(&partition, 100..200, limits).await.unwrap().range(), 100..200);
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_and_markers_are_holes_that_are_vouched_for() {
    let kafka = kafka();
    let topic = with_an_aborted_transaction(&kafka).await;
    let partition = TopicPartition::new(&topic, 1, 0);
    // A commit is answered before its marker stands in the log.
    let deadline = now() + PATIENCE;
    while kafka.watermarks(&partition).await.unwrap().high < 8 {
        assert!(now() < deadline, "the last marker is not there within {PATIENCE:?}");
    }
    for (range, offsets) in [(0..8, vec![0, 1, 6]), (0..4, vec![0, 1]), (2..5, vec![]), (7..8, vec![])] {
        let batch = kafka.read(&partition, range.clone(), LIMITS).await.unwrap();
        assert_eq!((batch.range(), batch.offsets().values().to_vec()), (range.clone(), offsets), "{range:?}");
    }
    let limits = Limits { max_records: 2, ..LIMITS };
    assert_eq!(kafka.read(&partition, 0..8, limits).await.unwrap().range(), 0..2);
    assert_eq!(kafka.read(&partition, 2..8, limits).await.unwrap().range(), 2..8, "goes on where it stood");
    // A member's fence ends up behind the last marker, with a batch of its own where the records were in already.
    let table = Arc::new(Table::default());
    for _ in 0..2 {
        let member = Member::new(&table, usize::MAX);
        let consume = tokio::spawn({
            let (kafka, topic, member) = (kafka.clone(), topic.clone(), member.clone());
            async move { kafka.consume(subscription(&topic, LIMITS), member).await }
        });
        until("the fence is at the end", || table.fence(0) == 8).await;
        member.stopping.store(true, Ordering::SeqCst);
        consume.await.unwrap().unwrap();
        assert_eq!(table.values.lock().unwrap()[&0], texts(0..3));
        table.fences.lock().unwrap().insert(0, 7);
    }
}

/// A broker that has just come back may deny an offset that it has. librdkafka's own mock cluster says so once; the real
/// one does it too seldom to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_is_denied_for_a_moment_is_read_again_from_the_fence() {
    let cluster = MockCluster::new(1).unwrap();
    let kafka = Kafka::new(settings(cluster.bootstrap_servers())).unwrap();
    cluster.create_topic("denied", 2, 1).unwrap();
    for partition in 0..2 {
        fill(&kafka, "denied", partition, 0..500).await;
    }
    cluster.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE]);
    let table = Arc::new(Table::default());
    let member = Member::new(&table, 1_000);
    let consume = kafka.consume(subscription("denied", LIMITS), member.clone());
    tokio::time::timeout(PATIENCE, consume).await.unwrap().unwrap();
    assert!(member.started.lock().unwrap().len() >= 4, "the partitions have begun again");
    assert_eq!(*table.values.lock().unwrap(), BTreeMap::from([(0, texts(0..500)), (1, texts(0..500))]));
}

/// Two records, then three that are aborted, then one: offsets 0, 1, (2, 3, 4, marker 5), 6, marker 7.
async fn with_an_aborted_transaction(kafka: &Kafka) -> String {
    let topic = new_topic(kafka, "aborted", 1).await;
    fill(kafka, &topic, 0, 0..2).await;
    let name = topic.clone();
    tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", address("MILLSTREAM_TEST_KAFKA"))
            .set("transactional.id", &name)
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        for (values, commit) in [(2..5, false), (2..3, true)] {
            producer.begin_transaction().unwrap();
            for value in values {
                let value = value.to_string();
                producer.send(BaseRecord::<(), str>::to(&name).payload(&value)).map_err(|(error, _)| error).unwrap();
            }
            producer.flush(PATIENCE).unwrap();
            if commit {
                producer.commit_transaction(PATIENCE).unwrap();
            } else {
                producer.abort_transaction(PATIENCE).unwrap();
            }
        }
    })
    .await
    .unwrap();
    topic
}
