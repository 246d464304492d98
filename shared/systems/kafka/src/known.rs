use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use millstream_core::NewRecord;
use tokio::time::Instant;

/// How long a partition's leader is taken to know a client that has written there. It forgets one that has written nothing for
/// `producer.id.expiration.ms`, a day by default.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// The partitions whose leaders know this client, since it has written there.
///
/// A leader numbers the requests of a client that it knows, and refuses one that isn't the next. Of a client that it doesn't know
/// it takes any: if it refuses the first request and several are on their way, it writes the second one. So the first record
/// goes alone.
#[derive(Default)]
pub(crate) struct Known(Mutex<HashMap<(String, i32), Instant>>);

impl Known {
    /// The places of the records that must be written before the others are sent, and those of the others.
    pub(crate) fn divide(&self, topic: &str, records: &[NewRecord]) -> (Vec<usize>, Vec<usize>) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |partition| {
            let since = known.get(&(topic.to_owned(), partition));
            since.is_some_and(|since| since.elapsed() < KNOWN_FOR)
        };
        let mut met = HashSet::new();
        let mut goes_first = |partition: i32| met.insert(partition) && !is_known(partition);
        (0..records.len()).partition(|at| records[*at].partition.is_some_and(&mut goes_first))
    }

    /// The client has written there.
    pub(crate) fn meet(&self, topic: &str, partitions: impl Iterator<Item = i32>) {
        let partitions: HashSet<i32> = partitions.collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(partitions.into_iter().map(|partition| ((topic.to_owned(), partition), Instant::now())));
    }
}
