use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use millstream_core::{Clock, Env, Error, Position, Result};
use millstream_host::Work;
use millstream_ingest::KEYS_VARIABLE;
use millstream_pipeline::{Function as Declared, Origin, Pipeline};

use self::{generating::Generating, polling::Polling, receiving::Receiving};
use crate::Systems;

mod generating;
mod polling;
mod receiving;

/// Where a webhook listens if nothing is set: only this machine reaches it there.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// What is called with the positions of records that were acknowledged.
pub type Acknowledged = Arc<dyn Fn(&[Position]) + Send + Sync>;

/// How a function makes records in this run, as far as the pipeline file doesn't say.
#[derive(Clone)]
pub struct Making {
    /// Gives records their time and their pace.
    pub clock: Arc<dyn Clock>,
    /// Records a second, in place of the pipeline file's pace.
    pub rate_per_s: Option<f64>,
    /// The address that is polled, in place of the pipeline file's.
    pub url: Option<String>,
    /// Is the file's stand-in polled, where it names one and `url` is not given?
    pub stand_in: bool,
    /// Called with the positions of each send, once they are durable.
    pub acknowledged: Option<Acknowledged>,
    /// How long each event of a schedule makes records.
    pub period: Duration,
}

impl Making {
    /// As the file says.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let period = Duration::from_secs(60);
        Self { clock, rate_per_s: None, url: None, stand_in: false, acknowledged: None, period }
    }
}

/// A function that makes records, ready to be run by a host.
pub struct Maker {
    /// Its name, as `pipeline.function`.
    pub id: String,
    work: Work,
    count: Arc<Count>,
}

impl Maker {
    /// Makes the records of a function of the pipeline.
    ///
    /// # Errors
    /// `Stop` when the function makes no records, or when its settings or those of the log can't be right.
    pub(crate) async fn new(systems: &Systems, pipeline: &Pipeline, name: &str, making: &Making) -> Result<Self> {
        let declared = &pipeline.functions[name];
        let making_of = declared.making().ok_or_else(|| Error::stop(format!("`{name}` makes no records")))?;
        let topic = (declared.into.name.as_str(), &pipeline.topics[&declared.into.name]);
        let count = Arc::new(Count { sent: AtomicU64::new(0), acknowledged: making.acknowledged.clone() });
        let sending = Sending {
            id: Declared::id(&pipeline.name, name),
            topic: topic.0.to_owned(),
            producer: systems.producer(topic.1)?,
            clock: Arc::clone(&making.clock),
            count: Arc::clone(&count),
        };
        let (id, clock, period) = (sending.id.clone(), Arc::clone(&making.clock), making.period);
        let work = match &making_of.origin {
            Origin::Generate(generate) => {
                let maker = Generating::new(sending, topic.1, making_of, generate, making.rate_per_s)?;
                Work::Make { maker: Arc::new(maker), period, clock }
            }
            Origin::Poll(poll) => {
                let key = making_of.key.as_deref();
                let maker = Polling::new(sending, pipeline, topic.1, (poll, key), systems.env(), making).await?;
                Work::Make { maker: Arc::new(maker), period, clock }
            }
            Origin::Webhook(webhook) => {
                let listen = read_listen(systems.env())?;
                let key = making_of.key.as_deref();
                let receiver = Receiving::new(sending, name, topic, (webhook, key), systems.env())?;
                Work::Receive { receiver: Arc::new(receiver), listen, clock }
            }
        };
        Ok(Self { id, work, count })
    }

    /// Records that were acknowledged since it was made.
    pub fn sent(&self) -> u64 {
        self.count.sent.load(Ordering::Relaxed)
    }

    /// What a host runs.
    pub(crate) fn work(&self) -> Work {
        self.work.clone()
    }
}

/// What every way to make records needs to send them.
struct Sending {
    id: String,
    topic: String,
    producer: Arc<dyn millstream_core::Producer>,
    clock: Arc<dyn Clock>,
    count: Arc<Count>,
}

/// Counts the records that were acknowledged.
struct Count {
    sent: AtomicU64,
    acknowledged: Option<Acknowledged>,
}

impl Count {
    fn add(&self, positions: &[Position]) {
        self.sent.fetch_add(positions.len() as u64, Ordering::Relaxed);
        if let Some(acknowledged) = &self.acknowledged {
            acknowledged(positions);
        }
    }
}

/// Where a webhook listens (`MILLSTREAM_LISTEN`). An address that other machines can reach needs API keys, or `none` in their
/// place.
fn read_listen(env: &Env) -> Result<SocketAddr> {
    let listen = match env.find_text("MILLSTREAM_LISTEN")? {
        None => DEFAULT_LISTEN,
        Some(text) => text.parse().map_err(|_| {
            Error::stop("MILLSTREAM_LISTEN must be an address and a port, such as 0.0.0.0:8080; it is something else")
        })?,
    };
    if !listen.ip().is_loopback() {
        require_keys(env)?;
    }
    Ok(listen)
}

/// Is it said who may send records to a webhook?
pub(crate) fn require_keys(env: &Env) -> Result<()> {
    if env.is_set(KEYS_VARIABLE) {
        return Ok(());
    }
    Err(Error::stop(format!(
        "{KEYS_VARIABLE} is not set, and others could send records: set it to the API keys, or to `none` if something in front \
         of it checks who they are"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_needs_no_word_about_keys() {
        let read = |pairs: &[(&str, &str)]| {
            let listen = read_listen(&Env::of(pairs.iter().copied()));
            listen.map(|listen| listen.to_string()).map_err(|error| error.to_string())
        };
        let keys = (KEYS_VARIABLE, "none");
        assert_eq!(read(&[]).unwrap(), "127.0.0.1:8080");
        assert_eq!(read(&[("MILLSTREAM_LISTEN", "[::1]:0")]).unwrap(), "[::1]:0");
        assert!(read(&[("MILLSTREAM_LISTEN", "0.0.0.0:80")]).unwrap_err().contains(KEYS_VARIABLE));
        assert_eq!(read(&[("MILLSTREAM_LISTEN", "0.0.0.0:80"), keys]).unwrap(), "0.0.0.0:80");
        for wrong in ["8080", "localhost:80", "1.2.3.4"] {
            let said = read(&[("MILLSTREAM_LISTEN", wrong), keys]).unwrap_err();
            assert!(said.contains("MILLSTREAM_LISTEN must be"), "{said}");
        }
    }
}
