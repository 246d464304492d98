use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{Position, Result};
use millstream_host::{Made, Make, Stop};
use millstream_ingest::{Events, Pace};
use millstream_pipeline::{Generate, Making, Topic};
use tokio::sync::Mutex;

use super::Sending;

/// Makes records up.
pub(super) struct Generating {
    sending: Sending,
    /// What it goes on with at the next call: sequences and walks.
    events: Mutex<Events>,
    pace: Pace,
}

impl Generating {
    pub(super) fn new(
        sending: Sending,
        topic: &Topic,
        making: &Making,
        generate: &Generate,
        rate_per_s: Option<f64>,
    ) -> Result<Self> {
        // The clock is a good enough seed: two starts make different records.
        let events = Events::new(topic, making, sending.clock.now_us().unsigned_abs())?;
        let pace = rate_per_s.map_or_else(|| Pace::of(generate), Pace::PerSecond);
        Ok(Self { sending, events: Mutex::new(events), pace })
    }
}

#[async_trait]
impl Make for Generating {
    fn function(&self) -> &str {
        &self.sending.id
    }

    async fn make(&self, stop: &Stop) -> Result<Made> {
        let Sending { topic, producer, clock, count, .. } = &self.sending;
        let (producer, clock) = (Arc::clone(producer), Arc::clone(clock));
        let mut events = self.events.lock().await;
        let (stopping, report) = (|| stop.is_requested(), |positions: &[Position]| count.add(positions));
        let acknowledged =
            millstream_ingest::generate(&mut events, self.pace, topic, producer, clock, stopping, report).await?;
        let why = "the topic can't be reached, or the period is too short for the rate";
        Ok(Made { acknowledged, none_because: Some(why.to_owned()) })
    }
}
