//! What is asked of a namespace. One connection serves all, and is opened again after it was lost.

use std::sync::{Arc, Mutex, PoisonError};

use fe2o3_amqp::types::{
    messaging::{Body, Message},
    primitives::Value,
};
use futures::{FutureExt as _, future::BoxFuture, future::Shared};
use millstream_core::{Error, Result, TopicPartition, Watermarks};

use crate::{
    EventHubsSettings,
    connection::Connection,
    failure::Failure,
    link::Link,
    one_thread::on_one_thread,
    writer::{self, Writer},
};

/// What the service calls an event hub, and a partition of one.
const HUB: &str = "com.microsoft:eventhub";
const PARTITION: &str = "com.microsoft:partition";

/// A namespace. Clones share the connection.
#[derive(Clone)]
pub(crate) struct Client {
    pub settings: Arc<EventHubsSettings>,
    /// The connection, or the attempt to open it: those who need it meanwhile share its outcome.
    opening: Arc<Mutex<Option<Opening>>>,
}

type Opening = Shared<BoxFuture<'static, Result<Arc<Connection>, Failure>>>;

/// An event hub, as the service tells of it.
pub(crate) struct Hub {
    /// When it was created, in milliseconds since 1970.
    pub created_ms: i64,
    pub partitions: i32,
}

impl Client {
    pub fn new(settings: EventHubsSettings) -> Self {
        Self { settings: Arc::new(settings), opening: Arc::default() }
    }

    pub async fn hub(&self, hub: &str) -> Result<Hub> {
        let doing = format!("asking for event hub {hub}");
        let told = self.describe(hub, HUB, None, &doing).await?;
        let ids = match find(&told, "partition_ids") {
            Some(Value::Array(ids)) => ids.0.len(),
            Some(Value::List(ids)) => ids.len(),
            _ => return Err(unknown(&doing, "partition_ids")),
        };
        match find(&told, "created_at") {
            Some(Value::Timestamp(created)) => {
                Ok(Hub { created_ms: created.milliseconds(), partitions: i32::try_from(ids).unwrap_or(i32::MAX) })
            }
            _ => Err(unknown(&doing, "created_at")),
        }
    }

    /// The sequence numbers that a partition holds now.
    ///
    /// A partition that never had an event has -1 for the last one, and perhaps for the first one too. One that retention has
    /// emptied has its last number still, and the next event gets the one after it.
    pub async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks> {
        let doing = format!("asking for event hub {}, partition {}", partition.topic, partition.partition);
        let told = self.describe(&partition.topic, PARTITION, Some(partition.partition), &doing).await?;
        let number = |name| match find(&told, name) {
            Some(Value::Long(number)) => Ok(*number),
            _ => Err(unknown(&doing, name)),
        };
        let (first, last) = (number("begin_sequence_number")?, number("last_enqueued_sequence_number")?);
        let is_empty = matches!(find(&told, "is_partition_empty"), Some(Value::Bool(true)));
        let high = (last + 1).max(0);
        let low = if is_empty { high } else { first.clamp(0, high) };
        Ok(Watermarks { low, high })
    }

    /// A receiver whose first event is the one at `next`, or the oldest one if that is gone.
    pub async fn open(&self, partition: &TopicPartition, next: i64) -> Result<Link> {
        let doing = crate::reading(partition, next);
        let connection = self.connection(&partition.topic, &doing).await?;
        let (held, partition) = (connection.clone(), partition.clone());
        let opened = on_one_thread(async move {
            let opened = Link::attach(&held, &partition, next).await;
            if opened.as_ref().is_err_and(Failure::is_unauthorized) {
                // The token may have ended by the service's clock: once more with a new one.
                held.forget(&partition.topic).await;
                return Link::attach(&held, &partition, next).await;
            }
            opened
        });
        self.judge(&connection, opened.await, &doing)
    }

