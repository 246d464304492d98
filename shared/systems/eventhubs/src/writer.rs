//! An open sender to one partition.

use std::{collections::VecDeque, time::Duration};

use fe2o3_amqp::{
    Sender,
    link::{
        SendError,
        delivery::{DeliveryFut, Sendable},
    },
    types::{
        messaging::{Body, Message, Outcome},
        primitives::Value,
    },
};
use futures::TryFutureExt as _;
use tokio::time::{sleep, timeout};

use crate::{
    connection::{Connection, PATIENCE, Purpose},
    failure::Failure,
};

/// How many events may be on their way without the service's answer.
const IN_FLIGHT: usize = 64;

/// How many seconds are waited each time that the service is busy and has accepted nothing since the time before: what it takes, it counts by
/// the second. After the last one the caller waits.
const PAUSES_S: [u64; 5] = [1, 2, 4, 4, 4];

type Event = Sendable<Body<Value>>;

/// An event that was sent, whose outcome is to come.
type Sent = DeliveryFut<Result<Outcome, SendError>>;

/// Why events were not sent.
enum Unsent {
    /// The service did not accept an event; the sender is open.
    Refused(Failure),
    /// The sender has failed.
    Failed(Failure),
}

impl From<Failure> for Unsent {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A sender to a partition. It must be [closed](Self::close) and not be dropped, as long as its session is to go on.
pub(crate) struct Writer {
    sender: Sender,
}

impl Writer {
    async fn attach(connection: &Connection, topic: &str, partition: i32) -> Result<Self, Failure> {
        let session = connection.session(topic, partition, Purpose::Write).await?;
        let mut session = session.lock().await;
        let name = format!("millstream-to-{topic}-{partition}-{}", connection.count());
        let attaching = Sender::attach(&mut session, name, connection.address_to_write(topic, partition));
        Ok(Self { sender: connection.answer(attaching.map_err(Failure::from)).await? })
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

    /// Sends the events in their order until the service has accepted all. Those that it has accepted are taken out.
    ///
    /// # Errors
    /// After those of [`Unsent::Refused`] it can go on, after the others it is of no use.
    async fn send(&mut self, events: &mut VecDeque<Event>) -> Result<(), Unsent> {
        // The first of the events, which are on their way.
        let mut sent = VecDeque::new();
        loop {
            while sent.len() < IN_FLIGHT
                && let Some(event) = events.get(sent.len())
            {
                let sending = self.sender.send_batchable_ref(event);
                sent.push_back(timeout(PATIENCE, sending).await.map_err(Failure::lost)?.map_err(Failure::from)?);
            }
            let Some(first) = sent.pop_front() else { return Ok(()) };
            if let Err(refused) = accepted(self.settle(first).await?) {
                // The others are sent again, too, for their order is to stay: so their outcome doesn't matter, but is awaited.
                while let Some(other) = sent.pop_front() {
                    self.settle(other).await?;
                }
                return Err(Unsent::Refused(refused));
            }
            events.pop_front();
        }
    }

    /// Closes the sender, with the service's answer: one that came to a sender that is gone would end the session, and what is
    /// attached to it next.
    async fn close(self) {
        // It may be closed already, or the connection may be lost.
        let _ = timeout(PATIENCE, self.sender.close()).await;
    }

    /// Waits until the service has accepted or refused an event, or closes the sender.
    async fn settle(&mut self, sent: Sent) -> Result<Outcome, Failure> {
        tokio::select! {
            biased;
            outcome = timeout(PATIENCE, sent) => Ok(outcome.map_err(Failure::lost)??),
            detached = self.sender.on_detach() => Err(detached.into()),
        }
    }
}

/// What the service says of an event.
fn accepted(outcome: Outcome) -> Result<(), Failure> {
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

/// Sends events to a partition in their order, and returns when the service has accepted all. While it is busy, only what it has
/// not accepted is sent again, for whoever begins again sends copies of all that was accepted, which keep it busy.
///
/// # Errors
/// "Server busy" when it has accepted nothing for a while.
pub(crate) async fn write(
    connection: &Connection,
    topic: &str,
    partition: i32,
    events: Vec<Message<Body<Value>>>,
) -> Result<(), Failure> {
    let mut events: VecDeque<Event> = events.into_iter().map(Event::from).collect();
    let place = connection.writer(topic, partition);
    let mut place = place.lock().await;
    let (mut may_reopen, mut pauses) = (place.is_some(), PAUSES_S.iter());
    loop {
        let before = events.len();
        let failure = match send_by(&mut place, connection, topic, partition, &mut events).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if events.len() < before {
            (may_reopen, pauses) = (true, PAUSES_S.iter());
        }
        if failure.is_busy() {
            let Some(pause) = pauses.next() else { return Err(failure) };
            sleep(Duration::from_secs(*pause)).await;
        } else if may_reopen && place.is_none() {
            // The service closes a sender that was not used for a while, or whose token has ended: once more with a new one.
            connection.forget(topic).await;
            may_reopen = false;
        } else {
            return Err(failure);
        }
    }
}

/// Sends by the sender that is open, or by a new one. It stays open unless it has failed.
async fn send_by(
    place: &mut Option<Writer>,
    connection: &Connection,
    topic: &str,
    partition: i32,
    events: &mut VecDeque<Event>,
) -> Result<(), Failure> {
    let mut writer = match place.take() {
        Some(writer) => writer,
        None => Writer::attach_with_new_token(connection, topic, partition).await?,
    };
    match writer.send(events).await {
        Ok(()) => {
            *place = Some(writer);
            Ok(())
        }
        Err(Unsent::Refused(refused)) if !refused.is_unauthorized() => {
            *place = Some(writer);
            Err(refused)
        }
        Err(Unsent::Refused(failure) | Unsent::Failed(failure)) => {
            writer.close().await;
            Err(failure)
        }
    }
}
