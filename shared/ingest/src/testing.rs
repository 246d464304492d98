//! What the tests of this crate share.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use millstream_core::{Clock, Error, NewRecord, Position, Producer, Result, TopicPartition};
use millstream_pipeline::{Function, Pipeline, Topic};
use tokio::time::Instant;

/// The one topic and the one function of a pipeline. `schema` and `fields` are YAML mappings on one line, `rest`
/// further lines of `generate:`.
pub(crate) fn described(schema: &str, rest: &str, fields: &str, key: &str) -> (Topic, Function) {
    let text = format!(
        "name: test\ntopics:\n  t:\n    partitions: 2\n    schema: {schema}\n    event_time: at\n\
         functions:\n  make:\n    uses: ingest\n    generate:\n      {rest}\n      fields: {fields}\n    key: {key}\n    into: topic.t\n"
    );
    let pipeline = Pipeline::parse(&text, "test/pipeline.yaml".as_ref()).unwrap_or_else(|errors| panic!("{errors:?}"));
    (pipeline.topics["t"].clone(), pipeline.functions["make"].clone())
}

/// Shows tokio's time, which stands still under `start_paused` until everything sleeps.
pub(crate) struct TokioClock {
    began: Instant,
}

impl TokioClock {
    pub(crate) const START_US: i64 = 1_700_000_000_000_000;

    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now() })
    }

    pub(crate) fn elapsed_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

impl Clock for TokioClock {
    fn now_us(&self) -> i64 {
        Self::START_US + self.began.elapsed().as_micros() as i64
    }
}

/// A producer that notes what it is sent and when, and fails when a test says so.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) clock: Option<Arc<TokioClock>>,
    /// Milliseconds since the clock began, and the records.
    pub(crate) sends: Mutex<Vec<(u64, Vec<NewRecord>)>>,
    /// This many sends fail with `Retry` first.
    pub(crate) failing: AtomicUsize,
    /// How long each send takes.
    pub(crate) takes_ms: u64,
}

impl Notes {
    pub(crate) fn new(clock: &Arc<TokioClock>) -> Self {
        Self { clock: Some(clock.clone()), ..Self::default() }
    }

    pub(crate) fn times_ms(&self) -> Vec<u64> {
        self.sends.lock().unwrap().iter().map(|(ms, _)| *ms).collect()
    }

    pub(crate) fn records(&self) -> Vec<NewRecord> {
        self.sends.lock().unwrap().iter().flat_map(|(_, records)| records.clone()).collect()
    }
}

#[async_trait]
impl Producer for Notes {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        tokio::time::sleep(std::time::Duration::from_millis(self.takes_ms)).await;
        let at_ms = self.clock.as_ref().map_or(0, |clock| clock.elapsed_ms());
        let positions = (0..records.len() as i64).map(|at| TopicPartition::new(topic, 0, 0).at(at)).collect();
        self.sends.lock().unwrap().push((at_ms, records));
        let left = self.failing.load(Ordering::Relaxed);
        if left > 0 {
            self.failing.store(left - 1, Ordering::Relaxed);
            return Err(Error::retry("the log can't be reached (injected)"));
        }
        Ok(positions)
    }
}