    async fn describe(&self, hub: &str, kind: &'static str, partition: Option<i32>, doing: &str) -> Result<Value> {
        let connection = self.connection(hub, doing).await?;
        let (held, hub) = (connection.clone(), hub.to_owned());
        let told = on_one_thread(async move {
            let told = held.describe(&hub, kind, partition).await;
            if told.as_ref().is_err_and(Failure::is_unauthorized) {
                held.forget(&hub).await;
                return held.describe(&hub, kind, partition).await;
            }
            told
        });
        self.judge(&connection, told.await, doing)
    }

    /// The open connection, or a new one.
    async fn connection(&self, hub: &str, doing: &str) -> Result<Arc<Connection>> {
        let connection = &self.settings.connection;
        if let Some(entity) = connection.entity.as_deref().filter(|entity| !entity.eq_ignore_ascii_case(hub)) {
            return Err(Error::stop(format!(
                "{doing}: the key in MILLSTREAM_EVENTHUBS_CONNECTION is for event hub {entity} alone (EntityPath); use a policy \
                 of the namespace {}",
                connection.namespace
            )));
        }
        if hub.is_empty() || hub.contains(['/', '?', '#', ' ', '%']) {
            return Err(Error::stop(format!("{doing}: `{hub}` can't be the name of an event hub")));
        }
        let opened = self.opening().await;
        opened.map_err(|failure| failure.into_error(&format!("{doing}: connecting to {}", self.settings.endpoint)))
    }

    /// The attempt that goes on, or has led to the open connection; or a new one.
    fn opening(&self) -> Opening {
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let is_good = |opening: &&Opening| match opening.peek() {
            Some(Ok(connection)) => !connection.is_lost(),
            Some(Err(_)) => false,
            None => true,
        };
        if let Some(opening) = opening.as_ref().filter(is_good) {
            return opening.clone();
        }
        let attempt = on_one_thread(Connection::open(self.settings.clone()));
        opening.insert(attempt.boxed().shared()).clone()
    }

    /// Sends events to a partition, and returns when the service has accepted all.
    pub async fn write(&self, topic: &str, partition: i32, events: Vec<Message<Body<Value>>>) -> Result<()> {
        let doing = format!("writing to event hub {topic}, partition {partition}");
        let connection = self.connection(topic, &doing).await?;
        let (held, topic) = (connection.clone(), topic.to_owned());
        let sent = on_one_thread(async move { writer::write(&held, &topic, partition, events).await });
        self.judge(&connection, sent.await, &doing)
    }

    /// The most bytes that an event of `topic` may have, if the service says that to a sender.
    pub async fn max_size(&self, topic: &str) -> Result<Option<usize>> {
        let doing = format!("writing to event hub {topic}");
        let connection = self.connection(topic, &doing).await?;
        let (held, topic) = (connection.clone(), topic.to_owned());
        let asked = on_one_thread(async move {
            let place = held.writer(&topic, 0);
            let mut place = place.lock().await;
            let writer = match place.take() {
                Some(writer) => writer,
                None => Writer::attach_with_new_token(&held, &topic, 0).await?,
            };
            Ok(place.insert(writer).max_size())
        });
        self.judge(&connection, asked.await, &doing)
    }

    /// Makes an error of a failure. A connection that failed is not used again; links that are open on it may go on.
    fn judge<T>(&self, connection: &Arc<Connection>, result: Result<T, Failure>, doing: &str) -> Result<T> {
        match result {
            Ok(done) => Ok(done),
            Err(failure) => {
                if failure.is_lost() {
                    connection.give_up();
                }
                Err(failure.into_error(doing))
            }
        }
    }
}

fn find<'a>(told: &'a Value, name: &str) -> Option<&'a Value> {
    match told {
        Value::Map(told) => told.get(&Value::String(name.to_owned())),
        _ => None,
    }
}

fn unknown(doing: &str, name: &str) -> Error {
    Error::retry(format!("{doing}: the service's answer has no `{name}` as it should"))
}
