//! The sink and the reader on a real Redis. Every test has a database of its own, or a server where it breaks one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod cluster;
mod conformance;
mod entities;
mod faults;
mod flushes;
mod owners;
mod reader;
mod server;
mod streams;
mod support;
mod tls;
mod values;
