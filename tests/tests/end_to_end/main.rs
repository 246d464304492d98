//! End to end: the function binaries as processes, on real services and embedded, with faults.
//!
//! `tests/run` builds everything and starts the services. By hand: `cargo build --workspace --bins --tests --features
//! millstream-core/faults`, `tests/services start`, source the file that it prints, and run this test with the same
//! features.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod adopts;
mod archive;
mod audit;
mod audit_since;
mod differential;
mod event_hubs;
mod faults;
mod hops;
mod hosts;
mod iss;
mod kills;
mod lake;
mod log;
mod orders;
mod orders_trouble;
mod outage;
mod rebuilds;
mod redrives;
mod rolling;
mod swaps;
mod trouble;
mod tweets;
mod views;
mod world;
mod zombies;
