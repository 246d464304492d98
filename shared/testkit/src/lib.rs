//! Fakes and the conformance suites, for tests.
//!
//! ```
//! use millstream_core::{Fence, Sink, TopicPartition};
//! use millstream_testkit::{Failure, MemorySink, PlainTransform};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let sink = MemorySink::new("demo.copy", PlainTransform::Append.table("copy"));
//! let partition = TopicPartition::new("words", 1, 0);
//! let from = sink.create_fence(&partition, Fence::starting_at(0)).await.unwrap();
//! let to = Fence { next_offset: 10, ..from.clone() };
//!
//! sink.fail_next(Failure::RetryAfter); // the connection is lost, but the write was made
//! assert!(sink.write(&partition, &from, &to, &[]).await.unwrap_err().is_retry());
//! assert_eq!(sink.fence(&partition).await.unwrap(), Some(to));
//! # });
//! ```
//!
//! An adapter proves itself with [`sink_tests`], [`merging_sink_tests`], [`log_tests`], [`source_tests`] and
//! [`dead_letter_tests`] (see [`conformance`]); the fakes here do so too. Everything panics instead of returning errors: it
//! runs in tests only.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this crate is test code: a panic is how a test fails")]

mod adopt;
mod combine;
pub mod conformance;
mod database_url;
mod journal;
mod memory_letters;
mod memory_log;
mod memory_sink;
mod plain;
pub mod rows;
pub mod sessions;

pub use adopt::adopt;
pub use combine::TestCombine;
pub use database_url::database_url;
pub use journal::{Call, Journal};
pub use memory_letters::MemoryDeadLetters;
pub use memory_log::MemoryLog;
pub use memory_sink::{Failure, MemorySink, MemoryStore};
pub use plain::{PlainDecode, PlainTransform};
