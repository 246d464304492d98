use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use millstream_core::{Fence, TopicPartition};

/// What a runner has done since it started, for metrics and the live view. Only counts, no user data.
#[derive(Debug, Default)]
pub struct Stats {
    records: AtomicU64,
    rows: AtomicU64,
    dead_letters: AtomicU64,
    healed: AtomicU64,
    writes: AtomicU64,
    partitions: Mutex<BTreeMap<TopicPartition, PartitionStats>>,
}

/// The state of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionStats {
    /// The sink's next offset.
    pub next_offset: i64,
    /// Kafka's timestamp of the last record below it, in milliseconds since 1970.
    pub last_timestamp_ms: Option<i64>,
}

impl Stats {
    /// Records processed, including dead letters.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Rows written to the sink (each partial state counts as a row).
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Dead letters stored.
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters.load(Ordering::Relaxed)
    }

    /// Records read from the log because a host had left them out.
    pub fn healed_records(&self) -> u64 {
        self.healed.load(Ordering::Relaxed)
    }

    /// Writes that moved a fence.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// The state of each partition that this instance has written.
    pub fn partitions(&self) -> BTreeMap<TopicPartition, PartitionStats> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn healed(&self, records: usize) {
        self.healed.fetch_add(records as u64, Ordering::Relaxed);
    }

    pub(crate) fn written(&self, partition: &TopicPartition, to: &Fence, records: usize, rows: usize, bad: usize) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.dead_letters.fetch_add(bad as u64, Ordering::Relaxed);
        self.writes.fetch_add(1, Ordering::Relaxed);
        let stats = PartitionStats { next_offset: to.next_offset, last_timestamp_ms: to.last_timestamp_ms };
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).insert(partition.clone(), stats);
    }
}
