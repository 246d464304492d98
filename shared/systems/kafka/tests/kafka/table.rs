use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use millstream_core::{Batch, Handler, Result, TopicPartition};

/// A sink in memory, shared by all members of a group: what each partition holds, and its fence.
#[derive(Default)]
pub struct Table {
    pub fences: Mutex<BTreeMap<i32, i64>>,
    pub values: Mutex<BTreeMap<i32, Vec<Vec<u8>>>>,
}

impl Table {
    pub fn count(&self) -> usize {
        self.values.lock().unwrap().values().map(Vec::len).sum()
    }

    pub fn fence(&self, partition: i32) -> i64 {
        *self.fences.lock().unwrap().entry(partition).or_insert(0)
    }
}

/// A member's handler. `stop_at` ends it once the table holds so many records.
pub struct Member {
    table: Arc<Table>,
    stop_at: usize,
    pub stopping: AtomicBool,
    pub handled: AtomicUsize,
    pub started: Mutex<Vec<i32>>,
    /// The largest batch, in records and in bytes.
    pub largest: Mutex<(usize, usize)>,
}

impl Member {
    pub fn new(table: &Arc<Table>, stop_at: usize) -> Arc<Self> {
        Arc::new(Self {
            table: table.clone(),
            stop_at,
            stopping: AtomicBool::new(false),
            handled: AtomicUsize::new(0),
            started: Mutex::default(),
            largest: Mutex::default(),
        })
    }
}

#[async_trait]
impl Handler for Member {
    async fn start(&self, partition: &TopicPartition) -> Result<i64> {
        self.started.lock().unwrap().push(partition.partition);
        Ok(self.table.fence(partition.partition))
    }

    async fn handle(&self, batch: Batch) -> Result<i64> {
        let number = batch.partition().partition;
        let fence = self.table.fence(number);
        assert_eq!(batch.gap(fence), None, "partition {number}: {:?} leaves a gap above {fence}", batch.range());
        let mut largest = self.largest.lock().unwrap();
        *largest = (largest.0.max(batch.len()), largest.1.max(batch.bytes()));
        drop(largest);
        if let Some(batch) = batch.after(fence) {
            let values = batch.values().iter().flatten().map(<[u8]>::to_vec);
            self.table.values.lock().unwrap().entry(number).or_default().extend(values);
            self.handled.fetch_add(batch.len(), Ordering::SeqCst);
            self.table.fences.lock().unwrap().insert(number, batch.range().end);
        }
        Ok(self.table.fence(number))
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst) || self.table.count() >= self.stop_at
    }
}
