use millstream_core::{Result, Retries};
use millstream_host::Stop;
use tokio::time::Instant;

/// How long a command waits for systems that are away: as long as the stream host retries, but no longer than until it is
/// asked to end, or until its own time is up.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    interrupt: Stop,
    until: Option<Instant>,
}

impl Patience {
    pub fn new(interrupt: &Stop, until: Option<Instant>) -> Self {
        Self { interrupt: interrupt.clone(), until }
    }

    /// Calls again while the error is transient.
    ///
    /// # Errors
    /// What is not transient, and what didn't succeed in time.
    pub async fn wait_for<T, F: Future<Output = Result<T>>>(&self, what: &str, call: impl FnMut() -> F) -> Result<T> {
        millstream_host::wait_for(what, Retries::default(), self.end(), call).await
    }

    /// Waits for the end of its time, and returns why it ended.
    async fn end(&self) -> &'static str {
        tokio::select! {
            () = self.interrupt.wait() => "it was asked to end",
            () = time_is_up(self.until) => "the time of --for was up",
        }
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
    use std::time::Duration;

    use millstream_core::Error;

    use super::*;

    fn for_ms(ms: u64) -> Patience {
        let until = Some(Instant::now() + Duration::from_millis(ms));
        Patience::new(&Stop::default(), until)
    }

    #[tokio::test]
    async fn its_time_bounds_the_pauses_and_the_calls() {
        let down = || async { Err::<(), _>(Error::retry("no answer")) };
        let error = for_ms(300).wait_for("the log", down).await.unwrap_err();
        assert!(error.is_retry(), "{error}");
        assert_eq!(error.to_string(), "the log: not ready yet when the time of --for was up: no answer");
        let error = for_ms(10).wait_for("the log", std::future::pending::<Result<()>>).await.unwrap_err();
        assert_eq!(error.to_string(), "the log: not ready yet when the time of --for was up");
        let asked = for_ms(600_000);
        asked.interrupt.request();
        let error = asked.wait_for("the log", std::future::pending::<Result<()>>).await.unwrap_err();
        assert_eq!(error.to_string(), "the log: not ready yet when it was asked to end");
    }
}
