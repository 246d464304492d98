use std::{sync::Arc, time::Duration};

use millstream_core::{Error, NewRecord, Position, Producer, Result};

/// How long to wait before a failed send is made again: doubled each time, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often a waiting sender looks whether it is to stop.
const STOPPING_POLL: Duration = Duration::from_millis(100);

/// Sends records to one topic until they are acknowledged.
pub(crate) struct Sender<'a, F> {
    pub(crate) topic: &'a str,
    pub(crate) producer: Arc<dyn Producer>,
    pub(crate) stopping: F,
}

impl<F: Fn() -> bool + Send> Sender<'_, F> {
    /// Sends these, again and again while the error is a passing one. None when it was told to stop before they were
    /// acknowledged: some of them may have been written.
    ///
    /// # Errors
    /// What the producer says won't pass.
    pub(crate) async fn send(&mut self, records: Vec<NewRecord>) -> Result<Option<Vec<Position>>> {
        let mut wait = FIRST_WAIT;
        loop {
            let error = match self.producer.send(self.topic, records.clone()).await {
                Ok(positions) => return Ok(Some(positions)),
                Err(error) if error.is_retry() => error,
                Err(error) => return Err(self.in_context(error)),
            };
            let (topic, wait_ms) = (self.topic, wait.as_millis());
            tracing::warn!(topic, records = records.len(), wait_ms, %error, "records could not be sent; trying again");
            if !self.wait(wait).await {
                return Ok(None);
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Sleeps, and says whether to go on.
    pub(crate) async fn wait(&mut self, wait: Duration) -> bool {
        let mut left = wait;
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
