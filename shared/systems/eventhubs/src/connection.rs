//! One connection to a namespace, with the tokens that it was given.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fe2o3_amqp::{
    Connection as Amqp, Session,
    connection::ConnectionHandle,
    sasl_profile::SaslProfile,
    session::SessionHandle,
    types::primitives::{SimpleValue, Timestamp, Value},
};
use millstream_core::{Clock, SystemClock, TopicPartition};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use crate::{
    EventHubsSettings,
    failure::Failure,
    frames::{MAX_FRAME, MAX_WRAPPED},
    link::PREFETCH,
    requests::Requests,
    token::{self, TOKEN_TYPE},
    writer::Writer,
};

/// How long a connection may take to be opened, a request to be answered, and an event to come or to be accepted.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether a connection is still open.
const LOOK: Duration = Duration::from_millis(100);

/// How many frames the service may send ahead in a session: those of all events that a receiver prefetches, each of 1 MiB.
const WINDOW: u32 = PREFETCH * ((1 << 20) / MAX_FRAME + 1);

/// The service closes a connection that is silent for minutes; both ends send empty frames before that.
const IDLE_MS: u32 = 60_000;

/// What can be asked of `$management`.
const MANAGEMENT: &str = "$management";

/// What a token is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    ToWork,
    ToRenew,
}

/// An open connection.
pub(crate) struct Connection {
    settings: Arc<EventHubsSettings>,
    handle: Mutex<ConnectionHandle<()>>,
    /// That of the links to the service's own nodes. Each node has a lock, so that its requests wait for none of the other's.
    control: Mutex<SessionHandle<()>>,
    cbs: Mutex<Requests>,
    /// Attached when it is first used: it needs a token.
    management: Mutex<Option<Requests>>,
    /// When the token of each event hub must be renewed, in milliseconds since 1970.
    tokens: Mutex<HashMap<String, i64>>,
    /// By event hub and partition, for reading and for writing.
    sessions: Mutex<HashMap<(String, i32, Purpose), SharedSession>>,
    writers: std::sync::Mutex<HashMap<(String, i32), SharedWriter>>,
    counted: AtomicU64,
    is_given_up: AtomicBool,
}

/// Links are attached to it one after the other.
pub(crate) type SharedSession = Arc<Mutex<SessionHandle<()>>>;

/// What a session is for. What fails in one fails in no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    Read,
    Write,
}

/// The sender of a partition, once it is attached. Those who send to the partition do it one after the other.
pub(crate) type SharedWriter = Arc<Mutex<Option<Writer>>>;

impl Connection {
    /// Connects, and keeps the tokens of the connection fresh for as long as it is used.
    pub async fn open(settings: Arc<EventHubsSettings>) -> Result<Arc<Self>, Failure> {
        let endpoint = &settings.endpoint;
        let opening = async {
            let mut handle = Amqp::builder()
                .container_id("millstream")
                .hostname(settings.connection.namespace.as_str())
                .sasl_profile(SaslProfile::Anonymous)
                .max_frame_size(MAX_WRAPPED)
                .idle_time_out(IDLE_MS)
                // Its stream is encrypted already, if it is to be.
                .scheme("amqp")
                .open_with_stream(endpoint.connect().await.map_err(Failure::lost)?)
                .await?;
            let mut session = Session::begin(&mut handle).await?;
            let cbs = Requests::attach(&mut session, "$cbs").await?;
            Ok::<_, Failure>((handle, session, cbs))
        };
        let (handle, control, cbs) = timeout(settings.patience, opening).await.map_err(Failure::lost)??;
        let connection = Arc::new(Self {
            settings,
            handle: Mutex::new(handle),
            control: Mutex::new(control),
            cbs: Mutex::new(cbs),
            management: Mutex::default(),
            tokens: Mutex::default(),
            sessions: Mutex::default(),
            writers: std::sync::Mutex::default(),
            counted: AtomicU64::new(0),
            is_given_up: AtomicBool::new(false),
        });
        tokio::spawn(renew(Arc::downgrade(&connection)));
        Ok(connection)
    }

