//! The event store on a real Cassandra, and behind stand-ins for the services that speak its API. Every test has keyspaces of
//! its own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod conformance;
mod feed;
mod interrupted;
mod newest;
mod refusals;
mod stand_in;
mod store;
mod support;
