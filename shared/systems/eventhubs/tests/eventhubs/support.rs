use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use millstream_core::{Batch, Connect as _, Env, Handler, Limits, Result, Source as _, Subscription, TopicPartition};
use millstream_emulators::event_hubs::{EventHubsDouble, NewEvent};
use millstream_eventhubs::{EventHubs, EventHubsSettings};
use tokio::task::JoinHandle;

/// No test takes longer.
const LIMIT: Duration = Duration::from_secs(40);

pub const ROOMY: Limits = Limits { max_records: 100_000, max_bytes: 64 << 20, max_wait_ms: 50 };

pub const HUB: &str = "orders";

pub fn env(double: &EventHubsDouble) -> Env {
    env_with(double, &[])
}

pub fn env_with(double: &EventHubsDouble, more: &[(&str, &str)]) -> Env {
    let (connection, endpoint) = (double.connection_string(), double.endpoint());
    let ours = [
        ("MILLSTREAM_EVENTHUBS_CONNECTION", connection.as_str()),
        ("MILLSTREAM_EVENTHUBS_ENDPOINT", endpoint.as_str()),
    ];
    Env::of(ours.into_iter().chain(more.iter().copied()))
}

pub fn open(double: &EventHubsDouble) -> EventHubs {
    EventHubs::open(&env(double)).unwrap().unwrap()
}

/// With tokens that end soon.
pub fn open_with_tokens_of(double: &EventHubsDouble, lifetime: Duration) -> EventHubs {
    let mut settings = EventHubsSettings::read(&env(double)).unwrap().unwrap();
    settings.token_lifetime = lifetime;
    EventHubs::new(settings)
}

/// With little time for an answer.
pub fn open_with_patience_of(double: &EventHubsDouble, patience: Duration) -> EventHubs {
    let mut settings = EventHubsSettings::read(&env(double)).unwrap().unwrap();
    settings.patience = patience;
    EventHubs::new(settings)
}

pub fn partition(number: i32) -> TopicPartition {
    TopicPartition::new(HUB, 1, number)
}

/// Appends events whose bytes are their numbers.
pub fn fill(double: &EventHubsDouble, partition: i32, from: i64, to: i64) {
    for number in from..to {
        assert_eq!(double.append(HUB, partition, NewEvent::of(number.to_string())), number);
    }
}

pub async fn within_limit<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.unwrap()
}

pub fn values(batch: &Batch) -> Vec<Option<Vec<u8>>> {
    batch.values().iter().map(|value| value.map(<[u8]>::to_vec)).collect()
}

/// Offset and value, in the order in which they came.
type Records = Vec<(i64, Vec<u8>)>;

/// A handler with fences, which panics when a batch does not begin at the fence.
#[derive(Default)]
pub struct Sink {
    fences: Mutex<BTreeMap<i32, i64>>,
    records: Mutex<BTreeMap<i32, Records>>,
    pub starts: AtomicUsize,
    pub acknowledged: Mutex<BTreeMap<i32, i64>>,
    pub largest: AtomicUsize,
    stopping: AtomicBool,
    pause: Duration,
}

impl Sink {
    pub fn at(fences: impl IntoIterator<Item = (i32, i64)>) -> Self {
        Self { fences: Mutex::new(fences.into_iter().collect()), ..Self::default() }
    }

    /// One that takes so long for each batch.
    pub fn slow(pause: Duration) -> Self {
        Self { pause, ..Self::default() }
    }

    pub fn count(&self) -> usize {
        self.records.lock().unwrap().values().map(Vec::len).sum()
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub fn fence(&self, partition: i32) -> Option<i64> {
        self.fences.lock().unwrap().get(&partition).copied()
    }

    pub fn move_fence(&self, partition: i32, offset: i64) {
        self.fences.lock().unwrap().insert(partition, offset);
    }

    /// Panics unless a partition has given exactly these, each with its number for its bytes.
    pub fn check(&self, partition: i32, from: i64, to: i64) {
        let expected: Vec<_> = (from..to).map(|number| (number, number.to_string().into_bytes())).collect();
        let records = self.records.lock().unwrap();
        let got = records.get(&partition).cloned().unwrap_or_default();
        assert!(got == expected, "partition {partition}: {} records, expected {from}..{to}", got.len());
    }

    pub async fn until(&self, count: usize) {
        while self.count() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[async_trait]
impl Handler for Sink {
    async fn start(&self, partition: &TopicPartition) -> Result<i64> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        Ok(*self.fences.lock().unwrap().entry(partition.partition).or_insert(0))
    }

    async fn handle(&self, batch: Batch) -> Result<i64> {
        tokio::time::sleep(self.pause).await;
        let number = batch.partition().partition;
        let fence = self.fences.lock().unwrap().insert(number, batch.range().end);
        assert_eq!(fence, Some(batch.range().start), "a batch begins at the fence");
        assert_eq!(batch.gap(batch.range().start), None, "a batch that was read has no gap");
        let offsets = batch.offsets().values().iter().copied();
        let records = offsets.zip(values(&batch).into_iter().flatten());
        self.records.lock().unwrap().entry(number).or_default().extend(records);
        self.largest.fetch_max(batch.len(), Ordering::SeqCst);
        Ok(batch.range().end)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn acknowledged(&self, partition: &TopicPartition, next_offset: i64) {
        self.acknowledged.lock().unwrap().insert(partition.partition, next_offset);
    }
}

pub fn consume(hubs: EventHubs, sink: &Arc<Sink>, limits: Limits) -> JoinHandle<Result<()>> {
    let sink = sink.clone();
    let subscription =
        Subscription { group: "pipeline.function".into(), topics: vec![(HUB.into(), 1)], limits, every_ms: None };
    tokio::spawn(async move { hubs.consume(subscription, sink).await })
}
