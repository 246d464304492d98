//! What stops a function, what is retried, and what is poison.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use millstream_core::{Error, Log, Producer, Source, TopicPartition, Topics};
use millstream_kafka::Kafka;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};

use crate::{
    support::{LIMITS, address, fill, kafka, new_topic, now, record, settings, stop_text, subscription, texts, unique},
    table::{Member, Table},
};

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_retention_deleted_stop_the_function() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "deleted", 1).await;
    fill(&kafka, &topic, 0, 0..50).await;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", address("MILLSTREAM_TEST_KAFKA")).create().unwrap();
    let mut below = TopicPartitionList::new();
    below.add_partition_offset(&topic, 0, Offset::Offset(30)).unwrap();
    admin.delete_records(&below, &AdminOptions::new()).await.unwrap();
    let table = Arc::new(Table::default());
    table.fences.lock().unwrap().insert(0, 10);
    let consumed = kafka.consume(subscription(&topic, LIMITS), Member::new(&table, usize::MAX)).await;
    let read = kafka.read(&TopicPartition::new(&topic, 1, 0), 10..40, LIMITS).await.map(|batch| batch.range());
    for text in [stop_text(consumed), stop_text(read)] {
        assert!(text.contains(&topic) && text.contains("10..30 were deleted by retention"), "{text}");
        assert!(text.contains("SET next_offset = 30") && !text.contains("anew"), "no way out that doubles: {text}");
    }
    table.fences.lock().unwrap().insert(0, 30);
    kafka.consume(subscription(&topic, LIMITS), Member::new(&table, 20)).await.unwrap();
    assert_eq!(table.values.lock().unwrap()[&0], texts(30..50));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_that_stays_above_the_end_stops() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "above", 1).await;
    fill(&kafka, &topic, 0, 0..5).await;
    let table = Arc::new(Table::default());
    table.fences.lock().unwrap().insert(0, 1_000);
    let consumed = kafka.consume(subscription(&topic, LIMITS), Member::new(&table, usize::MAX)).await;
    let text = stop_text(consumed);
    assert!(text.contains("ends at offset 5") && text.contains("1000") && text.contains("re-created"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_stops() {
    let kafka = kafka();
    let topic = unique("missing");
    let table = Arc::new(Table::default());
    let consumed = kafka.consume(subscription(&topic, LIMITS), Member::new(&table, usize::MAX)).await;
    let sent = kafka.send(&topic, vec![record(0, "v")]).await;
    for text in [stop_text(consumed), stop_text(sent), stop_text(kafka.partitions(&topic).await)] {
        assert!(text.contains(&topic) && text.contains("millstream up"), "{text}");
    }
    let existing = new_topic(&kafka, "narrow", 1).await;
    let text = stop_text(kafka.send(&existing, vec![record(3, "v")]).await);
    assert!(text.contains("no partition 3"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_down_is_named_in_time_and_waited_for() {
    // Port 9 is "discard": nothing listens there.
    let kafka = Kafka::new(settings("127.0.0.1:9".into())).unwrap();
    let partition = TopicPartition::new("t", 1, 0);
    let begun = now();
    let (partitions, watermarks, read, sent, created) = tokio::join!(
        async { kafka.partitions("t").await.map(drop) },
        async { kafka.watermarks(&partition).await.map(drop) },
        async { kafka.read(&partition, 0..1, LIMITS).await.map(drop) },
        async { kafka.send("t", vec![record(0, "v")]).await.map(drop) },
        kafka.create_topic("t", 1, &[]),
    );
    assert!(begun.elapsed() < Duration::from_secs(30), "took {:?}", begun.elapsed());
    for result in [partitions, watermarks, read, sent, created] {
        match result {
            Err(error @ Error::Retry(_)) => {
                let text = error.to_string();
                assert!(text.contains("127.0.0.1:9") && text.contains("Connection refused"), "{text}");
            }
            other => panic!("must be Retry, got {other:?}"),
        }
    }
    let table = Arc::new(Table::default());
    let member = Member::new(&table, usize::MAX);
    let consuming = tokio::spawn({
        let (kafka, member) = (kafka.clone(), member.clone());
        async move { kafka.consume(subscription("t", LIMITS), member).await }
    });
    assert!(
        tokio::time::timeout(Duration::from_secs(3), async {
            while !consuming.is_finished() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .is_err(),
        "a broker that is down does not end a member"
    );
    member.stopping.store(true, Ordering::SeqCst);
    let ended = tokio::time::timeout(Duration::from_secs(15), consuming).await;
    ended.expect("it stops in time").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_poison_and_the_next_one_goes_through() {
    let kafka = kafka();
    let topic = unique("large");
    kafka.create_topic(&topic, 1, &[("max.message.bytes", "50000")]).await.unwrap();
    // Does not compress.
    let mut state = 7u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(100_000)
    .collect();
    for (value, limit) in [(noise, "50000"), (vec![0; 40 << 20], "33554432")] {
        match kafka.send(&topic, vec![record(0, value)]).await {
            Err(Error::Poison(cause)) => assert!(cause.to_string().contains(limit), "{cause}"),
            other => panic!("must be Poison, got {other:?}"),
        }
    }
    let positions = kafka.send(&topic, vec![record(0, "small")]).await.unwrap();
    assert_eq!(positions[0].offset, 0, "nothing of the large ones was written");
}
