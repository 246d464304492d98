use std::time::Duration;

use crate::{Error, Result};

/// When a failed call is made again: the one policy of everything that retries (hosts, `ingest`, the command line, the
/// embedded log). Adapters themselves retry nothing but what they know to have changed nothing.
///
/// It knows no clock and no runtime: the caller waits.
///
/// ```
/// use std::time::Duration;
/// use millstream_core::{Error, Retries};
///
/// let (retries, error) = (Retries::default(), Error::retry("the broker is away"));
/// assert_eq!(retries.pause(1, &error), Some(Duration::from_millis(100)));
/// assert_eq!(retries.pause(2, &error), Some(Duration::from_millis(200)));
/// assert_eq!(retries.pause(1, &Error::stop("the password is wrong")), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// The pause after the first attempt. Each further one is twice as long.
    pub first_pause: Duration,
    /// No pause is longer, unless the system that failed asks for it ([`Error::not_before`]).
    pub max_pause: Duration,
    /// After this many failed attempts in a row the error goes to the caller. `u32::MAX` never gives up.
    pub max_attempts: u32,
}

impl Default for Retries {
    /// 100 ms to 5 s, for some 15 minutes: long enough for a database's failover or restart, short enough for a supervisor
    /// to notice a database that is lost.
    fn default() -> Self {
        Self { first_pause: Duration::from_millis(100), max_pause: Duration::from_secs(5), max_attempts: 180 }
    }
}

impl Retries {
    /// The pause after attempt number `attempt` (from 1) has failed with `error`. `None` when no further attempt must be
    /// made: another attempt can't succeed, or this was the last one.
    pub fn pause(&self, attempt: u32, error: &Error) -> Option<Duration> {
        if !error.is_retry() || attempt >= self.max_attempts {
            return None;
        }
        let doubled = self.first_pause.saturating_mul(1 << attempt.saturating_sub(1).min(16));
        let asked_for = error.retry_after().unwrap_or_default();
        Some(doubled.min(self.max_pause).max(asked_for))
    }

    /// Calls until it succeeds, as long as [`Self::pause`] says so. `wait` gets the number of the failed attempt, its error
    /// and the pause; it sleeps, and answers whether to go on. The place to log is there, too.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn call<T, C, W>(
        &self,
        mut call: impl FnMut() -> C,
        mut wait: impl FnMut(u32, &Error, Duration) -> W,
    ) -> Result<T>
    where
        C: Future<Output = Result<T>>,
        W: Future<Output = bool>,
    {
        let mut attempt = 1_u32;
        loop {
            let error = match call().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(pause) = self.pause(attempt, &error) else { return Err(error) };
            if !wait(attempt, &error, pause).await {
                return Err(error);
            }
            attempt = attempt.saturating_add(1);
        }
    }

    /// Is failed attempt number `attempt` worth a line in the log? The first one and every tenth are: an outage must be seen,
    /// and must not fill the log.
    pub fn is_logged(attempt: u32) -> bool {
        attempt == 1 || attempt.is_multiple_of(10)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        future::{Future, ready},
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// The outcome of a future that never waits.
    fn now<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("nothing in it waits"),
        }
    }

    fn away() -> Error {
        Error::retry("the broker is away")
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let retries = Retries { max_attempts: u32::MAX, ..Retries::default() };
        let pauses: Vec<_> = (1..=8).filter_map(|attempt| retries.pause(attempt, &away())).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000].map(MS));
        assert_eq!(retries.pause(u32::MAX - 1, &away()), Some(MS(5_000)));
    }

    #[test]
    fn the_last_attempt_and_what_is_not_transient_end_it() {
        let retries = Retries { max_attempts: 3, ..Retries::default() };
        assert!(retries.pause(2, &away()).is_some());
        assert_eq!(retries.pause(3, &away()), None);
        for error in [Error::stop("a"), Error::poison("a"), Error::stop("a").not_before(MS(1))] {
            assert_eq!(retries.pause(1, &error), None, "{error}");
        }
        assert!(retries.pause(1, &Error::Fenced { current: None }).is_some());
    }

    #[test]
    fn what_the_system_asks_for_is_the_shortest_pause() {
        let retries = Retries::default();
        assert_eq!(retries.pause(1, &away().not_before(MS(30_000))), Some(MS(30_000)), "longer than the longest");
        assert_eq!(retries.pause(3, &away().not_before(MS(10))), Some(MS(400)), "shorter than its turn");
        assert_eq!(Error::stop("a").not_before(MS(1)).retry_after(), None);
    }

    #[test]
    fn a_call_is_made_again_until_it_succeeds_or_waiting_ends() {
        let (calls, pauses) = (Cell::new(0), RefCell::new(Vec::new()));
        let call = || {
            calls.set(calls.get() + 1);
            ready(if calls.get() % 4 == 0 { Ok(calls.get()) } else { Err(away()) })
        };
        let note = |attempt: u32, _: &Error, pause: Duration| {
            pauses.borrow_mut().push((attempt, pause));
            ready(true)
        };
        assert_eq!(now(Retries::default().call(call, note)).unwrap(), 4);
        assert_eq!(pauses.take(), [(1, MS(100)), (2, MS(200)), (3, MS(400))]);
        let stopped = now(Retries::default().call(call, |_, _, _| ready(false)));
        assert_eq!(stopped.unwrap_err().to_string(), "the broker is away");
        assert_eq!(calls.get(), 5);
        assert!(now(Retries { max_attempts: 2, ..Retries::default() }.call(call, note)).is_err());
        assert_eq!(calls.get(), 7);
    }
}
