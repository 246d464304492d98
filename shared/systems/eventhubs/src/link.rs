//! An open receiver of one partition.

use std::{sync::Arc, time::Duration};

use fe2o3_amqp::{
    Receiver,
    link::receiver::CreditMode,
    types::{
        messaging::{Body, Source},
        primitives::{Symbol, Value},
    },
};
use millstream_core::{Batch, BatchBuilder, Error, Limits, Result, TopicPartition};
use serde_amqp::{described::Described, descriptor::Descriptor};
use tokio::time::timeout;

use crate::{
    connection::{Connection, PATIENCE},
    failure::Failure,
    reading,
    record::Record,
};

/// How many events the service may send ahead of what was taken. An event has at most 256 KiB on the Basic tier and 1 MiB on the
/// others, so this is what bounds the memory of an open receiver.
const PREFETCH: u32 = 256;

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
    /// There until this is dropped.
    receiver: Option<Receiver>,
    /// Keeps the connection open.
    connection: Arc<Connection>,
}

impl Link {
    /// Opens a receiver behind the event before `next`. The service refuses a beginning behind its last event, so the one that is
    /// named is the last one that was read, as Microsoft's clients do it, and not the one that is to come.
    pub async fn attach(connection: &Arc<Connection>, partition: &TopicPartition, next: i64) -> Result<Self, Failure> {
        let session = connection.session(partition).await?;
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
            .credit_mode(CreditMode::Auto(PREFETCH))
            .auto_accept(true)
            .attach(&mut session);
        let receiver = timeout(PATIENCE, attaching).await.map_err(Failure::lost)??;
        Ok(Self {
            partition: partition.clone(),
            next,
            waiting: None,
            receiver: Some(receiver),
            connection: connection.clone(),
        })
    }

    /// The next event, which stays where it is; `None` if it has not come within `wait`. May be dropped at any time.
    ///
    /// # Errors
    /// `Retry` when the link was lost, or the next event is not the one with the next number: what is missing may have been
    /// deleted by retention, which the watermarks tell. What the service says when it closes the link; another link may serve all
    /// the same, for a token may have ended. After an error the link is of no use.
    pub async fn peek(&mut self, wait: Duration) -> Result<Option<&Record>> {
        while self.waiting.is_none() {
            let Some(receiver) = &mut self.receiver else {
                return Err(Error::retry("internal: a link that was dropped"));
            };
            let Ok(received) = timeout(wait, receiver.recv::<Body<Value>>()).await else { return Ok(None) };
            let doing = || reading(&self.partition, self.next);
            let message = received.map_err(|error| Failure::from(error).into_error(&doing()))?;
            let record = Record::of(message.into_message()).map_err(|error| error.context(doing()))?;
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

    /// A batch of the events up to `end`, which are there, or up to the limits.
    pub async fn read(&mut self, end: i64, limits: Limits) -> Result<Batch> {
        let start = self.next;
        let mut builder = BatchBuilder::new(self.partition.clone());
        builder.stamp_by_log();
        while self.next < end && builder.len() < limits.max_records && builder.bytes() < limits.max_bytes {
            match self.peek(PATIENCE).await? {
                Some(record) if builder.is_empty() || builder.bytes() + record.bytes() <= limits.max_bytes => {}
                Some(_) => break,
                None if builder.is_empty() => {
                    let doing = reading(&self.partition, start);
                    return Err(Error::retry(format!("{doing}: the event is there, and did not come in time")));
                }
                None => break,
            }
            if let Some(record) = self.take() {
                record.push_to(&mut builder);
            }
        }
        Ok(builder.finish_read(start, self.next))
    }
}

impl Drop for Link {
    /// Closes the receiver with the service's answer: events are still on their way, and one that came to a receiver that is gone
    /// would end the session.
    fn drop(&mut self) {
        let Some(receiver) = self.receiver.take() else { return };
        let connection = self.connection.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // It may be closed already.
                let _ = timeout(PATIENCE, receiver.close()).await;
                drop(connection);
            });
        }
    }
}
