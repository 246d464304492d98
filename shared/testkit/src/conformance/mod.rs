//! What the docs of [`Sink`], [`Log`], [`Producer`], [`Topics`], [`Source`] and [`DeadLetters`](millstream_core::DeadLetters)
//! promise, as checks that every adapter runs: each check is a test of its own, by the macros [`sink_tests`],
//! [`merging_sink_tests`], [`log_tests`], [`source_tests`] and [`dead_letter_tests`].
//!
//! An adapter gives a macro an `async fn` that takes a check, prepares what it runs on, runs it, and clears up. It may take
//! further arguments:
//!
//! ```
//! use std::sync::Arc;
//!
//! use millstream_testkit::{MemoryLog, conformance::{LogCheck, LogUnderTest}};
//!
//! async fn conforms(prefix: &str, check: LogCheck) {
//!     let log = Arc::new(MemoryLog::new());
//!     let (producer, topics) = (log.clone(), log.clone());
//!     check.run(&LogUnderTest { log, producer, topics, prefix: prefix.to_owned() }).await;
//! }
//!
//! mod memory {
//!     millstream_testkit::log_tests!(super::conforms, "run-");
//! }
//! ```
//!
//! A new check is a function in one of the files here and a line in `suites.rs`; no adapter changes.
//!
//! [`Sink`]: millstream_core::Sink
//! [`Log`]: millstream_core::Log
//! [`Producer`]: millstream_core::Producer
//! [`Topics`]: millstream_core::Topics
//! [`Source`]: millstream_core::Source
//! [`sink_tests`]: crate::sink_tests
//! [`merging_sink_tests`]: crate::merging_sink_tests
//! [`log_tests`]: crate::log_tests
//! [`source_tests`]: crate::source_tests
//! [`dead_letter_tests`]: crate::dead_letter_tests

mod check;
mod harness;
mod letters;
mod log;
mod merge_adopted;
mod merge_keys;
mod merge_states;
mod sink_fences;
mod sink_fixture;
mod sink_owners;
mod sink_rebuilds;
mod sink_tables;
mod sink_writes;
mod source;
mod suites;

pub use check::{Check, DeadLettersCheck, LogCheck, SinkCheck, SourceCheck, find_check};
pub use harness::{LogUnderTest, SinkHarness, SourceUnderTest};
pub use suites::{dead_letter_checks, log_checks, merging_sink_checks, sink_checks, source_checks};
