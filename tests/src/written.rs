use std::collections::BTreeMap;

use crate::bank::{self, Record, Sums, Transaction};

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
