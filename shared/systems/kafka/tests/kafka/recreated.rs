//! A topic that is deleted and re-created under its name is another one, whatever it looks like.

use std::sync::{Arc, atomic::Ordering};

use millstream_core::{Log, Source, Topics};
use millstream_kafka::Kafka;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};

use crate::{
    support::{LIMITS, PATIENCE, address, fill, kafka, new_topic, now, subscription, until},
    table::{Member, Table},
};

async fn recreate(kafka: &Kafka, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", address("MILLSTREAM_TEST_KAFKA")).create().unwrap();
    let id = kafka.topic_id(topic).await.unwrap();
    admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let deadline = now() + PATIENCE;
    // Until the broker has forgotten the old one, it is there already.
    loop {
        let created = kafka.create_topic(topic, 1, &[]).await;
        if created.is_ok() && kafka.topic_id(topic).await.is_ok_and(|now| now.is_some() && now != id) {
            return;
        }
        assert!(now() < deadline, "{topic} was not re-created within {PATIENCE:?}: {created:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_id_is_another() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "id", 1).await;
    let id = kafka.topic_id(&topic).await.unwrap();
    assert!(id.as_ref().is_some_and(|id| id.len() == 22), "16 bytes in base64: {id:?}");
    recreate(&kafka, &topic).await;
    assert_ne!(kafka.topic_id(&topic).await.unwrap(), id);
}

/// librdkafka itself reads on at the old offset, if the new topic is long enough.
#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_read_its_partitions_are_started_again() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "recreated", 1).await;
    fill(&kafka, &topic, 0, 0..10).await;
    let table = Arc::new(Table::default());
    let member = Member::new(&table, usize::MAX);
    let consuming = tokio::spawn({
        let (kafka, topic, member) = (kafka.clone(), topic.clone(), member.clone());
        async move { kafka.consume(subscription(&topic, LIMITS), member).await }
    });
    until("the old one is in", || table.count() == 10).await;
    let starts = || member.started.lock().unwrap().len();
    let before = starts();
    recreate(&kafka, &topic).await;
    fill(&kafka, &topic, 0, 0..30).await;
    // It may have been missing when it was asked for: then the function has stopped, which is right as well.
    until("the partition starts again", || starts() > before || consuming.is_finished()).await;
    member.stopping.store(true, Ordering::SeqCst);
    let _ = consuming.await.unwrap();
}
