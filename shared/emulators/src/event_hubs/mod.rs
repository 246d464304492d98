//! A namespace of Azure Event Hubs on a port of this machine, as clients of AMQP 1.0 see it.
//!
//! It keeps to what Microsoft documents and what Microsoft's clients expect, and refuses what the service refuses: a token with a
//! wrong signature or that has ended, an unknown event hub, partition or consumer group, a beginning behind the last event, a
//! sixth receiver of a partition, an event that is too large, a sender without the right to send. Tests append by
//! [`EventHubsDouble::append`], too.

mod filter;
mod namespace;
mod receivers;
mod requests;
mod senders;
mod server;
mod test_side;
mod token;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fe2o3_amqp::types::{
    messaging::{Batch, Body, Data},
    primitives::{Binary, SimpleValue, Value},
};
use tokio::sync::oneshot;

use namespace::Namespace;

/// The host that clients believe to talk to.
pub const HOST: &str = "double.servicebus.windows.net";

/// A policy that may read, one that may send too, and the key of both.
const READER: &str = "reader";
const WRITER: &str = "writer";
const KEY: &str = "a2V5IG9mIHRoZSBkb3VibGU=";

/// What the largest event may have: on the Basic tier, and on the others.
const BASIC_BYTES: usize = 256 << 10;
const STANDARD_BYTES: usize = 1 << 20;

/// The double; it ends when it is dropped.
pub struct EventHubsDouble {
    namespace: Arc<Namespace>,
    address: SocketAddr,
    /// Dropped, it ends the server.
    _server: oneshot::Sender<()>,
}

/// An event to be appended.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The partition key.
    pub key: Option<String>,
    /// Data, as a rule.
    pub body: Body<Value>,
    /// An encoded value that is sent for the body, unchecked.
    pub raw: Option<Vec<u8>>,
    /// Application properties.
    pub properties: Vec<(String, SimpleValue)>,
    /// When the service took it, in milliseconds since 1970; `None` for now.
    pub enqueued_ms: Option<i64>,
}

impl NewEvent {
    /// An event with one data section and nothing else.
    pub fn of(bytes: impl Into<Vec<u8>>) -> Self {
        let data = Batch::new(vec![Data(Binary::from(bytes.into()))]);
        Self { key: None, body: Body::Data(data), raw: None, properties: Vec::new(), enqueued_ms: None }
    }

    /// The same with a partition key.
    #[must_use]
    pub fn with_key(self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self }
    }
}

impl EventHubsDouble {
    /// A namespace of the Basic tier, without event hubs.
    pub fn start() -> Self {
        Self::serve(BASIC_BYTES)
    }

    /// A namespace of the Standard tier, whose events may be larger.
    pub fn start_standard() -> Self {
        Self::serve(STANDARD_BYTES)
    }

    fn serve(max_bytes: usize) -> Self {
        let namespace = Arc::new(Namespace::new(max_bytes));
        let (address, server) = server::serve(namespace.clone());
        Self { namespace, address, _server: server }
    }

    /// Where it listens, as `amqp://…`.
    pub fn endpoint(&self) -> String {
        format!("amqp://{}", self.address)
    }

    /// The connection string of a policy that may read all event hubs.
    pub fn connection_string(&self) -> String {
        format!("Endpoint=sb://{HOST}/;SharedAccessKeyName={READER};SharedAccessKey={KEY}")
    }

    /// The connection string of a policy that may read all event hubs, and send to them.
    pub fn connection_string_to_send(&self) -> String {
        format!("Endpoint=sb://{HOST}/;SharedAccessKeyName={WRITER};SharedAccessKey={KEY}")
    }

    /// Sends events without settling them from now on, whatever receivers ask for: new ones wait for each to be accepted.
    pub fn leave_unsettled(&self) {
        self.namespace.change(|state| state.is_unsettled = true);
    }

    /// Sends nothing more to receivers, though they stay open; or goes on.
    pub fn fall_silent(&self, is_silent: bool) {
        self.namespace.change(|state| state.is_silent = is_silent);
    }

    /// Answers no further begin of a session from now on, but for the first one of each connection.
    pub fn ignore_sessions(&self) {
        self.namespace.change(|state| state.ignores_sessions = true);
    }

