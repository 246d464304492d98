use std::time::Duration;

use async_trait::async_trait;

/// What a [`crate::Poller`] asks: an HTTP API, or a fake in a test.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// Asks once. `etag` is that of an answer that the caller has: an unchanged one need not come again. Called by
    /// [`crate::poll`], which waits and asks again.
    ///
    /// # Errors
    /// Why there is no answer that can be used.
    async fn fetch(&self, etag: Option<&str>) -> Result<Answer, Failed>;

    /// Whom it asks, for log lines: a host, and nothing secret.
    fn place(&self) -> String;
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its body; none when there is nothing new (204), or nothing has changed since the answer with the given `etag` (304).
    pub body: Option<Vec<u8>>,
    /// What identifies this answer.
    pub etag: Option<String>,
}

/// A poll that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Is it not likely to pass by itself? A person must act then, and it is asked rarely.
    pub is_lasting: bool,
    /// Before this time has passed, the API wants no further request.
    pub retry_after: Option<Duration>,
    /// Is the API asked too often (429, 503)? Without `retry_after`, it is not asked sooner than usual then.
    pub is_throttled: bool,
    /// What happened, without secrets and without any of the answer.
    pub reason: String,
}

impl Failed {
    /// Something that may pass by itself.
    pub fn passing(reason: impl Into<String>) -> Self {
        Self { is_lasting: false, retry_after: None, is_throttled: false, reason: reason.into() }
    }

    /// Something that a person must look at.
    pub fn lasting(reason: impl Into<String>) -> Self {
        Self { is_lasting: true, ..Self::passing(reason) }
    }
}
