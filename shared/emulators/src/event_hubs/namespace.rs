use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::{Shutdown, TcpStream},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use fe2o3_amqp::types::{
    messaging::{Body, Message, MessageAnnotations, annotations::OwnedKey},
    primitives::{OrderedMap, Symbol, Timestamp, Value},
};
use millstream_core::{Clock as _, Error, Result, SystemClock};
use serde_amqp::{lazy::LazyValue, read::SliceReader};
use tokio::sync::watch;

use super::NewEvent;

/// All that the double holds. Every change wakes the receivers.
pub(super) struct Namespace {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    pub max_bytes: usize,
}

#[derive(Default)]
pub(super) struct State {
    pub hubs: BTreeMap<String, Hub>,
    pub delay: Duration,
    pub busy: usize,
    /// How many of the next events are rejected.
    pub rejected: usize,
    /// How many events are taken in a second; which second it is, since 1970, and how many were taken in it.
    pub per_second: Option<usize>,
    taken: (i64, usize),
    pub refuses_tokens: bool,
    /// Every so many events, so many times, and how many since the last time.
    pub cuts: (usize, usize, usize),
    pub tokens_taken: usize,
    pub connections_opened: usize,
    pub receivers_opened: usize,
    pub senders_opened: usize,
    pub senders_closed: usize,
    pub is_unsettled: bool,
    pub is_silent: bool,
    pub ignores_sessions: bool,
    /// How often all receivers were closed, and for what at last.
    pub closing: (usize, String),
    /// The event hub that is another one when the next receiver is attached, and the events of that.
    pub replacing: Option<(String, Vec<NewEvent>)>,
    pub events_sent: usize,
    /// How many receivers each address has.
    pub open: HashMap<String, usize>,
    sockets: Vec<TcpStream>,
    created: i64,
}

pub(super) struct Hub {
    pub created_ms: i64,
    pub groups: HashSet<String>,
    pub partitions: Vec<Partition>,
}

#[derive(Default)]
pub(super) struct Partition {
    pub first: i64,
    pub events: VecDeque<(NewEvent, i64)>,
    pub hidden: HashSet<i64>,
}

impl Namespace {
    pub fn new(max_bytes: usize) -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(()), max_bytes }
    }

    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        done
    }

    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// An event that is too large is `Poison`.
    pub fn append(&self, hub: &str, partition: i32, event: NewEvent) -> Result<i64> {
        let bytes = event.bytes();
        if bytes > self.max_bytes {
            return Err(Error::poison(format!("an event of {bytes} bytes; the tier takes {}", self.max_bytes)));
        }
        Ok(self.change(|state| {
            let enqueued_ms = event.enqueued_ms.unwrap_or_else(|| SystemClock.now_ms());
            let partition = &mut state.hub(hub).partitions[partition as usize];
            partition.events.push_back((event, enqueued_ms));
            partition.last()
        }))
    }

    pub fn connected(&self, socket: TcpStream) {
        self.change(|state| {
            state.connections_opened += 1;
            state.sockets.push(socket);
        });
    }

    pub fn cut(&self) {
        self.change(State::cut);
    }

    /// One more event was sent: is it time for a cut?
    pub fn sent(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.events_sent += 1;
        state.cuts.2 += 1;
        if state.cuts.1 > 0 && state.cuts.2 >= state.cuts.0 {
            state.cuts = (state.cuts.0, state.cuts.1 - 1, 0);
            state.cut();
        }
    }

    /// Must this call be answered with `server-busy`?
    pub fn is_busy(&self) -> bool {
        self.change(|state| {
            let busy = state.busy > 0;
            state.busy = state.busy.saturating_sub(1);
            busy
        })
    }

    /// Must this event be rejected with `server-busy`?
    pub fn is_rejected(&self) -> bool {
        self.change(|state| {
            let second = SystemClock.now_ms() / 1_000;
            if state.taken.0 != second {
                state.taken = (second, 0);
            }
            let rejected = state.rejected > 0 || state.per_second.is_some_and(|most| state.taken.1 >= most);
            state.rejected = state.rejected.saturating_sub(1);
            state.taken.1 += usize::from(!rejected);
            rejected
        })
    }
}

