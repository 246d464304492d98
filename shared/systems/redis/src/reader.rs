//! Reads by entity: from what a function has written, else from what an earlier reader has kept, else from elsewhere.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use millstream_core::{Clock, Error, Result};
use tokio::sync::{OnceCell, Semaphore};

use crate::{
    connection::Connection,
    keys,
    scripts::{KEEP, READ},
};

/// A row as it is stored: the texts of its columns, by their names.
pub type Fields = BTreeMap<String, Vec<u8>>;

/// The field that says of an entity that there is none. No column is called so.
const MISSING: &str = "_missing";

/// How long Redis isn't asked after it has failed: its failures shall not slow every read down.
const REST_US: i64 = 1_000_000;

/// How a [`Reader`] keeps what it has loaded.
#[derive(Clone)]
pub struct ReaderSettings {
    /// How long a loaded row is kept.
    pub ttl: Duration,
    /// How long it is kept that there is none.
    pub missing_ttl: Duration,
    /// Which part of these times is left to chance, 0 to 1: what was loaded together doesn't end together.
    pub jitter: f64,
    /// How many rows are loaded at once, over all entities.
    pub max_loads: usize,
    /// How long a read waits for Redis before it loads the row.
    pub patience: Duration,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// A number from 0 to 1, another one each time.
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
}

impl ReaderSettings {
    /// A row for 5 minutes and none for 5 seconds, a fifth of it by chance; at most 32 loads; 200 ms for Redis.
    pub fn new(clock: Arc<dyn Clock>, chance: Arc<dyn Fn() -> f64 + Send + Sync>) -> Self {
        Self {
            ttl: Duration::from_mins(5),
            missing_ttl: Duration::from_secs(5),
            jitter: 0.2,
            max_loads: 32,
            patience: Duration::from_millis(200),
            clock,
            chance,
        }
    }
}

/// Reads the rows of a table by their entities, with Redis in front of a slower place (cache-aside).
///
/// What it keeps is in keys of its own, `<table>:aside:{<entity>}`, beside what the function writes: a row of the function is
/// never replaced, and counts as soon as there is one. Many askers for one entity cause one load in this process. While Redis is
/// away, rows are loaded.
pub struct Reader {
    connection: Arc<Connection>,
    table: String,
    settings: ReaderSettings,
    flights: Mutex<HashMap<Vec<u8>, Arc<Flight>>>,
    loads: Semaphore,
    /// Until then, Redis isn't asked.
    rests_until_us: AtomicI64,
}

/// One read for all who ask for its entity meanwhile. Its error is told to all of them.
type Flight = OnceCell<Result<Option<Arc<Fields>>, Arc<Error>>>;

impl Reader {
    pub(crate) fn new(connection: Arc<Connection>, table: &str, settings: ReaderSettings) -> Self {
        Self {
            connection,
            table: table.to_owned(),
            loads: Semaphore::new(settings.max_loads.max(1)),
            settings,
            flights: Mutex::default(),
            rests_until_us: AtomicI64::new(i64::MIN),
        }
    }

    /// The row of an entity; `None` when neither Redis nor `load` has one. `load` is called at most once, and not if another
    /// asker's brings the row.
    ///
    /// # Errors
    /// Those of `load`; of another asker's load, an error of the same kind with its message. Redis causes none.
    pub async fn get<L>(&self, entity: &[u8], load: impl FnOnce() -> L + Send) -> Result<Option<Arc<Fields>>>
    where
        L: Future<Output = Result<Option<Fields>>> + Send,
    {
        let flight = Arc::clone(self.flights().entry(entity.to_vec()).or_default());
        let landing = Landing { reader: self, entity, flight };
        let find = || async { self.find(entity, load).await.map_err(Arc::new) };
        let result = landing.flight.get_or_init(find).await.clone();
        result.map_err(|error| again(&error))
    }