    /// Is there no use in this connection any more?
    pub fn is_lost(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed) || self.is_closed()
    }

    fn is_closed(&self) -> bool {
        // Who has it locked finds out.
        self.handle.try_lock().is_ok_and(|handle| handle.is_closed())
    }

    /// From now on nothing is asked of this connection.
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    /// The session for the links of a partition, so that what fails there fails alone. The service has a token for the event
    /// hub now. A session stays as long as the connection, as in Microsoft's client: its channel is never used again for another
    /// one, where a late frame would be taken for its own.
    pub async fn session(&self, topic: &str, partition: i32, purpose: Purpose) -> Result<SharedSession, Failure> {
        self.authorize(topic, Asked::ToWork).await?;
        let mut sessions = self.sessions.lock().await;
        self.check_use()?;
        let key = (topic.to_owned(), partition, purpose);
        // Who attaches to it finds out whether it goes on: waiting for that here would hold up all partitions.
        let goes_on = |session: &&SharedSession| session.try_lock().map_or(true, |session| !session.is_ended());
        if let Some(session) = sessions.get(&key).filter(goes_on) {
            return Ok(session.clone());
        }
        let mut handle = self.handle.lock().await;
        let beginning = Session::builder().incoming_window(WINDOW).begin(&mut handle);
        let begun = timeout(self.settings.patience, beginning).await;
        let begun = begun.map_err(|late| {
            // Before the next one has its turn, which need not wait, too.
            self.give_up();
            Failure::lost(late)
        })??;
        let session = SharedSession::new(Mutex::new(begun));
        sessions.insert(key, session.clone());
        Ok(session)
    }

    /// A number that this connection has not given before.
    pub fn count(&self) -> u64 {
        self.counted.fetch_add(1, Ordering::Relaxed)
    }

    /// Where a receiver of a partition is attached.
    pub fn address(&self, partition: &TopicPartition) -> String {
        let EventHubsSettings { connection, consumer_group, .. } = &*self.settings;
        let TopicPartition { topic, partition, .. } = partition;
        format!("amqps://{}/{topic}/ConsumerGroups/{consumer_group}/Partitions/{partition}", connection.namespace)
    }

    /// Where a sender to a partition is attached.
    pub fn address_to_write(&self, topic: &str, partition: i32) -> String {
        format!("amqps://{}/{topic}/Partitions/{partition}", self.settings.connection.namespace)
    }

    /// The place for the sender of a partition.
    pub fn writer(&self, topic: &str, partition: i32) -> SharedWriter {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers.entry((topic.to_owned(), partition)).or_default().clone()
    }

    /// Forgets the token for `hub`: the service has refused it, whatever its end.
    pub async fn forget(&self, hub: &str) {
        self.tokens.lock().await.remove(hub);
    }

    /// Asks what `$management` tells of an entity: its attributes by name.
    pub async fn describe(&self, hub: &str, kind: &str, partition: Option<i32>) -> Result<Value, Failure> {
        self.authorize(hub, Asked::ToWork).await?;
        let token = self.sign(hub)?.0;
        let text = |text: &str| SimpleValue::String(text.to_owned());
        let mut asked = vec![
            ("operation", text("READ")),
            ("name", text(hub)),
            ("type", text(kind)),
            // Microsoft's clients send it here too.
            ("security_token", text(&token)),
        ];
        asked.extend(partition.map(|partition| ("partition", text(&partition.to_string()))));
        // Others may ask before it: their time is not counted, or a long queue would condemn the connection.
        let mut management = self.management.lock().await;
        self.check_use()?;
        let asking = async {
            match &mut *management {
                Some(management) => management.call(asked, Value::Null).await,
                none => {
                    let attached = Requests::attach(&mut *self.control.lock().await, MANAGEMENT).await?;
                    none.insert(attached).call(asked, Value::Null).await
                }
            }
        };
        self.answer(asking).await
    }

    /// What comes of `work`, which waits for the service: at most for the patience, and no longer than the connection is open. Not
    /// everything that waits learns that it was closed.
    pub async fn answer<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let closed = async {
            while !self.is_closed() {
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            biased;
            done = timeout(self.settings.patience, work) => done.map_err(Failure::lost)?,
            () = closed => Err(Failure::lost("the connection was closed")),
        }
    }

    /// # Errors
    /// `Lost` once the connection is given up: who has waited for it in a queue need not wait for the service, too.
    fn check_use(&self) -> Result<(), Failure> {
        if self.is_lost() { Err(Failure::lost("the connection has failed")) } else { Ok(()) }
    }

    /// Gives the service a token for `hub` unless it has one.
    async fn authorize(&self, hub: &str, asked: Asked) -> Result<(), Failure> {
        let mut tokens = self.tokens.lock().await;
        if asked == Asked::ToWork {
            self.check_use()?;
        }
        if tokens.get(hub).is_some_and(|renewed_ms| SystemClock.now_ms() < *renewed_ms) {
            return Ok(());
        }
        let (token, ends_s) = self.sign(hub)?;
        let audience = token::audience(&self.settings.connection.namespace, hub);
        let asked = [
            ("operation", SimpleValue::String("put-token".to_owned())),
            ("type", SimpleValue::String(TOKEN_TYPE.to_owned())),
            ("name", SimpleValue::String(audience)),
            ("expiration", SimpleValue::Timestamp(Timestamp::from_milliseconds(ends_s * 1_000))),
        ];
        let mut cbs = self.cbs.lock().await;
        self.answer(cbs.call(asked, Value::String(token))).await?;
        let lifetime_ms = self.settings.token_lifetime.as_millis() as i64;
        tokens.insert(hub.to_owned(), ends_s * 1_000 - lifetime_ms / 3);
        Ok(())
    }

    /// A token for `hub`, and its end in seconds since 1970.
    fn sign(&self, hub: &str) -> Result<(String, i64), Failure> {
        let connection = &self.settings.connection;
        let ends_s = SystemClock.now_ms() / 1_000 + self.settings.token_lifetime.as_secs() as i64;
        let audience = token::audience(&connection.namespace, hub);
        let token = token::sign(&audience, &connection.key_name, &connection.key, ends_s).map_err(Failure::lost)?;
        Ok((token.expose().to_owned(), ends_s))
    }

    /// The event hubs whose token must be renewed now.
    async fn due(&self) -> Vec<String> {
        let now_ms = SystemClock.now_ms();
        let tokens = self.tokens.lock().await;
        tokens.iter().filter(|(_, renewed_ms)| **renewed_ms <= now_ms).map(|(hub, _)| hub.clone()).collect()
    }
}

/// Renews tokens until the connection is dropped or closed: the service closes the links of one that has ended. A connection that
/// is given up may have links that go on.
async fn renew(connection: Weak<Connection>) {
    loop {
        let Some(open) = connection.upgrade() else { return };
        let every = (open.settings.token_lifetime / 12).min(Duration::from_secs(30));
        for hub in open.due().await {
            if let Err(failure) = open.authorize(&hub, Asked::ToRenew).await {
                // Its links end with the token, and whoever opens them again meets the failure.
                tracing::warn!(hub, error = %failure.into_error("renewing a token"), "the token is not renewed");
            }
        }
        if open.is_closed() {
            return;
        }
        drop(open);
        sleep(every).await;
    }
}