impl State {
    pub fn hub(&mut self, hub: &str) -> &mut Hub {
        self.hubs.get_mut(hub).unwrap_or_else(|| panic!("there is no event hub {hub}"))
    }

    pub fn create(&mut self, name: &str, partitions: i32) {
        // Two hubs that are created within the same millisecond differ all the same.
        self.created = SystemClock.now_ms().max(self.created + 1);
        let mut hub =
            Hub { created_ms: self.created, groups: HashSet::from(["$default".to_owned()]), partitions: Vec::new() };
        hub.raise(partitions);
        assert!(self.hubs.insert(name.to_owned(), hub).is_none(), "there is an event hub {name} already");
    }

    /// A receiver is being attached.
    pub fn attaching(&mut self, name: &str) {
        let Some((name, events)) = self.replacing.take_if(|(replaced, _)| replaced == name) else { return };
        self.hubs.remove(&name);
        self.create(&name, 1);
        let now_ms = self.created;
        self.hub(&name).partitions[0].events.extend(events.into_iter().map(|event| (event, now_ms)));
    }

    fn cut(&mut self) {
        for socket in self.sockets.drain(..) {
            // It may be closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Hub {
    pub fn raise(&mut self, partitions: i32) {
        let partitions = self.partitions.len().max(partitions as usize);
        self.partitions.resize_with(partitions, Partition::default);
    }
}

impl Partition {
    /// The number of the last event that ever was; -1 if there never was one.
    pub fn last(&self) -> i64 {
        self.first + self.events.len() as i64 - 1
    }

    pub fn trim(&mut self, first: i64) {
        while self.first < first && self.events.pop_front().is_some() {
            self.first += 1;
        }
    }

    pub fn lose(&mut self, end: i64) {
        self.events.truncate((end - self.first).max(0) as usize);
    }

    pub fn find(&self, number: i64) -> Option<&(NewEvent, i64)> {
        self.events.get(usize::try_from(number - self.first).ok()?)
    }

    /// The event as it is sent to receivers, with its encoded value if it has one for a body.
    pub fn message(&self, number: i64) -> Option<(Message<Body<Value>>, Option<LazyValue>)> {
        let (event, enqueued_ms) = self.find(number)?;
        let raw = event.raw.as_deref().map(|raw| LazyValue::from_reader(&mut SliceReader::new(raw)).unwrap());
        let mut annotations: OrderedMap<OwnedKey, Value> = OrderedMap::new();
        let mut annotate = |name: &str, value| drop(annotations.insert(OwnedKey::Symbol(Symbol::from(name)), value));
        annotate("x-opt-sequence-number", Value::Long(number));
        // An offset is no sequence number: it counts bytes.
        annotate("x-opt-offset", Value::String((number * 100).to_string()));
        annotate("x-opt-enqueued-time", Value::Timestamp(Timestamp::from_milliseconds(*enqueued_ms)));
        if let Some(key) = &event.key {
            annotate("x-opt-partition-key", Value::String(key.clone()));
        }
        let mut message =
            Message::builder().message_annotations(MessageAnnotations(annotations)).body(event.body.clone()).build();
        if !event.properties.is_empty() {
            message.application_properties =
                Some(fe2o3_amqp::types::messaging::ApplicationProperties(event.properties.iter().cloned().collect()));
        }
        Some((message, raw))
    }
}

impl NewEvent {
    fn bytes(&self) -> usize {
        let body = match &self.body {
            Body::Data(sections) => sections.iter().map(|section| section.0.len()).sum(),
            _ if self.raw.is_some() => self.raw.as_ref().map_or(0, Vec::len),
            Body::Value(value) => serde_amqp::to_vec(&value.0).unwrap().len(),
            _ => 0,
        };
        let properties: usize = self.properties.iter().map(|(name, value)| name.len() + size_of_val(value)).sum();
        body + properties + self.key.as_ref().map_or(0, String::len)
    }
}
