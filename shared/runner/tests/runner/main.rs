//! The runner's contract, tested on fakes: schedules that try to lose or duplicate a record, to stop a function without
//! a reason, or to make two hosts differ.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod ahead;
mod breaker;
mod first_starts;
mod gaps;
mod letters;
mod narrowing;
mod oracle;
mod same_topic;
mod schedules;
mod world;
mod yielding;
mod zombies;
