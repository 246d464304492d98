//! What one member can show of the contract of [`Source`](millstream_core::Source).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use millstream_core::{Batch, Error, Handler, Limits, Result, Subscription, TopicPartition};

use super::{SourceUnderTest, harness::ROOMY};

pub(super) async fn all_records_come_in_order_from_the_fence(under_test: &SourceUnderTest) {
    let topic = under_test.log.create("source_all", 3).await;
    for partition in 0..3 {
        fill(under_test, &topic, partition, 0, 300).await;
    }
    let starts = BTreeMap::from([(1, 100), (2, 299)]);
    let keeper = Arc::new(Keeper { starts, stop_after: 300 + 200 + 1, ..Keeper::default() });
    under_test.source.consume(subscription(under_test, &topic, ROOMY), keeper.clone()).await.unwrap();
    let expected = BTreeMap::from([(0, values(0, 300)), (1, values(100, 300)), (2, values(299, 300))]);
    assert_eq!(*keeper.records.lock().unwrap(), expected);
}

pub(super) async fn the_fence_decides_and_not_the_commit(under_test: &SourceUnderTest) {
    let topic = under_test.log.create("source_fence", 1).await;
    fill(under_test, &topic, 0, 0, 100).await;
    let limits = Limits { max_records: 8, ..ROOMY };
    // The second and third time, the group has committed something else than the sink's fence.
    for start in [0, 40, 10] {
        let starts = BTreeMap::from([(0, start)]);
        let keeper = Arc::new(Keeper { starts, stop_after: 100 - start as usize, ..Keeper::default() });
        under_test.source.consume(subscription(under_test, &topic, limits), keeper.clone()).await.unwrap();
        assert_eq!(keeper.records.lock().unwrap()[&0], values(start, 100));
        assert!(*keeper.largest.lock().unwrap() <= 8, "a batch holds no more than the limit");
    }
}

pub(super) async fn later_records_come(under_test: &SourceUnderTest) {
    let topic = under_test.log.create("source_later", 2).await;
    let keeper = Arc::new(Keeper { stop_after: 40, ..Keeper::default() });
    let limits = Limits { max_wait_ms: 20, ..ROOMY };
    let (source, subscription) = (under_test.source.clone(), subscription(under_test, &topic, limits));
    let task = tokio::spawn({
        let keeper = keeper.clone();
        async move { source.consume(subscription, keeper).await }
    });
    for round in 0..4 {
        fill(under_test, &topic, 0, round * 5, round * 5 + 5).await;
        fill(under_test, &topic, 1, round * 5, round * 5 + 5).await;
        let sent = (round as usize + 1) * 10;
        // Polls until they are there; the check as a whole has a limit.
        while keeper.count() < sent {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    task.await.unwrap().unwrap();
    assert_eq!(*keeper.records.lock().unwrap(), BTreeMap::from([(0, values(0, 20)), (1, values(0, 20))]));
}

pub(super) async fn an_error_of_the_handler_ends_it(under_test: &SourceUnderTest) {
    let topic = under_test.log.create("source_error", 1).await;
    fill(under_test, &topic, 0, 0, 3).await;
    let keeper = Arc::new(Keeper { fail: true, ..Keeper::default() });
    match under_test.source.consume(subscription(under_test, &topic, ROOMY), keeper).await {
        Err(Error::Stop(_)) => {}
        other => panic!("the handler's error must come out, got {other:?}"),
    }
}

/// Offset and value, in the order in which they came.
type Records = Vec<(i64, Vec<u8>)>;

/// A handler that keeps what it gets, and panics when the contract is broken.
#[derive(Default)]
struct Keeper {
    starts: BTreeMap<i32, i64>,
    stop_after: usize,
    fail: bool,
    records: Mutex<BTreeMap<i32, Records>>,
    next: Mutex<BTreeMap<i32, i64>>,
    busy: Mutex<BTreeSet<i32>>,
    largest: Mutex<usize>,
    stopping: AtomicBool,
}

impl Keeper {
    fn count(&self) -> usize {
        self.records.lock().unwrap().values().map(Vec::len).sum()
    }
}

#[async_trait]
impl Handler for Keeper {
    async fn start(&self, partition: &TopicPartition) -> Result<i64> {
        let start = self.starts.get(&partition.partition).copied().unwrap_or(0);
        self.next.lock().unwrap().insert(partition.partition, start);
        Ok(start)
    }

    async fn handle(&self, batch: Batch) -> Result<i64> {
        if self.fail {
            return Err(Error::stop("the handler says stop (injected)"));
        }
        let number = batch.partition().partition;
        assert!(self.busy.lock().unwrap().insert(number), "batches of one partition come one at a time");
        tokio::task::yield_now().await;
        let next = self.next.lock().unwrap().insert(number, batch.range().end);
        assert_eq!(next, Some(batch.range().start), "a batch begins where the one before it ended");
        let records = batch.offsets().values().iter().copied();
        let records = records.zip(batch.values().iter().map(|value| value.unwrap_or_default().to_vec()));
        self.records.lock().unwrap().entry(number).or_default().extend(records);
        let mut largest = self.largest.lock().unwrap();
        *largest = batch.len().max(*largest);
        self.busy.lock().unwrap().remove(&number);
        if self.count() >= self.stop_after {
            self.stopping.store(true, Ordering::SeqCst);
        }
        Ok(batch.range().end)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

fn subscription(under_test: &SourceUnderTest, topic: &str, limits: Limits) -> Subscription {
    let group = format!("{}group-{topic}", under_test.log.prefix);
    Subscription { group, topics: vec![(topic.to_owned(), 3)], limits, every_ms: None }
}

fn values(from: i64, to: i64) -> Records {
    (from..to).map(|at| (at, at.to_string().into_bytes())).collect()
}

async fn fill(under_test: &SourceUnderTest, topic: &str, partition: i32, from: i64, to: i64) {
    under_test.log.send(topic, partition, (from..to).map(|at| at.to_string().into_bytes())).await;
}
