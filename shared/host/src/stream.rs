//! The stream host: a consumer group of the function's own, for containers and laptops.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use millstream_core::{Batch, Error, Handler, Result, Retries, Source, Subscription, TopicPartition, fault};

use crate::{Process, Stop};

/// Runs a function on a log until `stop` is requested: joins its consumer group, brings every batch into the sink, and
/// acknowledges after it. Returns when every batch in flight is written and committed.
///
/// # Errors
/// `Stop` when a person must act; `Retry` when something did not succeed within `retries`.
pub async fn run(
    source: Arc<dyn Source>,
    subscription: Subscription,
    process: Arc<dyn Process>,
    stop: Stop,
    retries: Retries,
) -> Result<()> {
    let handler = Arc::new(StreamHandler { process, stop: stop.clone(), retries });
    match source.consume(subscription, handler).await {
        // Asked to end in the middle of an outage: what was in flight is not acknowledged and comes again.
        Err(error) if stop.is_requested() && error.is_retry() => {
            tracing::warn!(%error, "ended during an outage; the batch in flight will be read again");
            Ok(())
        }
        ended => ended,
    }
}

/// What brings the batches of a source into a sink.
pub(crate) struct StreamHandler {
    pub process: Arc<dyn Process>,
    pub stop: Stop,
    pub retries: Retries,
}

impl StreamHandler {
    /// Sleeps before the next attempt; false when it is time to end.
    fn wait<'a>(&'a self, attempt: u32, error: &Error, pause: Duration) -> impl Future<Output = bool> + use<'a> {
        if Retries::is_logged(attempt) {
            tracing::warn!(function = self.process.function(), attempt, "retrying: {error}");
        }
        self.stop.sleep(pause)
    }
}

#[async_trait]
impl Handler for StreamHandler {
    async fn start(&self, partition: &TopicPartition) -> Result<i64> {
        let wait = |attempt, error: &Error, pause| self.wait(attempt, error, pause);
        self.retries.call(|| self.process.start(partition), wait).await
    }

    async fn handle(&self, batch: Batch) -> Result<i64> {
        let wait = |attempt, error: &Error, pause| self.wait(attempt, error, pause);
        let next_offset = self.retries.call(|| self.process.process(batch.clone()), wait).await?;
        fault::point("host.before_acknowledge");
        Ok(next_offset)
    }

    fn stopping(&self) -> bool {
        self.stop.is_requested()
    }

    fn acknowledged(&self, _partition: &TopicPartition, _next_offset: i64) {
        fault::point("host.after_acknowledge");
    }
}
