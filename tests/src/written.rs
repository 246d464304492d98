use std::collections::BTreeMap;

use millstream_core::NewRecord;

use crate::bank::{self, Sums, Transaction};

/// A record to write, and its transaction.
#[derive(Clone, Debug)]
pub struct Record {
    /// The key, which decides the partition.
    pub key: String,
    /// The value in the topic.
    pub value: Option<Vec<u8>>,
    /// Its timestamp, in microseconds since 1970.
    pub at_us: i64,
    /// The transaction that it holds; `None` for a bad record.
    pub means: Option<Transaction>,
}

impl Record {
    pub(crate) fn to_new(&self) -> NewRecord {
        NewRecord {
            key: Some(self.key.clone().into_bytes()),
            value: self.value.clone(),
            timestamp_ms: Some(self.at_us / 1_000),
            ..NewRecord::default()
        }
    }
}

/// The records of a log, by partition and offset.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// The records, by partition and offset.
    pub records: BTreeMap<(i32, i64), Record>,
}

impl Written {
    /// Adds records that were written later.
    pub fn extend(&mut self, more: Self) {
        self.records.extend(more.records);
    }

    /// The expected content of the table.
    pub fn sums(&self) -> Sums {
        bank::sums(self.transactions().values())
    }

    /// The good records.
    pub fn transactions(&self) -> BTreeMap<(i32, i64), Transaction> {
        self.records.iter().filter_map(|(at, record)| Some((*at, record.means?))).collect()
    }

    /// The bad records' partitions, offsets and values.
    pub fn bad(&self) -> BTreeMap<(i32, i64), Option<Vec<u8>>> {
        let bad = self.records.iter().filter(|(_, record)| record.means.is_none());
        bad.map(|(at, record)| (*at, record.value.clone())).collect()
    }

    /// One past the last offset, by partition.
    pub fn ends(&self) -> BTreeMap<i32, i64> {
        let mut ends = BTreeMap::new();
        for (partition, offset) in self.records.keys() {
            ends.insert(*partition, offset + 1);
        }
        ends
    }
}
