use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use millstream_core::{Clock, Error, Position, Producer, Result};
use millstream_host::{Make, Stop};
use millstream_ingest::{Events, Pace};
use millstream_pipeline::{Function as Declared, Pipeline};
use tokio::sync::Mutex;

use crate::Systems;

/// What is called with the positions of records that were acknowledged.
pub type Acknowledged = Arc<dyn Fn(&[Position]) + Send + Sync>;

/// How a function makes records in this run, as far as the pipeline file doesn't say.
#[derive(Clone)]
pub struct Making {
    /// Gives records their time and their pace.
    pub clock: Arc<dyn Clock>,
    /// Records a second, in place of the pipeline file's pace.
    pub rate_per_s: Option<f64>,
    /// Called with the positions of each send, once they are durable.
    pub acknowledged: Option<Acknowledged>,
    /// How long each event of a schedule makes records.
    pub period: Duration,
}

impl Making {
    /// At the pace of the file.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, rate_per_s: None, acknowledged: None, period: Duration::from_secs(60) }
    }
}

/// A function that makes records, ready to be run by a host.
pub struct Maker {
    /// Its name, as `pipeline.function`.
    pub id: String,
    /// What it goes on with at the next call: sequences and walks.
    events: Mutex<Events>,
    pace: Pace,
    topic: String,
    producer: Arc<dyn Producer>,
    making: Making,
    sent: AtomicU64,
}

impl Maker {
    /// Makes the records of a function of the pipeline.
    ///
    /// # Errors
    /// `Stop` when the function makes no records, or when its settings or those of the log can't be right.
    pub(crate) fn new(systems: &Systems, pipeline: &Pipeline, name: &str, making: &Making) -> Result<Self> {
        let declared = &pipeline.functions[name];
        let topic = &pipeline.topics[&declared.into.name];
        // The clock is a good enough seed: two starts make different records.
        let events = Events::new(topic, declared, making.clock.now_us().unsigned_abs())?;
        let of_file = declared.generate.as_ref().map(Pace::of);
        let pace = making.rate_per_s.map(Pace::PerSecond).or(of_file);
        Ok(Self {
            id: Declared::id(&pipeline.name, name),
            events: Mutex::new(events),
            pace: pace.ok_or_else(|| Error::stop(format!("`{name}` makes no records")))?,
            topic: declared.into.name.clone(),
            producer: systems.producer(topic)?,
            making: making.clone(),
            sent: AtomicU64::new(0),
        })
    }

    /// Records that were acknowledged since it was made.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn making(&self) -> &Making {
        &self.making
    }
}

#[async_trait]
impl Make for Maker {
    fn function(&self) -> &str {
        &self.id
    }

    async fn make(&self, stop: &Stop) -> Result<u64> {
        let report = |positions: &[Position]| {
            self.sent.fetch_add(positions.len() as u64, Ordering::Relaxed);
            if let Some(acknowledged) = &self.making.acknowledged {
                acknowledged(positions);
            }
        };
        let (producer, clock) = (Arc::clone(&self.producer), Arc::clone(&self.making.clock));
        let mut events = self.events.lock().await;
        let stopping = || stop.is_requested();
        millstream_ingest::generate(&mut events, self.pace, &self.topic, producer, clock, stopping, report).await
    }
}
