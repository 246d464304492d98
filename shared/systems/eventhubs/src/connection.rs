//! One connection to a namespace, with the tokens that it was given.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
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
    requests::Requests,
    token::{self, TOKEN_TYPE},
};

/// How long a connection may take to be opened, and a request to be answered.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The frame size that Microsoft's client asks for.
const MAX_FRAME: u32 = 65_536;

/// The service closes a connection that is silent for minutes; both ends send empty frames before that.
const IDLE_MS: u32 = 60_000;

/// What can be asked of `$management`.
const MANAGEMENT: &str = "$management";

/// An open connection.
pub(crate) struct Connection {
    settings: Arc<EventHubsSettings>,
    handle: Mutex<ConnectionHandle<()>>,
    control: Mutex<Control>,
    /// When the token of each event hub must be renewed, in milliseconds since 1970.
    tokens: Mutex<HashMap<String, i64>>,
    /// By event hub and partition.
    sessions: Mutex<HashMap<(String, i32), SharedSession>>,
    counted: AtomicU64,
    is_lost: AtomicBool,
}

/// Links are attached to it one after the other.
pub(crate) type SharedSession = Arc<Mutex<SessionHandle<()>>>;

/// The links to the service's own nodes.
struct Control {
    session: SessionHandle<()>,
    cbs: Requests,
    /// Attached when it is first used: it needs a token.
    management: Option<Requests>,
}

impl Connection {
    /// Connects, and keeps the tokens of the connection fresh for as long as it is used.
    pub async fn open(settings: Arc<EventHubsSettings>) -> Result<Arc<Self>, Failure> {
        let endpoint = &settings.endpoint;
        let opening = async {
            let mut handle = Amqp::builder()
                .container_id("millstream")
                .hostname(settings.connection.namespace.as_str())
                .sasl_profile(SaslProfile::Anonymous)
                // TLS from the first byte on, as on port 5671.
                .alt_tls_establishment(true)
                .max_frame_size(MAX_FRAME)
                .idle_time_out(IDLE_MS)
                .scheme(endpoint.scheme())
                .domain(endpoint.host())
                .open_with_stream(endpoint.connect().await.map_err(Failure::lost)?)
                .await?;
            let mut session = Session::begin(&mut handle).await?;
            let cbs = Requests::attach(&mut session, "$cbs").await?;
            Ok::<_, Failure>((handle, Control { session, cbs, management: None }))
        };
        let (handle, control) = timeout(PATIENCE, opening).await.map_err(Failure::lost)??;
        let connection = Arc::new(Self {
            settings,
            handle: Mutex::new(handle),
            control: Mutex::new(control),
            tokens: Mutex::default(),
            sessions: Mutex::default(),
            counted: AtomicU64::new(0),
            is_lost: AtomicBool::new(false),
        });
        tokio::spawn(renew(Arc::downgrade(&connection)));
        Ok(connection)
    }

    /// Is there no use in this connection any more?
    pub async fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed) || self.handle.lock().await.is_closed()
    }

    /// From now on nothing is asked of this connection.
    pub fn give_up(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
    }

    /// The session for the receivers of a partition, so that what fails there fails alone. The service has a token for the event
    /// hub now. A session stays as long as the connection, as in Microsoft's client: its channel is never used again for another
    /// one, where a late frame would be taken for its own.
    pub async fn session(&self, partition: &TopicPartition) -> Result<SharedSession, Failure> {
        self.authorize(&partition.topic).await?;
        let mut sessions = self.sessions.lock().await;
        let key = (partition.topic.clone(), partition.partition);
        if let Some(session) = sessions.get(&key)
            && !session.lock().await.is_ended()
        {
            return Ok(session.clone());
        }
        let mut handle = self.handle.lock().await;
        let begun = timeout(PATIENCE, Session::begin(&mut handle)).await.map_err(Failure::lost)??;
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

    /// Forgets the token for `hub`: the service has refused it, whatever its end.
    pub async fn forget(&self, hub: &str) {
        self.tokens.lock().await.remove(hub);
    }

    /// Asks what `$management` tells of an entity: its attributes by name.
    pub async fn describe(&self, hub: &str, kind: &str, partition: Option<i32>) -> Result<Value, Failure> {
        self.authorize(hub).await?;
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
        let asking = async {
            let mut control = self.control.lock().await;
            let Control { session, management, .. } = &mut *control;
            if management.is_none() {
                *management = Some(Requests::attach(session, MANAGEMENT).await?);
            }
            match management {
                Some(management) => management.call(asked, Value::Null).await,
                None => Err(Failure::lost("internal: no link to $management")),
            }
        };
        timeout(PATIENCE, asking).await.map_err(Failure::lost)?
    }

    /// Gives the service a token for `hub` unless it has one.
    async fn authorize(&self, hub: &str) -> Result<(), Failure> {
        let mut tokens = self.tokens.lock().await;
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
        let putting = async { self.control.lock().await.cbs.call(asked, Value::String(token)).await };
        timeout(PATIENCE, putting).await.map_err(Failure::lost)??;
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

/// Renews tokens until the connection is dropped or lost: the service closes the links of one that has ended.
async fn renew(connection: Weak<Connection>) {
    loop {
        let Some(open) = connection.upgrade() else { return };
        let every = (open.settings.token_lifetime / 12).min(Duration::from_secs(30));
        for hub in open.due().await {
            if let Err(failure) = open.authorize(&hub).await {
                // Its links end with the token, and whoever opens them again meets the failure.
                tracing::warn!(hub, error = %failure.into_error("renewing a token"), "the token is not renewed");
            }
        }
        if open.is_lost().await {
            return;
        }
        drop(open);
        sleep(every).await;
    }
}
