//! What functions keep in topics, against the conformance suites.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod changes;
mod dead_letters;
mod hops;
mod on_kafka;
mod setup;
mod sink;
