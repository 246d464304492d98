//! The `ingest` binary as a process on the embedded log: as a service, and on Lambda.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod generated;
mod polled;
mod received;
mod shop;
