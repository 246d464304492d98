use std::{sync::Arc, time::Duration};

use millstream_core::{Error, NewRecord, Position, Producer, Result, Retries};

/// However long the topic is away: records are sent until they are acknowledged, or until the caller stops.
const RETRIES: Retries =
    Retries { first_pause: Duration::from_millis(100), max_pause: Duration::from_secs(5), max_attempts: u32::MAX };

/// How often a pause looks whether it is time to stop.
pub(crate) const STOPPING_POLL: Duration = Duration::from_millis(100);

/// Sends records to one topic until they are acknowledged.
pub(crate) struct Sender<'a, F> {
    pub(crate) topic: &'a str,
    pub(crate) producer: Arc<dyn Producer>,
    pub(crate) stopping: F,
}

impl<F: Fn() -> bool + Send + Sync> Sender<'_, F> {
    /// Sends these records, again and again while the error is transient. `None` when it had to stop before they were
    /// acknowledged: some of them may have been written.
    ///
    /// # Errors
    /// What the producer says is not transient.
    pub(crate) async fn send(&self, records: Vec<NewRecord>) -> Result<Option<Vec<Position>>> {
        let sent = RETRIES.call(
            || self.producer.send(self.topic, records.clone()),
            |_, error, pause| {
                let (topic, pause_ms) = (self.topic, pause.as_millis());
                tracing::warn!(topic, records = records.len(), pause_ms, %error, "records could not be sent; retrying");
                self.sleep(pause)
            },
        );
        match sent.await {
            Ok(positions) => Ok(Some(positions)),
            // Only a request to stop ends attempts that may still succeed.
            Err(error) if error.is_retry() => Ok(None),
            Err(error) => Err(self.in_context(error)),
        }
    }

    /// Sleeps, and returns whether to go on.
    async fn sleep(&self, pause: Duration) -> bool {
        let mut left = pause;
        while !left.is_zero() && !(self.stopping)() {
            let nap = left.min(STOPPING_POLL);
            tokio::time::sleep(nap).await;
            left -= nap;
        }
        !(self.stopping)()
    }

    fn in_context(&self, error: Error) -> Error {
        error.context(format!("sending to topic {}", self.topic))
    }
}
