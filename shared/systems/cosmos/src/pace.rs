//! How many requests are sent at once, where the service takes no more for now.

use std::{collections::VecDeque, future::Future, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use millstream_core::{Error, Result};
use tokio::time::{Instant, sleep_until};

/// How many requests are under way at once, at most.
const AT_ONCE: usize = 32;
/// How long requests that are refused are sent again. Then fewer records may get through.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one request is for.
pub(crate) trait Part: Sized {
    /// The same in smaller parts; the part itself if it is the smallest.
    fn split(self) -> Vec<Self> {
        vec![self]
    }
}

impl Part for usize {}

/// Sends requests again that the service has refused because of its throughput: they have changed nothing, and all that has got
/// through is paid for and stays. While that happens, fewer are under way at once; each that gets through makes room for more.
pub(crate) struct Pace {
    ends: Instant,
    /// How many requests may be under way.
    window: usize,
    /// How many got through since the window was changed.
    passed: usize,
    /// Of requests that were sent in one round, one refusal makes the window smaller.
    round: u32,
    /// When the service takes more.
    opens: Instant,
}

impl Pace {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { ends: now + PATIENCE, window: AT_ONCE, passed: 0, round: 0, opens: now }
    }

    /// Sends a request for each part. It gives its part back, and false if the service had no time for it: then smaller ones
    /// are sent, which must do no harm if it was made nevertheless.
    ///
    /// # Errors
    /// `TooLarge` when the service refuses for too long, or has no time for the smallest part; those of the requests.
    pub(crate) async fn run<T: Part, F: Future<Output = (T, Result<bool>)>>(
        &mut self,
        doing: &str,
        parts: impl IntoIterator<Item = T>,
        request: impl Fn(T) -> F,
    ) -> Result<()> {
        let (mut waiting, mut under_way) = (parts.into_iter().collect::<VecDeque<_>>(), FuturesUnordered::new());
        loop {
            let is_open = self.opens <= Instant::now();
            while is_open
                && under_way.len() < self.window
                && let Some(part) = waiting.pop_front()
            {
                let (round, answer) = (self.round, request(part));
                under_way.push(async move { (round, answer.await) });
            }
            let (round, (part, answer)) = tokio::select! {
                Some(answer) = under_way.next() => answer,
                () = sleep_until(self.opens), if !is_open && !waiting.is_empty() => continue,
                else => return Ok(()),
            };
            match answer {
                Ok(true) => self.speed_up(),
                Ok(false) => {
                    let late =
                        Error::too_large(format!("{doing}: the service has no time for it; the outcome is unknown"));
                    let parts = part.split();
                    if parts.len() == 1 || Instant::now() > self.ends {
                        return Err(late);
                    }
                    self.slow_down(round);
                    waiting.extend(parts);
                }
                Err(refused) => {
                    let is_alone = self.window == 1;
                    self.wait(refused)?;
                    self.slow_down(round);
                    // Alone it is more than there is: less of it may be taken.
                    let parts = if is_alone { part.split() } else { vec![part] };
                    parts.into_iter().rev().for_each(|part| waiting.push_front(part));
                }
            }
        }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// As for [`Pace::run`].
    pub(crate) async fn one<T, F: Future<Output = Result<T>>>(&mut self, request: impl Fn() -> F) -> Result<T> {
        loop {
            match request().await {
                Ok(answer) => return Ok(answer),
                Err(refused) => self.wait(refused)?,
            }
            sleep_until(self.opens).await;
        }
    }

    /// Nothing is sent for as long as the service says. Only where it takes no more for now, an error says when to come again.
    fn wait(&mut self, refused: Error) -> Result<()> {
        let Some(pause) = refused.retry_after() else { return Err(refused) };
        let opens = Instant::now() + pause;
        if opens > self.ends {
            let seconds = PATIENCE.as_secs();
            return Err(Error::too_large(format!("more than it takes in {seconds} s"))
                .not_before(pause)
                .caused_by(refused));
        }
        self.opens = self.opens.max(opens);
        Ok(())
    }

    fn slow_down(&mut self, round: u32) {
        if round == self.round {
            (self.window, self.passed, self.round) = ((self.window / 2).max(1), 0, self.round + 1);
        }
    }

    fn speed_up(&mut self) {
        self.passed += 1;
        if self.passed >= self.window {
            (self.window, self.passed) = ((self.window + 1).min(AT_ONCE), 0);
        }
    }
}

#[cfg(test)]
mod tests;
