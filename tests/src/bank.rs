//! Bank transactions, good and bad, and their sums.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use millstream_core::NewRecord;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// The window of the `flow` function, in microseconds.
const WINDOW_US: i64 = 2_000_000;
/// 2025-02-28T23:59:20Z: a longer log has events before and after midnight.
const FIRST_US: i64 = 1_740_787_160_000_000;
/// All branches.
pub(crate) const BRANCHES: [&str; 8] =
    ["Amsterdam", "Bruges", "Geneva", "Lisbon", "Oslo", "Prague", "Vienna", "Zürich"];
const CURRENCIES: [&str; 5] = ["EUR", "USD", "GBP", "CHF", "NOK"];

/// One transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The branch.
    pub branch: &'static str,
    /// The currency.
    pub currency: &'static str,
    /// The amount, in hundredths.
    pub cents: i64,
    /// The time, in microseconds since 1970.
    pub at_us: i64,
}

/// The expected rows of the table `flow`: window in microseconds since 1970, branch and currency, to the sum in
/// hundredths and the number of transactions.
pub type Sums = BTreeMap<(i64, String, String), (i64, i64)>;

impl Transaction {
    /// The value in the topic.
    pub fn json(&self) -> Vec<u8> {
        let Self { branch, currency, cents, at_us } = self;
        let at = DateTime::from_timestamp_micros(*at_us).unwrap().to_rfc3339_opts(SecondsFormat::Millis, true);
        let amount = format!("{}{}.{:02}", if *cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100);
        format!(r#"{{"branch":"{branch}","currency":"{currency}","amount":{amount},"at":"{at}"}}"#).into_bytes()
    }

    /// The transaction as a record, keyed by its branch.
    pub fn record(&self) -> Record {
        Record { key: self.branch.into(), value: Some(self.json()), at_us: self.at_us, means: Some(*self) }
    }
}

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

/// `count` transactions, half a millisecond apart and up to three seconds late.
pub fn transactions(seed: u64, count: usize) -> Vec<Record> {
    let mut random = StdRng::seed_from_u64(seed);
    let transaction = |at: usize| Transaction {
        branch: BRANCHES[random.random_range(0..BRANCHES.len())],
        currency: CURRENCIES[random.random_range(0..CURRENCIES.len())],
        cents: random.random_range(-100_000..1_000_000),
        at_us: FIRST_US + at as i64 * 500 / 1_000 * 1_000 - random.random_range(0..3_000) * 1_000,
    };
    (0..count).map(transaction).map(|transaction| transaction.record()).collect()
}

/// The same with a bad record after about every `every` good ones.
pub fn transactions_with_bad(seed: u64, count: usize, every: usize) -> Vec<Record> {
    let mut random = StdRng::seed_from_u64(!seed);
    let mut records = Vec::with_capacity(count + count / every);
    for record in transactions(seed, count) {
        let at_us = record.at_us;
        records.push(record);
        if random.random_range(0..every) == 0 {
            let value: &[u8] =
                [&b"{\"branch\":\"Os"[..], b"no JSON", b"{\"branch\":1}", b"\xff\xfe"][random.random_range(0..4)];
            let key = BRANCHES[random.random_range(0..BRANCHES.len())].into();
            records.push(Record { key, value: Some(value.to_vec()), at_us, means: None });
        }
    }
    records
}

/// The sums of these transactions, by the simplest possible code.
pub fn sums<'a>(transactions: impl Iterator<Item = &'a Transaction>) -> Sums {
    let mut sums = Sums::new();
    for Transaction { branch, currency, cents, at_us } in transactions {
        let window = at_us.div_euclid(WINDOW_US) * WINDOW_US;
        let (sum, count) = sums.entry((window, (*branch).into(), (*currency).into())).or_default();
        *sum += cents;
        *count += 1;
    }
    sums
}

/// The differences between two tables, for the message of a failed test: a few rows, and their number.
pub fn difference(have: &Sums, want: &Sums) -> Option<String> {
    let keys: std::collections::BTreeSet<_> = have.keys().chain(want.keys()).collect();
    let wrong: Vec<_> = keys.into_iter().filter(|key| have.get(*key) != want.get(*key)).collect();
    let count = |sums: &Sums| sums.values().map(|(_, count)| count).sum::<i64>();
    let shown =
        |key: &&(i64, String, String)| format!("  {key:?}: {:?} instead of {:?}", have.get(*key), want.get(*key));
    (!wrong.is_empty()).then(|| {
        let rows: Vec<String> = wrong.iter().take(5).map(shown).collect();
        let (have, want, number) = (count(have), count(want), wrong.len());
        format!("{number} rows differ ({have} transactions instead of {want}):\n{}", rows.join("\n"))
    })
}

/// Panics with the differing rows unless both are equal.
#[track_caller]
pub fn assert_same(have: &Sums, want: &Sums, what: &str) {
    if let Some(difference) = difference(have, want) {
        panic!("{what}: {difference}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_is_counted_twice_or_never_is_a_difference() {
        let transactions: Vec<_> = transactions(1, 100).into_iter().filter_map(|record| record.means).collect();
        let right = sums(transactions.iter());
        assert_eq!(difference(&right, &right), None);
        for wrong in [sums(transactions[1..].iter()), sums(transactions.iter().chain(&transactions[..1]))] {
            assert!(difference(&wrong, &right).unwrap().starts_with("1 rows differ"));
        }
    }
}
