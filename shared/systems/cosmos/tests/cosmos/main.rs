//! The event store on the emulator of Microsoft's client, in the process of the test. Every test has an account of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod account;
mod by_key;
mod conformance;
mod faults;
mod feed;
mod interrupted;
mod newest;
mod store;
mod support;
