//! Dead letters in a topic, on any log and producer.
//!
//! ```
//! use std::sync::Arc;
//!
//! use millstream_core::DeadLetters;
//! use millstream_testkit::MemoryLog;
//! use millstream_topic::TopicDeadLetters;
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let letters = TopicDeadLetters::new(Arc::new(MemoryLog::with_topic("dead-letters", 1)), "dead-letters");
//! assert_eq!(letters.list(Some("bank.flow"), 10).await.unwrap(), []);
//! # });
//! ```

mod dead_letters;
mod newest;
mod record;

pub use dead_letters::TopicDeadLetters;
