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

/// By partition, with a number that says which one it is. An event hub that is created again has links of its own.
#[derive(Clone, Default)]
pub(crate) struct Idle(Arc<Mutex<(u64, Links)>>);

type Links = HashMap<(TopicPartition, i64), (u64, Link)>;

impl Idle {
    /// A receiver whose next event is the one at `next`, of the event hub that was created then.
    pub fn take(&self, partition: &TopicPartition, created_ms: i64, next: i64) -> Option<Link> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.1.remove(&(partition.clone(), created_ms)).map(|(_, link)| link).filter(|link| link.next == next)
    }

    /// Keeps a receiver open for a while, unless it has failed. `created_ms` was asked for before it was opened.
    pub fn keep(&self, partition: &TopicPartition, created_ms: i64, link: Link) {
        if !link.is_usable() {
            return;
        }
        let key = (partition.clone(), created_ms);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, links) = &mut *kept;
        if links.len() >= MOST && !links.contains_key(&key) {
            return;
        }
        *count += 1;
        links.insert(key.clone(), (*count, link));
        let (number, held) = (*count, Arc::downgrade(&self.0));
        drop(kept);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            let Some(held) = held.upgrade() else { return };
            let mut kept = held.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.1.get(&key).is_some_and(|(kept, _)| *kept == number) {
                kept.1.remove(&key);
            }
        });
    }
}
