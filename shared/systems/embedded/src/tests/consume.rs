use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use millstream_core::{Batch, Handler, Limits, Producer, Result, Source, Subscription, TopicPartition, Topics};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{LIMIT, ROOMY, open, record};
use crate::Embedded;

/// Keeps what it is given, and stops after so many records.
struct Seen {
    start: i64,
    stop_after: usize,
    /// A permit lets one batch through.
    gate: Semaphore,
    batches: Mutex<Vec<Batch>>,
    acknowledged: Mutex<Vec<i64>>,
    stopping: AtomicBool,
}

impl Seen {
    fn new(start: i64, stop_after: usize) -> Arc<Self> {
        Arc::new(Self {
            start,
            stop_after,
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            batches: Mutex::default(),
            acknowledged: Mutex::default(),
            stopping: AtomicBool::new(false),
        })
    }

    fn ranges(&self) -> Vec<(i64, i64, usize)> {
        let ranges = |batch: &Batch| (batch.range().start, batch.range().end, batch.len());
        self.batches.lock().unwrap().iter().map(ranges).collect()
    }
}

#[async_trait]
impl Handler for Seen {
    async fn start(&self, _partition: &TopicPartition) -> Result<i64> {
        Ok(self.start)
    }

    async fn handle(&self, batch: Batch) -> Result<i64> {
        self.gate.acquire().await.unwrap().forget();
        let end = batch.range().end;
        let mut batches = self.batches.lock().unwrap();
        batches.push(batch);
        if batches.iter().map(Batch::len).sum::<usize>() >= self.stop_after {
            self.stopping.store(true, Ordering::SeqCst);
        }
        Ok(end)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn acknowledged(&self, _partition: &TopicPartition, next_offset: i64) {
        self.acknowledged.lock().unwrap().push(next_offset);
    }
}

async fn consume(store: &Embedded, limits: Limits, handler: Arc<Seen>) {
    let subscription = Subscription { group: "g".into(), topics: vec![("t".into(), 1)], limits, every_ms: None };
    timeout(LIMIT, store.consume(subscription, handler)).await.unwrap().unwrap();
}

#[tokio::test]
async fn limits_end_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_topic("t", 1, &[]).await.unwrap();
    let sizes = [10, 10, 10, 10, 50, 5, 5];
    store.send("t", sizes.iter().map(|size| record(0, "x".repeat(*size))).collect()).await.unwrap();

    let seen = Seen::new(0, 7);
    consume(&store, Limits { max_records: 3, ..ROOMY }, seen.clone()).await;
    assert_eq!(seen.ranges(), [(0, 3, 3), (3, 6, 3), (6, 7, 1)]);
    assert_eq!(*seen.acknowledged.lock().unwrap(), [3, 6, 7]);
    assert_eq!(store.group_offset("g", &TopicPartition::new("t", 1, 0)).await.unwrap(), Some(7));

    let seen = Seen::new(1, 6);
    consume(&store, Limits { max_bytes: 25, ..ROOMY }, seen.clone()).await;
    assert_eq!(seen.ranges(), [(1, 3, 2), (3, 4, 1), (4, 5, 1), (5, 7, 2)]);
}

#[tokio::test]
async fn a_batch_waits_for_more_and_no_longer_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_topic("t", 1, &[]).await.unwrap();
    let seen = Seen::new(0, 3);
    let task = tokio::spawn({
        let (store, seen) = (store.clone(), seen.clone());
        async move { consume(&store, Limits { max_records: 3, max_wait_ms: 60_000, ..ROOMY }, seen).await }
    });
    // By another process, one by one: the batch goes on once it is full, long before it has waited enough.
    let other = open(folder.path());
    let began = Instant::now();
    for value in 0..3 {
        other.send("t", vec![record(0, value)]).await.unwrap();
    }
    timeout(LIMIT, task).await.unwrap().unwrap();
    assert_eq!(seen.ranges(), [(0, 3, 3)]);
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());

    let seen = Seen::new(1, 2);
    consume(&store, Limits { max_wait_ms: 50, ..ROOMY }, seen.clone()).await;
    assert_eq!(seen.ranges(), [(1, 3, 2)]);
}

