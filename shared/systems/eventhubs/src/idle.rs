//! Receivers that [`read`](millstream_core::Log::read) has left open for the read that goes on from there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use millstream_core::TopicPartition;

use crate::link::Link;

/// How long a receiver stays open unused. It counts among the five that a partition may have.
const IDLE: Duration = Duration::from_secs(20);

/// At most so many are kept.
const MOST: usize = 32;

/// By partition, with a number that says which one it is.
#[derive(Clone, Default)]
pub(crate) struct Idle(Arc<Mutex<(u64, Links)>>);

type Links = HashMap<TopicPartition, (u64, Link)>;

impl Idle {
    /// A receiver whose next event is the one at `next`.
    pub fn take(&self, partition: &TopicPartition, next: i64) -> Option<Link> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.1.remove(partition).map(|(_, link)| link).filter(|link| link.next == next)
    }

    /// Keeps a receiver open for a while.
    pub fn keep(&self, partition: &TopicPartition, link: Link) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, links) = &mut *kept;
        if links.len() >= MOST && !links.contains_key(partition) {
            return;
        }
        *count += 1;
        links.insert(partition.clone(), (*count, link));
        let (number, partition, held) = (*count, partition.clone(), Arc::downgrade(&self.0));
        drop(kept);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            let Some(held) = held.upgrade() else { return };
            let mut kept = held.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.1.get(&partition).is_some_and(|(kept, _)| *kept == number) {
                kept.1.remove(&partition);
            }
        });
    }
}
