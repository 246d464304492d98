//! Kafka and its like: consumer group, range reads, producer, topics.
//!
//! ```no_run
//! use millstream_core::{Connect, Env, NewRecord, Producer, Topics};
//! use millstream_kafka::Kafka;
//!
//! # async fn example() -> millstream_core::Result<()> {
//! let env = Env::of([("MILLSTREAM_KAFKA_BROKERS", "localhost:9092")]); // a main hands down its environment
//! let Some(kafka) = Kafka::open(&env)? else { return Ok(()) };
//! kafka.create_topic("transaction", 3, &[]).await?;
//! let record = NewRecord { key: Some(b"k".to_vec()), value: Some(b"v".to_vec()), ..NewRecord::default() };
//! println!("{}", kafka.send("transaction", vec![record]).await?[0]);
//! # Ok(())
//! # }
//! ```
//!
//! [`Kafka`] is the only door. As a [`Source`](millstream_core::Source) it is a member of a consumer group that reads each
//! partition from the sink's fence, on at most 16 threads; as a [`Log`](millstream_core::Log) it reads ranges outside every
//! group; as a [`Producer`](millstream_core::Producer) it is idempotent and in order.
//!
//! The offsets that it commits to the group trail the fences and are for display only: nothing depends on them.

mod bell;
mod consume;
mod control;
mod environment;
mod group;
mod gzip;
mod known;
mod link;
mod member;
mod produce;
mod queue;
mod read;
mod reader;
mod readers;
mod sender;
mod settings;
mod shipment;
mod store;
mod task;
mod topic_id;
mod topics;
mod unreadable;
mod worker;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use millstream_core::{Compression, Result};

use crate::{control::Control, readers::Readers, sender::Sender};
pub use gzip::gzip_batches;
pub use settings::{KafkaSettings, Profile};

/// By compression, and whether they are ordered.
type Senders = BTreeMap<(Compression, bool), Arc<Sender>>;

/// A cluster. Cheap to clone: clones share connections.
#[derive(Clone)]
pub struct Kafka {
    settings: Arc<KafkaSettings>,
    control: Control,
    readers: Arc<Readers>,
    sender: Arc<Sender>,
    /// The senders that were asked for: each is a client of its own.
    senders: Arc<Mutex<Senders>>,
}

impl Kafka {
    /// A cluster by its settings. Connects in the background: a broker that is down is not an error here.
    ///
    /// # Errors
    /// `Stop` when a setting is unknown or wrong; names it, and no value.
    pub fn new(settings: KafkaSettings) -> Result<Self> {
        gzip::allow(settings.config.get("receive.message.max.bytes").map(String::as_str));
        let control = Control::new(&settings)?;
        let settings = Arc::new(settings);
        let sender = Arc::new(Sender::new(settings.clone(), false));
        Ok(Self {
            control,
            readers: Arc::new(Readers::new(settings.clone())),
            senders: Arc::new(Mutex::new([((settings.compression, false), sender.clone())].into())),
            sender,
            settings,
        })
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kafka").field(&self.settings).finish()
    }
}
