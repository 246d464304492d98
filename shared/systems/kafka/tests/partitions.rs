//! What a process needs for many partitions: threads and connections. A binary of its own, for it counts those of the process.
//! Against a real Kafka, as the tests in `kafka`.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use millstream_core::{
    Batch, Handler, Limits, NewRecord, Producer as _, Result, Source as _, Subscription, TopicPartition, Topics as _,
};
use millstream_kafka::{Kafka, KafkaSettings, Profile};

const PARTITIONS: i32 = 300;

/// Threads of the runtime, as many on every machine.
const RUNTIME_THREADS: usize = 2;

/// What a process may have while it reads, in addition to the runtime's: threads that read partitions, and those of librdkafka's
/// clients (the group's, the producer's, and the one for requests; two for each, and one for each broker address).
const MOST_THREADS: usize = 40;
const MOST_CONNECTIONS: usize = 16;

/// Remembers which partitions have had a record, and what the process had when the last of them had one.
#[derive(Default)]
struct Seen {
    partitions: Mutex<HashSet<i32>>,
    counted: Mutex<Option<(usize, usize)>>,
}

#[async_trait]
impl Handler for Seen {
    async fn start(&self, _: &TopicPartition) -> Result<i64> {
        Ok(0)
    }

    async fn handle(&self, batch: Batch) -> Result<i64> {
        let partition = batch.partition().partition;
        // A batch that takes long holds up no other partition, also of those that its thread reads.
        while partition == 0 && self.partitions.lock().unwrap().len() < PARTITIONS as usize - 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut seen = self.partitions.lock().unwrap();
        seen.insert(partition);
        if seen.len() == PARTITIONS as usize {
            *self.counted.lock().unwrap() = Some(threads_and_connections());
        }
        Ok(batch.range().end)
    }

    fn stopping(&self) -> bool {
        self.counted.lock().unwrap().is_some()
    }
}

fn threads_and_connections() -> (usize, usize) {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let sockets = links.filter(|link| link.to_string_lossy().starts_with("socket:")).count();
    (fs::read_dir("/proc/self/task").unwrap().count(), sockets)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "the address of the service, and a name that differs from run to run")]
async fn three_hundred_partitions_need_few_threads_and_connections() {
    let brokers =
        std::env::var("MILLSTREAM_TEST_KAFKA").expect("source the file that `tests/services start kafka` names");
    let kafka = Kafka::new(KafkaSettings {
        brokers,
        config: BTreeMap::new(),
        profile: Profile::Default,
        compression: millstream_core::Compression::Gzip,
        client_id: "millstream-test".into(),
    })
    .unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let topic = format!("many-{}", now.as_micros());
    kafka.create_topic(&topic, PARTITIONS, &[]).await.unwrap();
    let record = |partition| NewRecord { partition: Some(partition), value: Some(vec![7]), ..NewRecord::default() };
    kafka.send(&topic, (0..PARTITIONS).map(record).collect()).await.unwrap();
    let seen = Arc::new(Seen::default());
    let subscription = Subscription {
        group: topic.clone(),
        topics: vec![(topic, 1)],
        limits: Limits { max_records: 100, max_bytes: 1 << 20, max_wait_ms: 20 },
        every_ms: None,
    };
    let before = threads_and_connections();
    let consumed = kafka.consume(subscription, seen.clone());
    tokio::time::timeout(Duration::from_secs(120), consumed).await.expect("all are read in time").unwrap();
    let (threads, connections) = seen.counted.lock().unwrap().take().unwrap();
    println!("{threads} threads and {connections} connections; {before:?} before");
    assert!(threads <= MOST_THREADS + RUNTIME_THREADS, "{threads} threads");
    assert!(connections <= MOST_CONNECTIONS, "{connections} connections");
}
