//! Members of a consumer group: what they read, share, and leave behind.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use millstream_core::{Batch, Handler, Limits, LogStore, Result, Source, TopicPartition};

use crate::{
    support::{LIMITS, fill, kafka, new_topic, subscription, texts, until},
    table::{Member, Table},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_record_comes_once_in_bounded_batches_and_the_commit_follows() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "once", 3).await;
    for partition in 0..3 {
        fill(&kafka, &topic, partition, 0..34_000).await;
    }
    let table = Arc::new(Table::default());
    table.fences.lock().unwrap().insert(1, 12_345);
    let all = 34_000 * 3 - 12_345;
    let member = Member::new(&table, all);
    kafka.consume(subscription(&topic, LIMITS), member.clone()).await.unwrap();
    let expected = BTreeMap::from([(0, texts(0..34_000)), (1, texts(12_345..34_000)), (2, texts(0..34_000))]);
    assert!(*table.values.lock().unwrap() == expected, "values differ");
    let (records, bytes) = *member.largest.lock().unwrap();
    assert!(records == LIMITS.max_records && bytes <= LIMITS.max_bytes, "{records} records, {bytes} bytes");
    let committed = kafka.group_offsets(&format!("{topic}-group"), &topic, 1).await.unwrap();
    assert_eq!(committed, [Some(34_000); 3], "the last commit is made before the group is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_member_takes_partitions_over_and_gives_them_back() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "members", 4).await;
    let table = Arc::new(Table::default());
    let (first, second) = (Member::new(&table, usize::MAX), Member::new(&table, usize::MAX));
    let consume = |member: &Arc<Member>| {
        let (kafka, member) = (kafka.clone(), member.clone());
        let subscription = subscription(&topic, Limits { max_records: 100, ..LIMITS });
        tokio::spawn(async move { kafka.consume(subscription, member).await })
    };
    let stop_writing = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (kafka, topic, stop) = (kafka.clone(), topic.clone(), stop_writing.clone());
        async move {
            let mut sent = 0;
            while !stop.load(Ordering::SeqCst) {
                for partition in 0..4 {
                    fill(&kafka, &topic, partition, sent..sent + 200).await;
                }
                sent += 200;
            }
            sent
        }
    });
    let one = consume(&first);
    until("the first member works", || first.handled.load(Ordering::SeqCst) > 1_000).await;
    let two = consume(&second);
    until("the second member works", || second.handled.load(Ordering::SeqCst) > 1_000).await;
    assert_eq!(second.started.lock().unwrap().len(), 2, "half of the partitions go to the second member");
    second.stopping.store(true, Ordering::SeqCst);
    two.await.unwrap().unwrap();
    stop_writing.store(true, Ordering::SeqCst);
    let sent = writer.await.unwrap();
    until("the first member has all", || table.count() == sent * 4).await;
    first.stopping.store(true, Ordering::SeqCst);
    one.await.unwrap().unwrap();
    for (partition, values) in table.values.lock().unwrap().iter() {
        assert!(*values == texts(0..sent), "partition {partition}");
    }
}

/// Never finishes a batch.
struct Stuck(AtomicBool);

#[async_trait]
impl Handler for Stuck {
    async fn start(&self, _: &TopicPartition) -> Result<i64> {
        Ok(0)
    }

    async fn handle(&self, _: Batch) -> Result<i64> {
        self.0.store(true, Ordering::SeqCst);
        std::future::pending().await
    }

    fn stopping(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_never_finishes_is_abandoned() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "stuck", 1).await;
    fill(&kafka, &topic, 0, 0..10).await;
    let consumed = kafka.consume(subscription(&topic, LIMITS), Arc::new(Stuck(AtomicBool::new(false))));
    tokio::time::timeout(Duration::from_secs(30), consumed).await.expect("stops in bounded time").unwrap();
    assert_eq!(
        kafka.group_offsets(&format!("{topic}-group"), &topic, 1).await.unwrap(),
        [None],
        "nothing was committed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_nobody_waits_for_leaves_the_group() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "dropped", 1).await;
    fill(&kafka, &topic, 0, 0..10).await;
    let table = Arc::new(Table::default());
    let member = Member::new(&table, usize::MAX);
    let task = tokio::spawn({
        let (kafka, member, subscription) = (kafka.clone(), member.clone(), subscription(&topic, LIMITS));
        async move { kafka.consume(subscription, member).await }
    });
    until("it reads", || table.count() == 10).await;
    task.abort();
    // The next one would wait for the session of the first to time out (6 s) if that had not left.
    fill(&kafka, &topic, 0, 10..20).await;
    let next = Member::new(&table, 20);
    let consumed = kafka.consume(subscription(&topic, LIMITS), next.clone());
    tokio::time::timeout(Duration::from_secs(20), consumed).await.expect("takes the partition over").unwrap();
    assert_eq!(table.values.lock().unwrap()[&0], texts(0..20));
}
