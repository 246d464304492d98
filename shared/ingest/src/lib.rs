//! Records for a topic: made by a pipeline's `generate:`, asked from an HTTP API, taken over HTTP, or read from a file.
//!
//! ```
//! use std::sync::{Arc, atomic::{AtomicUsize, Ordering::Relaxed}};
//!
//! use millstream_core::SystemClock;
//! use millstream_ingest::{Events, Pace};
//! use millstream_pipeline::Pipeline;
//! use millstream_testkit::MemoryLog;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> millstream_core::Result<()> {
//! let text = r#"
//! name: bank
//! topics:
//!   transaction:
//!     partitions: 3
//!     schema: { branch: string not null, amount: "decimal(18,2) not null", at: timestamp not null }
//!     event_time: at
//! functions:
//!   make:
//!     uses: ingest
//!     generate:
//!       rate_per_s: 1000
//!       fields:
//!         branch: { one_of: [Oslo, Vienna] }
//!         amount: { decimal: { min: 0.01, max: 100 } }
//!         at: now
//!     key: branch
//!     into: topic.transaction
//! "#;
//! let pipeline = Pipeline::parse(text, "bank/pipeline.yaml".as_ref()).unwrap();
//! let (topic, make) = (&pipeline.topics["transaction"], pipeline.functions["make"].making().unwrap());
//!
//! let mut events = Events::new(topic, make, 42)?;
//! let pace = Pace::of(make.generate().unwrap());
//! let log = Arc::new(MemoryLog::with_topic("transaction", 3));
//! let acknowledged = AtomicUsize::new(0);
//! let sent = |positions: &[_]| drop(acknowledged.fetch_add(positions.len(), Relaxed));
//! let stopping = || acknowledged.load(Relaxed) >= 10;
//! let clock = Arc::new(SystemClock);
//! let count = millstream_ingest::generate(&mut events, pace, "transaction", log, clock, stopping, sent).await?;
//! assert_eq!(count, acknowledged.into_inner() as u64);
//! # Ok(())
//! # }
//! ```
//!
//! [`Events`] makes records, [`generate`] sends them at a [`Pace`]; [`from_file`] reads records, [`produce`] sends them
//! at a [`Tempo`]. [`poll`] sends the answers of an API, [`Webhook`] what comes in requests. All send **at least once**: a send whose outcome is unknown is made again, so the log may hold a record
//! twice, at two positions, of which only the second is reported. Functions that read the log process each position exactly
//! once, so this is the only place where a duplicate can come from.

mod events;
mod file;
mod generate;
mod judge;
mod maker;
mod pace;
mod poll;
mod produce;
mod sender;
mod stand_in;
#[cfg(test)]
mod testing;
mod webhook;

pub use events::Events;
pub use file::{Checked, Follow, Look, from_file, line_of};
pub use generate::generate;
pub use pace::Pace;
pub use poll::{Answer, Failed, Fetch, HttpFetch, Polled, Poller, poll};
pub use produce::{Outcome, Tempo, produce};
pub use stand_in::StandIn;
pub use webhook::{ID_HEADER, KEYS_VARIABLE, Webhook};
