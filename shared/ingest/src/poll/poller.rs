use std::{sync::Arc, time::Duration};

use millstream_core::{NewRecord, Result};
use millstream_pipeline::{Poll, Topic};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{Answer, Failed, Fetch, answer::Records, ms};

/// The pauses after failures in a row: the first, which each further one doubles, and the longest.
const PASSING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const LASTING: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));
/// An API that asks for more patience than this is asked all the same.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// When an API is asked, and what becomes of its answers. Time and randomness come from outside.
///
/// After failures in a row, it waits 1 s, 2 s, 4 s and so on up to a minute; where a person must act, 1 to 10 minutes. Up to
/// half of each pause is taken off at random, so that many pollers don't come back at once; what `Retry-After` asks for (an
/// hour at most) is the least, and without it the interval is, where the API is asked too often.
pub struct Poller {
    function: String,
    every_ms: i64,
    fetch: Arc<dyn Fetch>,
    records: Records,
    keeps_etag: bool,
    etag: Option<String>,
    /// Which multiple of the interval was polled last.
    last: Option<i64>,
    failures: u32,
    /// Not before this time, after a failure.
    not_before_ms: Option<i64>,
    rng: StdRng,
}

impl Poller {
    /// Polls by `fetch` for `topic`. `function` is its name in log lines; `key` is the field whose value is the record's key.
    ///
    /// # Errors
    /// `Stop` when `key` is not a field of the topic.
    pub fn new(
        function: &str,
        topic: &Topic,
        poll: &Poll,
        key: Option<&str>,
        fetch: Arc<dyn Fetch>,
        seed: u64,
    ) -> Result<Self> {
        Ok(Self {
            function: function.to_owned(),
            every_ms: i64::try_from(poll.every_ms).unwrap_or(i64::MAX).max(1),
            fetch,
            records: Records::new(topic, poll.records.clone(), key)?,
            keeps_etag: poll.etag,
            etag: None,
            last: None,
            failures: 0,
            not_before_ms: None,
            rng: StdRng::seed_from_u64(seed),
        })
    }

    /// The function that it polls for.
    pub(super) fn function(&self) -> &str {
        &self.function
    }

    /// Whom it asks.
    pub(super) fn place(&self) -> String {
        self.fetch.place()
    }

    /// How long from now until the next poll.
    pub(super) fn pause(&self, now_ms: i64) -> Duration {
        let until = match (self.not_before_ms, self.last) {
            // A clock that was set back must not wait for hours.
            (Some(not_before_ms), _) if not_before_ms - now_ms <= ms(MAX_RETRY_AFTER.max(self.every())) => {
                not_before_ms
            }
            (None, Some(last)) if last - now_ms.div_euclid(self.every_ms) <= 1 => {
                last.saturating_add(1).saturating_mul(self.every_ms)
            }
            _ => now_ms,
        };
        Duration::from_millis(until.saturating_sub(now_ms).max(0).unsigned_abs())
    }

    fn every(&self) -> Duration {
        Duration::from_millis(self.every_ms.unsigned_abs())
    }

    /// How many polls in a row have failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A poll begins.
    pub(super) fn begin(&mut self, now_ms: i64) {
        self.last = Some(now_ms.div_euclid(self.every_ms));
    }

    pub(super) async fn fetch(&self) -> Result<Answer, Failed> {
        self.fetch.fetch(self.etag.as_deref()).await
    }

    /// The records of an answer.
    pub(super) fn records(&self, body: &[u8], now_ms: i64) -> Result<Vec<NewRecord>, Failed> {
        self.records.of(body, now_ms)
    }

    /// The records of an answer are in the topic. Returns how many polls had failed before it, if any had.
    pub(super) fn answered(&mut self, etag: Option<String>) -> Option<u32> {
        if self.keeps_etag {
            // That of the last answer in the topic: a later one without a tag may have said something else.
            self.etag = etag;
        }
        self.not_before_ms = None;
        Some(std::mem::take(&mut self.failures)).filter(|failures| *failures > 0)
    }

    /// A poll failed. Returns how many in a row have, and how long it waits.
    pub(super) fn failed(&mut self, failed: &Failed, now_ms: i64) -> (u32, Duration) {
        self.failures = self.failures.saturating_add(1);
        let (first, most) = if failed.is_lasting { LASTING } else { PASSING };
        let doubled = first.saturating_mul(1 << (self.failures - 1).min(16)).min(most);
        let pause = doubled.mul_f64(self.rng.random_range(0.5..=1.0));
        let asked = failed.retry_after.map(|asked| asked.min(MAX_RETRY_AFTER));
        let least = asked.unwrap_or(if failed.is_throttled { self.every() } else { Duration::ZERO });
        let pause = pause.max(least);
        self.not_before_ms = Some(now_ms.saturating_add(ms(pause)));
        (self.failures, pause)
    }
}
