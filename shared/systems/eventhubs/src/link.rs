//! An open receiver of one partition.

use std::{sync::Arc, time::Duration};

use fe2o3_amqp::{
    Receiver,
    link::receiver::CreditMode,
    types::{
        definitions::SenderSettleMode,
        messaging::Source,
        primitives::{Symbol, Value},
    },
};
use futures::TryFutureExt as _;
use millstream_core::{Batch, BatchBuilder, Error, Limits, Result, TopicPartition};
use serde_amqp::{described::Described, descriptor::Descriptor};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    connection::{Connection, PATIENCE, Purpose},
    failure::Failure,
    frames::unwrapped,
    reading,
    record::Record,
};

/// How many events the service may send ahead of what was taken. An event has at most 256 KiB on the Basic tier and 1 MiB on the
/// others, so this is what bounds the memory of an open receiver.
pub(crate) const PREFETCH: u32 = 256;

/// The filter that says where a receiver begins, by its name and its code.
const FILTER: &str = "apache.org:selector-filter:string";
const FILTER_CODE: u64 = 0x0000_468C_0000_0004;

/// A receiver, positioned at a sequence number. Dropped, it is closed.
pub(crate) struct Link {
    partition: TopicPartition,
    /// The sequence number of the next event.
    pub next: i64,
    /// The next event, if it has come.
    waiting: Option<Record>,
    /// Encoded events, or why there are no more.
    events: mpsc::Receiver<Result<Vec<u8>, Failure>>,
    /// Has it failed after a part of a batch was read?
    has_failed: bool,
}

impl Link {
    /// Opens a receiver behind the event before `next`. The service refuses a beginning behind its last event, so the one that is
    /// named is the last one that was read, as Microsoft's clients do it, and not the one that is to come.
    pub async fn attach(connection: &Arc<Connection>, partition: &TopicPartition, next: i64) -> Result<Self, Failure> {
        let session = connection.session(&partition.topic, partition.partition, Purpose::Read).await?;
        let expression = match next {
            ..=0 => "amqp.annotation.x-opt-offset > '-1'".to_owned(),
            next => format!("amqp.annotation.x-opt-sequence-number > '{}'", next - 1),
        };
        let filter = Described { descriptor: Descriptor::Code(FILTER_CODE), value: Value::String(expression) };
        let address = connection.address(partition);
        let source = Source::builder().address(address).add_to_filter(Symbol::from(FILTER), filter).build();
        let mut session = session.lock().await;
        let attaching = Receiver::builder()
            .name(format!("millstream-{partition}-{next}-{}", connection.count()))
            .source(source)
            // Nothing is told to the service of what was received: a sink's fence says it.
            .sender_settle_mode(SenderSettleMode::Settled)
            .credit_mode(CreditMode::Auto(PREFETCH))
            .auto_accept(true)
            .attach(&mut session);
        let receiver = connection.answer(attaching.map_err(Failure::from)).await?;
        let (queue, events) = mpsc::channel(1);
        tokio::spawn(receive(receiver, queue, connection.clone()));
        Ok(Self { partition: partition.clone(), next, waiting: None, events, has_failed: false })
    }

    /// The next event, which stays where it is; `None` if it has not come within `wait`. May be dropped at any time.
    ///
    /// # Errors
    /// `Retry` when the link was lost, or the next event is not the one with the next number: what is missing may have been
    /// deleted by retention, which the watermarks tell. What the service says when it closes the link; another link may serve all
    /// the same, for a token may have ended. After an error the link is of no use.
    pub async fn peek(&mut self, wait: Duration) -> Result<Option<&Record>> {
        while self.waiting.is_none() {
            let Ok(received) = timeout(wait, self.events.recv()).await else { return Ok(None) };
            let doing = || reading(&self.partition, self.next);
            let received = received.unwrap_or_else(|| Err(Failure::lost("the receiver has failed before")));
            let event = received.map_err(|failure| failure.into_error(&doing()))?;
            let record = Record::of(&event).map_err(|error| error.context(doing()))?;
            if record.offset > self.next {
                return Err(Error::retry(format!("{}: the next event that came is {}", doing(), record.offset)));
            }
            // The service may begin earlier than it was asked to.
            if record.offset == self.next {
                self.waiting = Some(record);
            }
        }
        Ok(self.waiting.as_ref())
    }

    /// Takes the event that [`Self::peek`] has shown.
    pub fn take(&mut self) -> Option<Record> {
        let record = self.waiting.take()?;
        self.next = record.offset + 1;
        Some(record)
    }

    /// A batch of the events up to `end`, which are there, or up to the limits; or up to where the link has failed.
    pub async fn read(&mut self, end: i64, limits: Limits) -> Result<Batch> {
        let start = self.next;
        let mut builder = BatchBuilder::new(self.partition.clone());
        builder.stamp_by_log();
        while self.next < end && builder.len() < limits.max_records && builder.bytes() < limits.max_bytes {
            match self.peek(PATIENCE).await {
                Ok(Some(record)) if builder.is_empty() || builder.bytes() + record.bytes() <= limits.max_bytes => {}
                Ok(Some(_)) => break,
                Ok(None) if builder.is_empty() => {
                    let doing = reading(&self.partition, start);
                    return Err(Error::retry(format!("{doing}: the event is there, and did not come in time")));
                }
                Err(error) if builder.is_empty() => return Err(error),
                // What was read is good.
                Ok(None) | Err(_) => {
                    self.has_failed = true;
                    break;
                }
            }
            if let Some(record) = self.take() {
                record.push_to(&mut builder);
            }
        }
        Ok(builder.finish_read(start, self.next))
    }

    /// Can it be read further?
    pub fn is_usable(&self) -> bool {
        !self.has_failed
    }
}

/// Passes on what comes, until nobody wants it. In a task of its own: fe2o3-amqp may lose an event when its `recv` is dropped after it
/// has taken the event and before it has told the service so.
async fn receive(mut receiver: Receiver, queue: mpsc::Sender<Result<Vec<u8>, Failure>>, connection: Arc<Connection>) {
    loop {
        let received = tokio::select! {
            () = queue.closed() => break,
            received = receiver.recv() => received,
        };
        let event = received.map(|delivery| unwrapped(delivery.into_body())).map_err(Failure::from);
        let has_failed = event.is_err();
        if queue.send(event).await.is_err() || has_failed {
            break;
        }
    }
    // With the service's answer: events are still on their way, and one that came to a receiver that is gone would end the session.
    // It may be closed already.
    let _ = timeout(PATIENCE, receiver.close()).await;
    drop(connection);
}
