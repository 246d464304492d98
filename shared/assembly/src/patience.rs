use std::future::Future;

use millstream_core::{Error, Result, Retries};

/// Calls again while the error is transient, for as long as the stream host would.
pub(crate) async fn patiently<T, F: Future<Output = Result<T>>>(call: impl FnMut() -> F) -> Result<T> {
    let wait = |attempt, error: &Error, pause| {
        if Retries::is_logged(attempt) {
            tracing::warn!(attempt, "retrying: {error}");
        }
        async move {
            tokio::time::sleep(pause).await;
            true
        }
    };
    Retries::default().call(call, wait).await
}
