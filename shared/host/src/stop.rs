use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

/// Asks a host to drain and end. Clones share the request.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    /// From now on [`Stop::is_requested`] is true.
    pub fn request(&self) {
        self.0.send_replace(true);
    }

    /// Was it asked to end?
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is asked to end.
    pub async fn wait(&self) {
        // The sender is this value: it can't be gone.
        let _ = self.0.subscribe().wait_for(|requested| *requested).await;
    }

    /// Sleeps, but not beyond the request. Returns whether to go on.
    pub async fn sleep(&self, pause: Duration) -> bool {
        timeout(pause, self.wait()).await.is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_ends_every_sleep_and_is_kept() {
        let stop = Stop::default();
        assert!(stop.sleep(Duration::from_millis(1)).await && !stop.is_requested());
        let asked = stop.clone();
        let (went_on, ()) = tokio::join!(stop.sleep(Duration::from_secs(600)), async { asked.request() });
        assert!(!went_on && stop.is_requested());
        assert!(!stop.sleep(Duration::from_secs(600)).await, "a later sleep too");
        stop.wait().await;
    }
}
