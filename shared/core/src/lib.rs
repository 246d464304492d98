//! The contract between everything that reads, transforms and writes in millstream.
//!
//! ```
//! use millstream_core::{BatchBuilder, TopicPartition};
//!
//! let partition = TopicPartition::new("transaction", 1, 0);
//! let mut builder = BatchBuilder::new(partition);
//! builder.push(41, 1_700_000_000_000, Some(b"key"), Some(br#"{"amount":"1.50"}"#), []);
//! let batch = builder.finish_read(40, 42); // 40 is a legitimate hole: the log was read from there
//! assert_eq!(batch.range(), 40..42);
//! assert_eq!(batch.after(42), None, "a redelivery of what is below the fence is empty");
//! ```
//!
//! This crate knows no system, no runtime and no file format but Arrow's memory layout. What it says in the docs of
//! [`Sink`], [`Log`] and [`Source`] is what the conformance suite of `millstream-testkit` checks.

mod batch;
mod clock;
mod dead_letter;
mod env;
mod error;
pub mod fault;
mod fence;
mod lineage;
mod log;
mod lookup;
pub mod merge;
mod owner;
mod partitioner;
mod position;
mod replace;
mod retries;
mod settings;
mod sink;
mod storable;
mod store;
mod table;
mod timestamp;
mod transform;
mod type_name;
mod wider;

pub use batch::{Batch, BatchBuilder, Delivery, Header};
pub use clock::{Clock, ManualClock, SystemClock};
pub use dead_letter::{
    DeadLetter, DeadLetters, MAX_LETTER_KEY_BYTES, MAX_LETTER_REASON_BYTES, MAX_LETTER_VALUE_BYTES, MAX_LISTED_BYTES,
};
pub use env::{Address, Env, Secret};
pub use error::{Cause, Error, Result};
pub use fence::{Fence, Upstream};
pub use lineage::{Lineage, SOURCE_HEADER};
pub use log::{Handler, Limits, Log, NewRecord, Producer, Source, Subscription, TopicInfo, Topics, Watermarks};
pub use lookup::Lookup;
pub use owner::{Claim, Holding, Owner, OwnerRecord, Rows, fences_of_both, term_ended};
pub use partitioner::partition_of;
pub use position::{FIRST_REDRIVE, Position, TopicPartition};
pub use replace::{CatchUp, REBUILD_SUFFIX, Replace, Replaced, Replacement, reached, reached_text};
pub use retries::Retries;
pub use settings::{Compression, Late, OnGap, PartitionBy, Start, Tombstones};
pub use sink::{OddRow, Sink, Snapshot, TakeOddRow, TakeRows, WHOLE_TOPIC};
pub use storable::MAX_KEY_BYTES;
pub use store::{Connect, Feed, LogStore, TableStore, TextRows};
pub use table::{Column, Combine, Merge, Role, Table, View, quote_identifier};
pub use timestamp::{EPOCH_METADATA, timestamp_type};
pub use transform::{Bad, Decode, Decoded, Encode, META_COLUMNS, Transform, headers_type, meta};
pub use type_name::type_name;
pub use wider::is_wider;