    /// Closes all receivers for a reason, such as `amqp:link:stolen`.
    pub fn close_receivers(&self, condition: &str) {
        self.namespace.change(|state| state.closing = (state.closing.0 + 1, condition.to_owned()));
    }

    /// Closes all senders without a reason, as the service does with those that nobody uses.
    pub fn close_senders(&self) {
        self.namespace.change(|state| state.senders_closed += 1);
    }

    /// Creates an event hub with the consumer group `$Default`.
    pub fn create(&self, hub: &str, partitions: i32) {
        self.namespace.change(|state| state.create(hub, partitions));
    }

    /// Deletes an event hub; its receivers are closed.
    pub fn delete(&self, hub: &str) {
        self.namespace.change(|state| drop(state.hubs.remove(hub)));
    }

    /// Deletes an event hub when the next receiver is attached, and creates another one with one partition and these events, which the
    /// receiver reads.
    pub fn replace_at_next_receiver(&self, hub: &str, events: Vec<NewEvent>) {
        self.namespace.change(|state| state.replacing = Some((hub.to_owned(), events)));
    }

    /// Gives an event hub more partitions.
    pub fn raise(&self, hub: &str, partitions: i32) {
        self.namespace.change(|state| state.hub(hub).raise(partitions));
    }

    /// Appends an event and returns its sequence number. Panics when it is larger than the tier allows.
    pub fn append(&self, hub: &str, partition: i32, event: NewEvent) -> i64 {
        self.namespace.append(hub, partition, event).unwrap()
    }

    /// Deletes the events below `first`, as retention does.
    pub fn trim(&self, hub: &str, partition: i32, first: i64) {
        self.namespace.change(|state| state.hub(hub).partitions[partition as usize].trim(first));
    }

    /// Loses the events of a partition from `end` on, as no healthy service does.
    pub fn lose(&self, hub: &str, partition: i32, end: i64) {
        self.namespace.change(|state| state.hub(hub).partitions[partition as usize].lose(end));
    }

    /// Hides one event from receivers, as no healthy service does.
    pub fn hide(&self, hub: &str, partition: i32, number: i64) {
        self.namespace.change(|state| state.hub(hub).partitions[partition as usize].hidden.insert(number));
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.namespace.cut();
    }

    /// Cuts all connections each time that so many events were sent, for so many times.
    pub fn cut_after(&self, events: usize, times: usize) {
        self.namespace.change(|state| state.cuts = (events, times, 0));
    }

    /// Answers the next requests and receivers with `server-busy`, so many of them.
    pub fn throttle(&self, times: usize) {
        self.namespace.change(|state| state.busy = times);
    }

    /// Rejects the next events of senders with `server-busy`, so many of them. The senders stay open.
    pub fn reject(&self, times: usize) {
        self.namespace.change(|state| state.rejected = times);
    }

    /// Takes so many events of senders in each second from now on, and rejects the others with `server-busy`.
    pub fn limit(&self, per_second: usize) {
        self.namespace.change(|state| state.per_second = Some(per_second));
    }

    /// Takes no token from now on, or takes them again.
    pub fn refuse_tokens(&self, refuse: bool) {
        self.namespace.change(|state| state.refuses_tokens = refuse);
    }

    /// Answers each request later by this.
    pub fn delay(&self, delay: Duration) {
        self.namespace.change(|state| state.delay = delay);
    }

    /// How many tokens it has taken.
    pub fn tokens(&self) -> usize {
        self.namespace.look(|state| state.tokens_taken)
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        self.namespace.look(|state| state.connections_opened)
    }

    /// How many events were sent to receivers.
    pub fn sent(&self) -> usize {
        self.namespace.look(|state| state.events_sent)
    }

    /// How many senders were opened to event hubs.
    pub fn senders(&self) -> usize {
        self.namespace.look(|state| state.senders_opened)
    }

    /// How many receivers were opened.
    pub fn receivers(&self) -> usize {
        self.namespace.look(|state| state.receivers_opened)
    }
}

impl Drop for EventHubsDouble {
    fn drop(&mut self) {
        self.namespace.cut();
    }
}
