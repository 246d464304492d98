use std::{cell::RefCell, time::Duration};

use millstream_core::{Error, Result};
use millstream_host::Retries;
use tokio::time::Instant;

use crate::interrupt::Interrupt;

/// How long a command waits for systems that are away: a database that is still starting is no reason to end. As patient
/// as the stream host, but no longer than until it is asked to end, or until its own time is up.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    interrupt: Interrupt,
    until: Option<Instant>,
}

impl Patience {
    pub fn new(interrupt: &Interrupt, until: Option<Instant>) -> Self {
        Self { interrupt: interrupt.clone(), until }
    }

    /// Calls again while the error is a passing one.
    ///
    /// # Errors
    /// What won't pass, and what did not pass in time.
    pub async fn wait_for<T, F: Future<Output = Result<T>>>(
        &self,
        what: &str,
        mut call: impl FnMut() -> F,
    ) -> Result<T> {
        let latest = RefCell::new(None);
        let trying = async {
            let retries = Retries::default();
            let mut pause_ms = retries.first_pause_ms;
            for attempt in 1.. {
                match call().await {
                    Err(error) if error.is_retry() && attempt < retries.max_attempts => {
                        if attempt == 1 || attempt % 10 == 0 {
                            tracing::warn!(attempt, "{what}: not ready yet, trying again: {error}");
                        }
                        *latest.borrow_mut() = Some(error);
                    }
                    outcome => return outcome,
                }
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                pause_ms = (pause_ms * 2).min(retries.max_pause_ms);
            }
            unreachable!("the last attempt has returned")
        };
        let mut interrupt = self.interrupt.clone();
        let why = tokio::select! {
            outcome = trying => return outcome,
            () = interrupt.wait() => "it was asked to end",
            () = time_is_up(self.until) => "the time of --for was up",
        };
        let waiting = Error::retry(format!("{what}: not ready yet when {why}"));
        Err(match latest.take() {
            Some(error) => waiting.caused_by(error),
            None => waiting,
        })
    }
}

/// Waits for that moment; for ever when there is none.
pub(crate) async fn time_is_up(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn for_ms(ms: u64) -> Patience {
        let until = Some(Instant::now() + Duration::from_millis(ms));
        Patience::new(&Interrupt::listen().unwrap(), until)
    }

    #[tokio::test]
    async fn only_what_passes_is_tried_again() {
        let calls = Cell::new(0);
        let fails_at_first = || async {
            calls.set(calls.get() + 1);
            if calls.get() < 3 { Err(Error::retry("still starting")) } else { Ok(()) }
        };
        for_ms(600_000).wait_for("test", fails_at_first).await.unwrap();
        assert_eq!(calls.get(), 3);

        calls.set(0);
        let wrong = || async {
            calls.set(calls.get() + 1);
            Err::<(), _>(Error::stop("wrong"))
        };
        assert!(for_ms(600_000).wait_for("test", wrong).await.is_err());
        assert_eq!(calls.get(), 1);
    }

    #[tokio::test]
    async fn its_time_bounds_the_pauses_and_the_calls() {
        let down = || async { Err::<(), _>(Error::retry("nobody answers")) };
        let error = for_ms(300).wait_for("the log", down).await.unwrap_err();
        assert!(error.is_retry(), "{error}");
        assert_eq!(error.to_string(), "the log: not ready yet when the time of --for was up: nobody answers");
        let error = for_ms(10).wait_for("the log", std::future::pending::<Result<()>>).await.unwrap_err();
        assert_eq!(error.to_string(), "the log: not ready yet when the time of --for was up");
    }
}
