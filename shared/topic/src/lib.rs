//! What functions keep in topics, on any log and producer: dead letters, and the records of a function whose sink is a topic.
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

mod announce;
mod dead_letters;
mod event;
mod held;
mod kept;
mod newest;
mod outbox;
mod prepare;
mod record;
mod redrives;
mod rows;
mod scan;
mod shape;
mod sink;

pub use dead_letters::TopicDeadLetters;
pub use redrives::{CLOSED, MAX_SELECTED, Redriven, Redrives, RedrivesSaid, RedrivesTopic, Selection};
pub use shape::{FencesTopic, Key, Shape, Texts};
pub use sink::TopicSink;
