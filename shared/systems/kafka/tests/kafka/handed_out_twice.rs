//! Partitions that the group hands out twice, and revokes none in between.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use millstream_core::{Batch, Handler, Limits, Result, Source, TopicPartition, Topics};

use crate::{
    support::{LIMITS, address, fill, new_topic, subscription, texts, until, with_config},
    table::{Member, Table},
};

/// Starts its first partition slowly, and sees whether two batches of a partition are handled at once.
struct Slow {
    member: Arc<Member>,
    has_begun: AtomicBool,
    handling: Mutex<BTreeSet<i32>>,
    two_at_once: AtomicBool,
}

#[async_trait]
impl Handler for Slow {
    async fn start(&self, partition: &TopicPartition) -> Result<i64> {
        if !self.has_begun.swap(true, Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(8)).await;
        }
        self.member.start(partition).await
    }

    async fn handle(&self, batch: Batch) -> Result<i64> {
        let partition = batch.partition().partition;
        if !self.handling.lock().unwrap().insert(partition) {
            self.two_at_once.store(true, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let handled = self.member.handle(batch).await;
        self.handling.lock().unwrap().remove(&partition);
        handled
    }

    fn stopping(&self) -> bool {
        self.member.stopping()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_has_one_reader() {
    const RECORDS: usize = 50_000;
    let kafka = with_config(address("MILLSTREAM_TEST_KAFKA"), &[("topic.metadata.refresh.interval.ms", "300")]);
    let topic = new_topic(&kafka, "twice", 1).await;
    fill(&kafka, &topic, 0, 0..RECORDS).await;
    let table = Arc::new(Table::default());
    let slow = Arc::new(Slow {
        member: Member::new(&table, RECORDS),
        has_begun: AtomicBool::new(false),
        handling: Mutex::default(),
        two_at_once: AtomicBool::new(false),
    });
    let consuming = tokio::spawn({
        let (kafka, slow) = (kafka.clone(), slow.clone());
        let subscription = subscription(&topic, Limits { max_records: 500, ..LIMITS });
        async move { kafka.consume(subscription, slow).await }
    });
    until("the first start is under way", || slow.has_begun.load(Ordering::SeqCst)).await;
    // The group is joined anew for it while the client still owes its answer to the first assignment.
    kafka.raise_partitions(&topic, 2).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), consuming).await.expect("all is read").unwrap().unwrap();
    assert!(!slow.two_at_once.load(Ordering::SeqCst), "two batches of a partition were handled at once");
    assert!(table.values.lock().unwrap()[&0] == texts(0..RECORDS), "values differ");
    assert_eq!(*slow.member.started.lock().unwrap(), [0, 0, 1], "the partitions were handed out twice");
}
