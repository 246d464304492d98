use std::cell::RefCell;

use millstream_core::{Error, Result, Retries};

/// Waits for a system that is away at the start, such as a database that is still starting. Calls until a call succeeds, or
/// until `end` returns why the wait must end, which also ends a call that is under way. `what` names what it waits for, in
/// front of each message.
///
/// # Errors
/// What is not transient; what didn't succeed within `retries`; `Retry` when `end` came first, with the latest error beneath.
pub async fn wait_for<T, C: Future<Output = Result<T>>>(
    what: &str,
    retries: Retries,
    end: impl Future<Output = &'static str>,
    call: impl FnMut() -> C,
) -> Result<T> {
    let latest = RefCell::new(None);
    let trying = retries.call(call, |attempt, error, pause| {
        if Retries::is_logged(attempt) {
            tracing::warn!(attempt, "{what}: not ready yet, retrying: {error}");
        }
        *latest.borrow_mut() = Some(error.to_string());
        async move {
            tokio::time::sleep(pause).await;
            true
        }
    });
    let why = tokio::select! {
        outcome = trying => return outcome,
        why = end => why,
    };
    let waiting = Error::retry(format!("{what}: not ready yet when {why}"));
    Err(match latest.take() {
        Some(error) => waiting.caused_by(error),
        None => waiting,
    })
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending, time::Duration};

    use super::*;

    const RETRIES: Retries =
        Retries { first_pause: Duration::from_millis(1), max_pause: Duration::from_millis(5), max_attempts: 20 };

    #[tokio::test]
    async fn only_what_is_transient_is_tried_again() {
        let calls = Cell::new(0);
        let fails_at_first = || async {
            calls.set(calls.get() + 1);
            if calls.get() < 3 { Err(Error::retry("still starting")) } else { Ok(()) }
        };
        wait_for("test", RETRIES, pending(), fails_at_first).await.unwrap();
        assert_eq!(calls.get(), 3);

        calls.set(0);
        let wrong = || async {
            calls.set(calls.get() + 1);
            Err::<(), _>(Error::stop("wrong"))
        };
        assert!(wait_for("test", RETRIES, pending(), wrong).await.is_err());
        assert_eq!(calls.get(), 1);
    }

    #[tokio::test]
    async fn the_end_bounds_the_pauses_and_the_calls() {
        let soon = || async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            "it was asked to end"
        };
        let slow = Retries { first_pause: Duration::from_secs(600), max_pause: Duration::from_secs(600), ..RETRIES };
        let down = || async { Err::<(), _>(Error::retry("no answer")) };
        let error = wait_for("the log", slow, soon(), down).await.unwrap_err();
        assert!(error.is_retry(), "{error}");
        assert_eq!(error.to_string(), "the log: not ready yet when it was asked to end: no answer");
        let error = wait_for("the log", slow, soon(), pending::<Result<()>>).await.unwrap_err();
        assert_eq!(error.to_string(), "the log: not ready yet when it was asked to end");
    }
}
