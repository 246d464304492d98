use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use millstream_core::{NewRecord, Result};
use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer},
};
use tokio::time::Instant;

use crate::{
    known::Known,
    link::Link,
    settings::{KafkaSettings, settings_error},
    shipment::{Shipment, Ticket},
};

/// How long a send waits for any of its records to be acknowledged before it gives up all that are left.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is checked why no record is acknowledged, and whether a full queue has room.
const TICK: Duration = Duration::from_millis(250);

const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);

/// Records handed to librdkafka before other tasks of the thread get a turn.
const STRIDE: usize = 1_000;

/// The producer, created at the first send and re-created after a failure: a client that lost a record writes no more, so
/// that no record ever comes after a gap.
pub(crate) struct Sender {
    settings: Arc<KafkaSettings>,
    /// Is nothing written to a partition after a record that failed?
    ordered: bool,
    client: Mutex<Option<Client>>,
    /// Topics that are known to exist, with their partitions: librdkafka would create a missing one as a side effect.
    topics: Mutex<HashMap<String, i32>>,
    /// What is known of the topics' `max.message.bytes`.
    limits: Mutex<HashMap<String, usize>>,
}

pub(crate) type Client = Arc<ThreadedProducer<Reports>>;

impl Sender {
    pub(crate) fn new(settings: Arc<KafkaSettings>, ordered: bool) -> Self {
        Self { settings, ordered, client: Mutex::default(), topics: Mutex::default(), limits: Mutex::default() }
    }

    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// The most bytes that `topic` is known to take at once.
    pub(crate) fn find_limit(&self, topic: &str) -> Option<usize> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied()
    }

    pub(crate) fn set_limit(&self, topic: &str, bytes: usize) {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned(), bytes);
    }

    /// Creates the client, so that the first send finds it ready.
    pub(crate) fn connect(&self) -> Result<()> {
        self.client().map(drop)
    }

    /// The client; creates it if there is none.
    pub(crate) fn client(&self) -> Result<Client> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let reports = Reports(Link::new(&self.settings.brokers), Known::default());
        let created = self.settings.producer().create_with_context(reports).map_err(settings_error)?;
        Ok(client.insert(Arc::new(created)).clone())
    }

    /// Drops the client with all that it still holds, so that none of it is written later.
    pub(crate) fn discard(&self, client: Client) {
        let mut current = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &client)) {
            *current = None;
        }
        drop(current);
        client.purge(PurgeConfig::default().queue().inflight());
        // The last owner of a client waits for its thread. If no thread can be started, the client is dropped here.
        drop(std::thread::Builder::new().spawn(move || drop(client)));
    }

    /// How many partitions `topic` is known to have.
    pub(crate) fn find_partitions(&self, topic: &str) -> Option<i32> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied()
    }

    /// Remembers how many partitions `topic` has, or forgets it.
    pub(crate) fn set_partitions(&self, topic: &str, partitions: Option<i32>) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        match partitions {
            Some(partitions) => topics.insert(topic.to_owned(), partitions),
            None => topics.remove(topic),
        };
    }
}

/// Hands all records to the client, in order, as fast as there is room.
pub(crate) async fn hand_over(
    client: &Client,
    topic: &str,
    records: &[&NewRecord],
    shipment: &Arc<Shipment>,
) -> std::result::Result<(), Code> {
    for (index, record) in records.iter().enumerate() {
        if index % STRIDE == STRIDE - 1 {
            tokio::task::yield_now().await;
        }
        let mut deadline = Instant::now() + PATIENCE;
        let mut left = shipment.state().left;
        while let Err(code) = hand_over_one(client, topic, record, shipment, index) {
            let now = shipment.state().left;
            if now != left {
                (left, deadline) = (now, Instant::now() + PATIENCE);
            }
            let code =
                if code == Code::QueueFull && Instant::now() >= deadline { Code::OperationTimedOut } else { code };
            if code != Code::QueueFull || client.context().0.refusal().is_some() {
                shipment.forget(records.len() - index);
                return Err(code);
            }
            tokio::time::sleep(QUEUE_FULL_WAIT).await;
        }
    }
    Ok(())
}

fn hand_over_one(
    client: &Client,
    topic: &str,
    record: &NewRecord,
    shipment: &Arc<Shipment>,
    index: usize,
) -> std::result::Result<(), Code> {
    let headers = (!record.headers.is_empty()).then(|| {
        let room = OwnedHeaders::new_with_capacity(record.headers.len());
        record.headers.iter().fold(room, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
    });
    let outgoing = BaseRecord {
        topic,
        partition: record.partition,
        payload: record.value.as_deref(),
        key: record.key.as_deref(),
        timestamp: record.timestamp_ms,
        headers,
        delivery_opaque: Box::new(Ticket { shipment: shipment.clone(), index }),
    };
    client.send(outgoing).map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(Code::InvalidArgument))
}

/// Waits until every record is reported; fails when a record failed, or when no more reports come.
pub(crate) async fn arrive(client: &Client, shipment: &Shipment) -> std::result::Result<(), Code> {
    let mut deadline = Instant::now() + PATIENCE;
    let mut left = usize::MAX;
    loop {
        let _ = tokio::time::timeout(TICK, shipment.done.notified()).await;
        let state = shipment.state();
        match state.failure {
            // The cause may be reported after its consequences: wait for all reports, as long as they come.
            Some(code) if state.left == 0 || Instant::now() >= deadline => return Err(code),
            None if state.left == 0 => return Ok(()),
            _ => {}
        }
        if state.left != left {
            (left, deadline) = (state.left, Instant::now() + PATIENCE);
        }
        if Instant::now() >= deadline || client.context().0.refusal().is_some() {
            return Err(Code::OperationTimedOut);
        }
    }
}

/// The client's context: hands the reports of records to their shipments.
pub(crate) struct Reports(pub(crate) Link, pub(crate) Known);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let report = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Fail)),
        };
        ticket.report(report);
    }
}