    async fn find<L>(&self, entity: &[u8], load: impl FnOnce() -> L + Send) -> Result<Option<Arc<Fields>>>
    where
        L: Future<Output = Result<Option<Fields>>> + Send,
    {
        let kept = self.read(entity).await;
        if let Some(Some(kept)) = kept {
            return Ok((!kept.contains_key(MISSING)).then(|| Arc::new(kept)));
        }
        let permit = self.loads.acquire().await;
        let loaded = load().await?;
        drop(permit);
        if kept.is_some() {
            self.keep(entity, loaded.as_ref()).await;
        }
        Ok(loaded.map(Arc::new))
    }

    /// What Redis has: nothing at all if it doesn't answer, and `Some(None)` if it has no row.
    async fn read(&self, entity: &[u8]) -> Option<Option<Fields>> {
        let rests = self.settings.clock.now_us() < self.rests_until_us.load(Ordering::Relaxed);
        // The braces of such a key are empty, so that the two keys may be on two nodes of a cluster.
        let is_split = entity.first().is_none_or(|first| *first == b'}');
        if rests || is_split {
            return None;
        }
        let mut script = READ.key(keys::entity(&self.table, entity));
        script.key(keys::aside(&self.table, entity));
        let fields: HashMap<String, Vec<u8>> = self.patiently(self.connection.run("reading a row", &script)).await?;
        Some((!fields.is_empty()).then(|| fields.into_iter().collect()))
    }

    async fn keep(&self, entity: &[u8], row: Option<&Fields>) {
        let ttl = if row.is_some() { self.settings.ttl } else { self.settings.missing_ttl };
        let left = 1.0 - self.settings.jitter.clamp(0.0, 1.0) * (self.settings.chance)().clamp(0.0, 1.0);
        let ttl_ms = (ttl.as_millis() as f64 * left) as u64;
        let mut script = KEEP.key(keys::aside(&self.table, entity));
        script.arg(ttl_ms.max(1));
        match row.filter(|row| !row.is_empty()) {
            Some(row) => row.iter().for_each(|(name, text)| {
                script.arg(name).arg(text);
            }),
            None => {
                script.arg(MISSING).arg("");
            }
        }
        self.patiently(self.connection.run::<i64>("keeping a row", &script)).await;
    }

    /// The answer, if it comes in time; otherwise Redis isn't asked for a while.
    async fn patiently<T>(&self, answer: impl Future<Output = Result<T>>) -> Option<T> {
        let why = match tokio::time::timeout(self.settings.patience, answer).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.settings.patience),
        };
        let until = self.settings.clock.now_us().saturating_add(REST_US);
        self.rests_until_us.store(until, Ordering::Relaxed);
        tracing::warn!(table = self.table, "rows are loaded without the cache for a second: {why}");
        None
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a flight for those who come later, also when the one who asks goes away.
struct Landing<'a> {
    reader: &'a Reader,
    entity: &'a [u8],
    flight: Arc<Flight>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        // Under the lock, as all who hold a flight got it: so the last one sees that it is.
        let mut flights = self.reader.flights();
        let flight = std::mem::take(&mut self.flight);
        let is_this = flights.get(self.entity).is_some_and(|there| Arc::ptr_eq(there, &flight));
        let is_last = Arc::strong_count(&flight) == 2;
        // While others wait, one of them goes on with it.
        if is_this && (flight.initialized() || is_last) {
            flights.remove(self.entity);
        }
        drop(flight);
    }
}

/// An error that several get.
fn again(error: &Error) -> Error {
    let message = error.to_string();
    let after = error.retry_after();
    let error = match error {
        Error::Retry(_) | Error::Fenced { .. } => Error::retry(message),
        Error::TooLarge(_) => Error::too_large(message),
        Error::Poison(_) => Error::poison(message),
        Error::Stop(_) => Error::stop(message),
    };
    match after {
        Some(after) => error.not_before(after),
        None => error,
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("table", &self.table).finish_non_exhaustive()
    }
}
