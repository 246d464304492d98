//! The stream host: a consumer group of the function's own, for containers and laptops.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use millstream_core::{Batch, Error, Handler, Result, Source, Subscription, TopicPartition, fault};
use millstream_runner::Runner;

/// Asks a host to drain and end. Clones share the request.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on [`Stop::requested`] is true.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Was it asked to end?
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long passing errors are waited out.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// The first pause; each further one is twice as long.
    pub first_pause_ms: u64,
    /// No pause is longer.
    pub max_pause_ms: u64,
    /// After so many attempts in a row the host ends with the error, for its supervisor to see.
    pub max_attempts: u32,
}

impl Default for Retries {
    /// 100 ms to 5 s, for some 15 minutes: a database's failover or restart passes, a lost one is noticed.
    fn default() -> Self {
        Self { first_pause_ms: 100, max_pause_ms: 5_000, max_attempts: 180 }
    }
}

/// Runs a function on a log until `stop` is requested: joins its consumer group, brings every batch into the sink, and
/// acknowledges behind it. Returns when all that was in hand is written and committed.
///
/// # Errors
/// `Stop` when a person must act; `Retry` when something did not pass within `retries`.
pub async fn run(
    source: Arc<dyn Source>,
    subscription: Subscription,
    runner: Arc<Runner>,
    stop: Stop,
    retries: Retries,
) -> Result<()> {
    let handler = Arc::new(StreamHandler { runner, stop: stop.clone(), retries });
    match source.consume(subscription, handler).await {
        // Asked to end in the middle of an outage: what was in hand is not acknowledged and comes again.
        Err(error) if stop.requested() && error.is_retry() => {
            tracing::warn!(%error, "ended during an outage; the batch in hand will be read again");
            Ok(())
        }
        ended => ended,
    }
}

struct StreamHandler {
    runner: Arc<Runner>,
    stop: Stop,
    retries: Retries,
}

impl StreamHandler {
    /// Waits before attempt number `attempt + 1`, or gives the error back when it should not be made.
    async fn pause(&self, attempt: u32, error: Error) -> Result<()> {
        if !error.is_retry() || attempt >= self.retries.max_attempts || self.stop.requested() {
            return Err(error);
        }
        if attempt == 1 || attempt.is_multiple_of(10) {
            tracing::warn!(function = self.runner.function(), attempt, "trying again: {error}");
        }
        let pause_ms =
            self.retries.first_pause_ms.saturating_mul(1 << (attempt - 1).min(16)).min(self.retries.max_pause_ms);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        Ok(())
    }
}

#[async_trait]
impl Handler for StreamHandler {
    async fn start(&self, partition: &TopicPartition) -> Result<i64> {
        let mut attempt = 1;
        loop {
            match self.runner.start(partition).await {
                Ok(offset) => return Ok(offset),
                Err(error) => self.pause(attempt, error).await?,
            }
            attempt += 1;
        }
    }

    async fn handle(&self, batch: Batch) -> Result<i64> {
        let mut attempt = 1;
        loop {
            match self.runner.process(batch.clone()).await {
                Ok(next_offset) => {
                    fault::point("host.before_acknowledge");
                    return Ok(next_offset);
                }
                Err(error) => self.pause(attempt, error).await?,
            }
            attempt += 1;
        }
    }

    fn stopping(&self) -> bool {
        self.stop.requested()
    }

    fn acknowledged(&self, _partition: &TopicPartition, _next_offset: i64) {
        fault::point("host.after_acknowledge");
    }
}
