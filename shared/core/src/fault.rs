//! Named points at which a test kills the process: one between every read, write and commit step.
//!
//! Without the feature `faults` every call compiles to nothing. With it, a main arms one point from its environment
//! (`MILLSTREAM_FAULT=sink.after_write:3` kills at the third passage) and the process ends itself by SIGKILL there, as
//! a lost machine would: no destructor runs, no buffer is flushed.

/// Every fault point of a function at work; a test kills at each of them, so that a new one can't be forgotten.
pub const POINTS: &[&str] = &[
    "runner.before_decode",
    "runner.before_dead_letters",
    "runner.after_dead_letters",
    "runner.after_write",
    "host.before_acknowledge",
    "host.after_acknowledge",
    "postgres.before_commit",
    "postgres.after_commit",
    "embedded.before_commit",
    "embedded.after_commit",
    "lake.before_file",
    "lake.after_file",
    "lake.after_fence",
    "topic.after_outbox",
    "topic.before_send",
    "topic.after_send",
    "topic.after_fence",
];

/// The points within the step in which a rebuilt table takes the place of another one. A rebuild passes the first two of each
/// store twice: it rehearses the step first.
pub const SWAP_POINTS: &[&str] = &[
    "postgres.before_swap",
    "postgres.after_rename",
    "postgres.before_swap_commit",
    "postgres.after_swap_commit",
    "embedded.before_swap",
    "embedded.after_rename",
    "embedded.before_swap_commit",
    "embedded.after_swap_commit",
];

/// The points within the step in which a changed plan adopts a table.
pub const ADOPT_POINTS: &[&str] = &[
    "postgres.after_adapt",
    "postgres.before_adopt_commit",
    "postgres.after_adopt_commit",
    "embedded.after_adapt",
    "embedded.before_adopt_commit",
    "embedded.after_adopt_commit",
];

/// The points within a write to a store without transactions: its rows, and then its fence.
pub const STEP_POINTS: &[&str] = &[
    "cassandra.after_rows",
    "cassandra.before_fence",
    "cassandra.after_fence",
    "redis.before_rows",
    "redis.after_rows",
    "redis.after_fence",
];

#[cfg(feature = "faults")]
mod armed {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    };

    static ARMED: OnceLock<(String, AtomicU32)> = OnceLock::new();

    /// Arms one point: `NAME` or `NAME:PASSAGE`. Called once, by a main. Panics on a name that does not exist, because a
    /// test that kills nowhere proves nothing.
    pub fn arm(setting: &str) {
        let (name, passage) = setting.split_once(':').unwrap_or((setting, "1"));
        let points = [super::POINTS, super::SWAP_POINTS, super::ADOPT_POINTS, super::STEP_POINTS].concat();
        assert!(points.contains(&name), "no fault point is named {name}; there are {points:?}");
        let passage = passage.parse().unwrap_or(1);
        let _ = ARMED.set((name.to_owned(), AtomicU32::new(passage)));
    }

    /// Kills the process when `name` is armed and this is the passage asked for.
    #[expect(unsafe_code, reason = "SIGKILL to oneself is the point; libc::kill on the own pid has no precondition")]
    pub fn point(name: &str) {
        if let Some((armed, left)) = ARMED.get()
            && armed == name
            && left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            // The signal is on its way: nothing after this point may happen.
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(feature = "faults")]
pub use armed::{arm, point};

/// Compiled in under the feature `faults` only.
#[cfg(not(feature = "faults"))]
pub fn arm(_setting: &str) {}

/// Compiled in under the feature `faults` only.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn point(_name: &str) {}
