//! A function that reads what calls nobody, such as an event store: each event of a schedule brings in what is there.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use millstream_core::{Batch, Error, Handler, Result, Retries, Source, Subscription, TopicPartition};
use serde::Serialize;
use tokio::{
    pin, select,
    time::{sleep, timeout},
};

use super::schedule::{ScheduledEvent, Times};
use crate::{Process, Stop, stream::StreamHandler};

/// The answer to an event of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CaughtUp {
    /// Records of this invocation that are in the sink.
    pub records: u64,
    /// Is all in the sink that was there? The next event goes on if not.
    pub caught_up: bool,
}

/// Brings in what the source has, for as long as `times` says at most, and drains.
///
/// # Errors
/// `Stop` when the event is not of a schedule, or a person must act; `Retry` when the source can't be read or a batch can't be
/// written, whatever else was brought in.
pub async fn answer_catch_up(
    source: &dyn Source,
    subscription: &Subscription,
    process: Arc<dyn Process>,
    event: ScheduledEvent,
    times: Times,
) -> Result<CaughtUp> {
    let function = process.function().to_owned();
    event.check(&function)?;
    let stop = Stop::default();
    let handler = Arc::new(CatchingUp {
        behind: Mutex::new(subscription.topics.iter().map(|(topic, _)| topic.clone()).collect()),
        unreadable: Mutex::default(),
        records: AtomicU64::new(0),
        inner: StreamHandler { process, stop: stop.clone(), retries: Retries::default() },
    });
    let reading = source.consume(subscription.clone(), Arc::clone(&handler) as _);
    pin!(reading);
    let read = select! {
        read = &mut reading => read,
        () = sleep(times.work) => {
            stop.request();
            let late = |_| Err(Error::retry(format!("{function}: a batch was still under way shortly before the deadline")));
            timeout(times.drain, reading).await.unwrap_or_else(late)
        }
    };
    let unreadable = handler.unreadable.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (records, caught_up) = (handler.records.load(Ordering::Relaxed), handler.behind().is_empty());
    read?;
    // Whatever else was brought in: who looks at the function must see that it can't go on.
    if let Some(why) = unreadable {
        return Err(Error::retry(format!("{function}: {why}")));
    }
    if records == 0 && !caught_up {
        let seconds = times.work.as_secs();
        return Err(Error::retry(format!(
            "{function}: nothing was brought in within {seconds} s, and there is something"
        )));
    }
    tracing::info!(function, records, caught_up, "brought in");
    Ok(CaughtUp { records, caught_up })
}

/// Ends when all topics have been seen to their ends.
struct CatchingUp {
    inner: StreamHandler,
    behind: Mutex<BTreeSet<String>>,
    unreadable: Mutex<Option<String>>,
    records: AtomicU64,
}

impl CatchingUp {
    fn behind(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Handler for CatchingUp {
    async fn start(&self, partition: &TopicPartition) -> Result<i64> {
        self.inner.start(partition).await
    }

    async fn handle(&self, batch: Batch) -> Result<i64> {
        let records = batch.len();
        let next_offset = self.inner.handle(batch).await?;
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        Ok(next_offset)
    }

    fn stopping(&self) -> bool {
        self.inner.stopping()
    }

    fn looked(&self, topic: &str, outcome: Result<(), &Error>) {
        let ended = match outcome {
            Ok(()) => {
                let mut behind = self.behind();
                behind.remove(topic);
                behind.is_empty()
            }
            Err(error) => {
                self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).replace(error.to_string());
                true
            }
        };
        if ended {
            self.inner.stop.request();
        }
    }

    fn acknowledged(&self, partition: &TopicPartition, next_offset: i64) {
        self.inner.acknowledged(partition, next_offset);
    }
}

#[cfg(test)]
mod tests;
