//! An open sender to one partition.

use std::collections::VecDeque;

use fe2o3_amqp::{
    Sender,
    link::{SendError, delivery::DeliveryFut},
    types::{
        messaging::{Body, Message, Outcome},
        primitives::Value,
    },
};
use tokio::time::timeout;

use crate::{
    connection::{Connection, PATIENCE, Purpose},
    failure::Failure,
};

/// How many events may be on their way without the service's answer.
const IN_FLIGHT: usize = 64;

/// An event that was sent, whose outcome is to come.
type Sent = DeliveryFut<Result<Outcome, SendError>>;

/// A sender to a partition. It must be [closed](Self::close) and not be dropped, as long as its session is to go on.
pub(crate) struct Writer {
    sender: Sender,
}

impl Writer {
    pub async fn attach(connection: &Connection, topic: &str, partition: i32) -> Result<Self, Failure> {
        let session = connection.session(topic, partition, Purpose::Write).await?;
        let mut session = session.lock().await;
        let name = format!("millstream-to-{topic}-{partition}-{}", connection.count());
        let attaching = Sender::attach(&mut session, name, connection.address_to_write(topic, partition));
        Ok(Self { sender: timeout(PATIENCE, attaching).await.map_err(Failure::lost)?? })
    }

    /// The same, once more with a new token if the service refuses the one that it has: it may have ended by the service's clock.
    pub async fn attach_with_new_token(connection: &Connection, topic: &str, partition: i32) -> Result<Self, Failure> {
        let attached = Self::attach(connection, topic, partition).await;
        if attached.as_ref().is_err_and(Failure::is_unauthorized) {
            connection.forget(topic).await;
            return Self::attach(connection, topic, partition).await;
        }
        attached
    }

    /// The most bytes of an event, if the service says that.
    pub fn max_size(&self) -> Option<usize> {
        self.sender.max_message_size().and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes > 0)
    }

    /// Sends all events in their order, and returns when the service has accepted all. After an error, the writer is of no use.
    pub async fn send(&mut self, events: Vec<Message<Body<Value>>>) -> Result<(), Failure> {
        let mut sent = VecDeque::new();
        for event in events {
            if sent.len() >= IN_FLIGHT {
                self.settle(sent.pop_front()).await?;
            }
            let sending = self.sender.send_batchable(event);
            sent.push_back(timeout(PATIENCE, sending).await.map_err(Failure::lost)??);
        }
        while !sent.is_empty() {
            self.settle(sent.pop_front()).await?;
        }
        Ok(())
    }

    /// Closes the sender, with the service's answer: one that came to a sender that is gone would end the session, and what is
    /// attached to it next.
    pub async fn close(self) {
        // It may be closed already, or the connection may be lost.
        let _ = timeout(PATIENCE, self.sender.close()).await;
    }

    /// Waits until the service has accepted an event, or closes the sender.
    async fn settle(&mut self, sent: Option<Sent>) -> Result<(), Failure> {
        let Some(sent) = sent else { return Ok(()) };
        let outcome = tokio::select! {
            biased;
            outcome = timeout(PATIENCE, sent) => outcome.map_err(Failure::lost)??,
            detached = self.sender.on_detach() => return Err(detached.into()),
        };
        match outcome {
            Outcome::Accepted(_) => Ok(()),
            Outcome::Rejected(rejected) => Err(match &rejected.error {
                Some(error) => Failure::refused(error),
                None => Failure::not_accepted("rejected"),
            }),
            Outcome::Released(_) => Err(Failure::not_accepted("released")),
            Outcome::Modified(_) => Err(Failure::not_accepted("modified")),
        }
    }
}
