//! Local stand-ins for the clouds' APIs, for tests.
//!
//! ```
//! use millstream_core::{BatchBuilder, TopicPartition};
//! use millstream_emulators::kafka_event;
//!
//! let mut builder = BatchBuilder::new(TopicPartition::new("transaction", 1, 0));
//! builder.push(41, 1_700_000_000_000, None, Some(b"{}"), []);
//! let event = kafka_event(&[builder.finish_pushed().unwrap()]);
//! assert_eq!(event["eventSource"], "aws:kafka");
//! ```
//!
//! [`LambdaRuntimeApi`] is AWS Lambda's side of a function process, [`kafka_event`] the event that its mapping sends.
//! With the feature `event-hubs`, `event_hubs` is a namespace of Azure Event Hubs as its clients of AMQP see it.
//! Everything panics instead of returning errors: it runs in tests only.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this crate is test code: a panic is how a test fails")]

#[cfg(feature = "event-hubs")]
pub mod event_hubs;
mod kafka_event;
mod lambda_runtime_api;

pub use kafka_event::kafka_event;
pub use lambda_runtime_api::{InvocationError, LambdaRuntimeApi};
