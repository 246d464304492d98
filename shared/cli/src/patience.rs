use std::time::Duration;

use millstream_core::Result;
use millstream_host::Retries;

/// Calls again while the error is a passing one, as patiently as the stream host: a database that is still starting is
/// no reason to end. Ends with the error when `stopping`.
///
/// # Errors
/// What won't pass, and what did not pass.
pub(crate) async fn patiently<T, F: Future<Output = Result<T>>>(
    what: &str,
    stopping: impl Fn() -> bool,
    mut call: impl FnMut() -> F,
) -> Result<T> {
    let retries = Retries::default();
    let mut pause_ms = retries.first_pause_ms;
    for attempt in 1.. {
        match call().await {
            Err(error) if error.is_retry() && attempt < retries.max_attempts && !stopping() => {
                if attempt == 1 || attempt % 10 == 0 {
                    tracing::warn!(attempt, "{what}: trying again: {error}");
                }
            }
            outcome => return outcome,
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(retries.max_pause_ms);
    }
    unreachable!("the last attempt has returned")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use millstream_core::Error;

    use super::*;

    #[tokio::test]
    async fn only_what_passes_is_tried_again() {
        let calls = Cell::new(0);
        let fails_at_first = || async {
            calls.set(calls.get() + 1);
            if calls.get() < 3 { Err(Error::retry("still starting")) } else { Ok(()) }
        };
        patiently("test", || false, fails_at_first).await.unwrap();
        assert_eq!(calls.get(), 3);

        calls.set(0);
        let wrong = || async {
            calls.set(calls.get() + 1);
            Err::<(), _>(Error::stop("wrong"))
        };
        assert!(patiently("test", || false, wrong).await.is_err());
        assert_eq!(calls.get(), 1);

        let down = || async { Err::<(), _>(Error::retry("down")) };
        assert!(patiently("test", || true, down).await.is_err(), "it was asked to stop");
    }
}
