use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{Env, Position, Result};
use millstream_host::{Made, Make, Stop};
use millstream_ingest::{HttpFetch, Poller, StandIn};
use millstream_pipeline::{Pipeline, Poll, Topic};
use tokio::sync::Mutex;

use super::{Making, Sending};

/// Polls an API.
pub(super) struct Polling {
    sending: Sending,
    /// What it goes on with at the next call: when it polled last, and what it was answered.
    poller: Mutex<Poller>,
    /// What is polled instead of the API. It ends with this.
    _stand_in: Option<StandIn>,
}

impl Polling {
    pub(super) async fn new(
        sending: Sending,
        pipeline: &Pipeline,
        topic: &Topic,
        (poll, key): (&Poll, Option<&str>),
        env: &Env,
        making: &Making,
    ) -> Result<Self> {
        let clock = Arc::clone(&sending.clock);
        let file = poll.stand_in.as_ref().filter(|_| making.stand_in && making.url.is_none());
        let stand_in = match file {
            Some(file) => Some(StandIn::start(&pipeline.path(file), Arc::clone(&clock)).await?),
            None => None,
        };
        let url = stand_in.as_ref().map(StandIn::url).or_else(|| making.url.clone());
        // The stand-in needs no headers, and is given no secrets.
        let poll = if stand_in.is_some() { &Poll { headers: Vec::new(), ..poll.clone() } } else { poll };
        let fetch = HttpFetch::new(poll, url.as_deref(), env, Arc::clone(&clock))?;
        // The clock is a good enough seed: two processes don't come back at the same time.
        let poller = Poller::new(&sending.id, topic, poll, key, Arc::new(fetch), clock.now_us().unsigned_abs())?;
        Ok(Self { sending, poller: Mutex::new(poller), _stand_in: stand_in })
    }
}

#[async_trait]
impl Make for Polling {
    fn function(&self) -> &str {
        &self.sending.id
    }

    async fn make(&self, stop: &Stop) -> Result<Made> {
        let Sending { topic, producer, clock, count, .. } = &self.sending;
        let (producer, clock) = (Arc::clone(producer), Arc::clone(clock));
        let mut poller = self.poller.lock().await;
        let (stopping, report) = (|| stop.is_requested(), |positions: &[Position]| count.add(positions));
        let polled = millstream_ingest::poll(&mut poller, topic, producer, clock, stopping, report).await?;
        tracing::info!(
            function = self.sending.id,
            topic,
            polled.acknowledged,
            polled.answered,
            polled.failed,
            polled.refused,
            "polled"
        );
        // After failures it may be waiting for longer than this call: that is a failure, too.
        let is_down = polled.answered == 0 && poller.failures() > 0;
        let none_because = is_down.then(|| format!("the last {} polls failed", poller.failures()));
        Ok(Made { acknowledged: polled.acknowledged, none_because })
    }
}
