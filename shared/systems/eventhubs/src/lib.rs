//! Azure Event Hubs over AMQP 1.0, as a source: for the Basic tier, which has no Kafka endpoint.
//!
//! ```no_run
//! use millstream_core::{Connect, Env, Limits, Log, TopicPartition};
//! use millstream_eventhubs::EventHubs;
//!
//! # async fn example() -> millstream_core::Result<()> {
//! let key = "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=reader;SharedAccessKey=…";
//! let env = Env::of([("MILLSTREAM_EVENTHUBS_CONNECTION", key)]); // a main hands down its environment
//! let Some(hubs) = EventHubs::open(&env)? else { return Ok(()) };
//! let partition = TopicPartition::new("orders", 1, 0);
//! let held = hubs.watermarks(&partition).await?;
//! let limits = Limits { max_records: 1_000, max_bytes: 8 << 20, max_wait_ms: 100 };
//! println!("{} events", hubs.read(&partition, held.low..held.high, limits).await?.len());
//! # Ok(())
//! # }
//! ```
//!
//! A topic is an event hub of the namespace, and the offset of a record is its sequence number. millstream reads
//! them, and writes dead letters. README.md says which facts of the service this rests on and where they are from.
//!
//! **It was never tried on the real service**, only on the double in `millstream-emulators`, whose rules are from Microsoft's
//! documentation and from the sources of Microsoft's clients.

mod client;
mod connection;
mod connection_string;
mod consume;
mod encoding;
mod endpoint;
mod failure;
mod frames;
mod idle;
mod link;
mod log;
mod message;
mod one_thread;
mod produce;
mod record;
mod requests;
mod settings;
mod share;
mod store;
mod token;
mod topics;
mod worker;
mod writer;

use std::{fmt, time::Duration};

use millstream_core::TopicPartition;

use crate::{client::Client, idle::Idle};
pub use settings::EventHubsSettings;

/// A namespace of Event Hubs. Cheap to clone: clones share a connection.
#[derive(Clone)]
pub struct EventHubs {
    client: Client,
    idle: Idle,
    look: Duration,
}

impl EventHubs {
    /// A namespace by its settings. Connects when it is first asked for something.
    pub fn new(settings: EventHubsSettings) -> Self {
        Self { client: Client::new(settings), idle: Idle::default(), look: consume::LOOK }
    }

    /// Sets how often [`consume`](millstream_core::Source::consume) looks for new partitions, and whether a partition from which
    /// nothing comes has nothing: once a minute by default.
    #[must_use]
    pub fn looking_every(mut self, look: Duration) -> Self {
        self.look = look;
        self
    }
}

impl fmt::Debug for EventHubs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventHubs").field(&self.client.settings).finish()
    }
}

/// What a read is doing, for an error.
fn reading(partition: &TopicPartition, offset: i64) -> String {
    format!("reading event hub {}, partition {} at {offset}", partition.topic, partition.partition)
}
