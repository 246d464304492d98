//! The results of statements over batches: planned, run over any split of the events, merged and finished.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's")]

mod above;
mod bounds;
mod fixture;
mod joins;
mod lookups;
mod meaning;
mod messages;
mod numbers;
mod refusals;
mod splits;
mod states;
mod unnested;
mod whole;
mod windows;
mod words;
