use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use millstream_core::{Error, NewRecord, Position, Producer, Result, TopicPartition};
use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer},
};
use tokio::{sync::Notify, time::Instant};

use crate::{
    Kafka,
    control::blocking,
    link::Link,
    settings::{KafkaSettings, client_made},
};

/// How long a send waits for any of its records to be acknowledged before it gives up all that are left.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long it waits before it looks again why nothing moves, and for room in a full queue.
const TICK: Duration = Duration::from_millis(250);
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);

/// Records handed to librdkafka before other tasks of the thread get their turn.
const STRIDE: usize = 1_000;

/// What librdkafka adds to a record, for the check against the limit.
const RECORD_OVERHEAD_BYTES: usize = 512;

/// The producer, made at the first send and made anew after a failure: a client that lost a record writes no more,
/// so that nothing ever stands behind a gap.
pub(crate) struct Sender {
    settings: Arc<KafkaSettings>,
    client: Mutex<Option<Client>>,
    /// Topics that are known to exist, with their partitions: librdkafka would create a missing one by the way.
    topics: Mutex<HashMap<String, i32>>,
}

type Client = Arc<ThreadedProducer<Reports>>;

/// What the client tells about its records.
struct Reports(Link);

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
        ticket.shipment.report(ticket.index, report);
    }
}

/// Goes with a record and comes back with its report.
struct Ticket {
    shipment: Arc<Shipment>,
    index: usize,
}

/// The records of one send.
struct Shipment {
    state: Mutex<State>,
    done: Notify,
}

struct State {
    /// Partition and offset of each record.
    places: Vec<(i32, i64)>,
    left: usize,
    failure: Option<Code>,
}

impl Shipment {
    fn new(records: usize) -> Arc<Self> {
        let state = State { places: vec![(-1, -1); records], left: records, failure: None };
        Arc::new(Self { state: Mutex::new(state), done: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, index: usize, report: std::result::Result<(i32, i64), Code>) {
        let mut state = self.state();
        match report {
            Ok(place) => state.places[index] = place,
            // The first that says more than "the one before me failed".
            Err(code) if state.failure.is_none_or(is_a_consequence) => state.failure = Some(code),
            Err(_) => {}
        }
        state.left -= 1;
        if state.left == 0 {
            self.done.notify_one();
        }
    }

    /// Records that were never handed over.
    fn forget(&self, records: usize) {
        let mut state = self.state();
        state.left -= records;
        if state.left == 0 {
            self.done.notify_one();
        }
    }
}

fn is_a_consequence(code: Code) -> bool {
    matches!(code, Code::Fatal | Code::GaplessGuarantee | Code::PurgeQueue | Code::PurgeInflight)
}

impl Sender {
    pub(crate) fn new(settings: Arc<KafkaSettings>) -> Self {
        Self { settings, client: Mutex::new(None), topics: Mutex::new(HashMap::new()) }
    }

    /// Makes the client, so that the first send finds it ready.
    pub(crate) fn begin(&self) -> Result<()> {
        self.client().map(drop)
    }

    fn client(&self) -> Result<Client> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let reports = Reports(Link::new(&self.settings.brokers));
        let made: Client = Arc::new(client_made(self.settings.producer().create_with_context(reports))?);
        *client = Some(made.clone());
        Ok(made)
    }

    /// Drops what the client still holds, so that nothing of it is written later, and the client with it.
    fn discard(&self, client: Client) {
        let mut current = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &client)) {
            *current = None;
        }
        drop(current);
        client.purge(PurgeConfig::default().queue().inflight());
        // Its last owner waits for its thread.
        drop(tokio::task::spawn_blocking(move || drop(client)));
    }

    fn known(&self, topic: &str) -> Option<i32> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied()
    }

    fn know(&self, topic: &str, partitions: Option<i32>) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        match partitions {
            Some(partitions) => topics.insert(topic.to_owned(), partitions),
            None => topics.remove(topic),
        };
    }
}

#[async_trait]
impl Producer for Kafka {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.check(topic, &records).await?;
        let client = self.sender.client()?;
        let shipment = Shipment::new(records.len());
        let handed = hand_over(&client, topic, &records, &shipment).await;
        drop(records);
        let arrived = match handed {
            Ok(()) => arrive(&client, &shipment).await,
            Err(code) => Err(code),
        };
        match arrived {
            Ok(()) => {
                client.context().0.works();
                let places = std::mem::take(&mut shipment.state().places);
                let position = |(partition, offset)| TopicPartition::new(topic, 0, partition).at(offset);
                Ok(places.into_iter().map(position).collect())
            }
            Err(code) => {
                let error = self.not_sent(&client, topic, code).await;
                self.sender.discard(client);
                Err(error)
            }
        }
    }
}

impl Kafka {
    /// What can be told before anything is sent: a missing topic or partition, a record that is too large.
    async fn check(&self, topic: &str, records: &[NewRecord]) -> Result<()> {
        let most = records.iter().filter_map(|record| record.partition).max().unwrap_or(0);
        if self.sender.known(topic).is_none_or(|partitions| partitions <= most) {
            let (control, name) = (self.control.clone(), topic.to_owned());
            let partitions = blocking(move || control.partitions(&name)).await?;
            if partitions <= most {
                return Err(Error::stop(format!("topic {topic} has no partition {most}: it has {partitions}")));
            }
            self.sender.know(topic, Some(partitions));
        }
        let limit = self.settings.max_record_bytes();
        match records.iter().map(record_bytes).find(|bytes| bytes + RECORD_OVERHEAD_BYTES > limit) {
            Some(bytes) => Err(Error::poison(format!(
                "a record for topic {topic} has {bytes} bytes: more than the {limit} that are ever sent"
            ))),
            None => Ok(()),
        }
    }

    async fn not_sent(&self, client: &Client, topic: &str, code: Code) -> Error {
        match code {
            Code::MessageSizeTooLarge => {
                let limit = self.topic_setting(topic, "max.message.bytes").await;
                let limit = limit.unwrap_or_else(|| "unknown".to_owned());
                Error::poison(format!(
                    "a record is larger than topic {topic} takes: its `max.message.bytes` is {limit}, compressed"
                ))
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                self.sender.know(topic, None);
                client.context().0.missing(topic)
            }
            code => client.context().0.failure(&format!("writing to topic {topic}"), code),
        }
    }
}

fn record_bytes(record: &NewRecord) -> usize {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    length(&record.key) + length(&record.value) + headers
}

/// Hands all records to the client, in order, as fast as there is room.
async fn hand_over(
    client: &Client,
    topic: &str,
    records: &[NewRecord],
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

/// Waits until every record is reported; fails when one failed, or when nothing moves.
async fn arrive(client: &Client, shipment: &Shipment) -> std::result::Result<(), Code> {
    let mut deadline = Instant::now() + PATIENCE;
    let mut left = usize::MAX;
    loop {
        let _ = tokio::time::timeout(TICK, shipment.done.notified()).await;
        let state = shipment.state();
        match state.failure {
            // The real reason may be behind its consequences: wait for all reports, as long as they come.
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