#[tokio::test]
async fn it_begins_with_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_topic("t", 1, &[]).await.unwrap();
    store.send("t", (0..10).map(|value| record(0, value)).collect()).await.unwrap();
    store.delete_records("t", 0, 4).await.unwrap();
    let seen = Seen::new(1, 6);
    consume(&store, ROOMY, seen.clone()).await;
    assert_eq!(seen.ranges(), [(4, 10, 6)], "the runner sees the gap");
    // A fence beyond the end: the topic was re-created. The runner must see the records to say so.
    let seen = Seen::new(500, 6);
    consume(&store, ROOMY, seen.clone()).await;
    assert_eq!(seen.ranges(), [(4, 10, 6)]);
}

/// As many records as the old one had: only the topic's row tells that these are others.
#[tokio::test]
async fn a_topic_that_is_re_created_while_it_is_read_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_topic("t", 1, &[]).await.unwrap();
    store.send("t", (0..3).map(|value| record(0, value)).collect()).await.unwrap();
    let seen = Seen::new(0, 8);
    let task = tokio::spawn({
        let (store, seen) = (store.clone(), seen.clone());
        async move { consume(&store, ROOMY, seen).await }
    });
    let first_is_in = async {
        while seen.acknowledged.lock().unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, first_is_in).await.unwrap();
    // In one step, so that it is never seen to be missing.
    let other = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    other
        .execute_batch(
            "BEGIN IMMEDIATE; DELETE FROM millstream_records; DELETE FROM millstream_partitions; \
             DELETE FROM millstream_topics; INSERT INTO millstream_topics (name, partitions, uuid) VALUES ('t', 1, 'x'); \
             INSERT INTO millstream_partitions SELECT id, 0, 0, 0 FROM millstream_topics; COMMIT",
        )
        .unwrap();
    store.send("t", (0..5).map(|value| record(0, value)).collect()).await.unwrap();
    timeout(LIMIT, task).await.unwrap().unwrap();
    assert_eq!(seen.ranges(), [(0, 3, 3), (0, 5, 5)], "its start is asked for again");
}

#[tokio::test]
async fn nothing_is_read_beyond_the_batch_in_hand() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_topic("t", 2, &[]).await.unwrap();
    store.send("t", (0..20).map(|value| record(0, value)).collect()).await.unwrap();
    let seen = Seen::new(0, 4);
    // Partition 0 stands at the gate; stopping lets it finish the batch in flight, and no more.
    seen.gate.forget_permits(Semaphore::MAX_PERMITS);
    let task = tokio::spawn({
        let (store, seen) = (store.clone(), seen.clone());
        async move { consume(&store, Limits { max_records: 2, ..ROOMY }, seen).await }
    });
    seen.gate.add_permits(2);
    timeout(LIMIT, task).await.unwrap().unwrap();
    assert_eq!(seen.ranges(), [(0, 2, 2), (2, 4, 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_records_take_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_topic("t", 3, &[]).await.unwrap();
    let began = Instant::now();
    for chunk in 0..20 {
        let records = (0..5_000).map(|index| record(index % 3, format!(r#"{{"n":{chunk},"i":{index}}}"#)));
        store.send("t", records.collect()).await.unwrap();
    }
    let sent = began.elapsed();
    let seen = Seen::new(0, 100_000);
    consume(&store, Limits { max_records: 10_000, ..ROOMY }, seen.clone()).await;
    eprintln!("100,000 records: sent in {sent:?}, consumed in {:?}", began.elapsed() - sent);
    assert_eq!(seen.batches.lock().unwrap().iter().map(Batch::len).sum::<usize>(), 100_000);
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}
