use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Where the time comes from. Mains pass [`SystemClock`], tests a [`ManualClock`].
pub trait Clock: Send + Sync {
    /// Microseconds since 1970, UTC.
    fn now_us(&self) -> i64;

    /// Milliseconds since 1970, UTC.
    fn now_ms(&self) -> i64 {
        self.now_us() / 1_000
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one edge at which time comes in")]
    fn now_us(&self) -> i64 {
        // A clock before 1970 is a broken machine; 0 keeps it harmless.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as i64)
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `us` microseconds since 1970.
    pub fn at_us(us: i64) -> Self {
        Self(AtomicI64::new(us))
    }

    /// Moves the clock forward by `us` microseconds.
    pub fn advance_us(&self, us: i64) {
        self.0.fetch_add(us, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}
