use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use millstream_assembly::Systems;
use millstream_core::{Clock, TopicPartition, Watermarks};
use millstream_pipeline::Pipeline;

use super::{
    FunctionState, GeneratorState, Phase, State, TopicState,
    rate::Rate,
    sight::{Seen, reads},
    view,
};
use crate::{
    logs::Logs,
    running::{Consuming, Generating, Running},
};

/// Builds the state of the live view from the last answers of the systems and the current counts of this process's
/// functions.
pub(crate) struct Watcher {
    pipeline: Arc<Pipeline>,
    systems: Arc<Systems>,
    clock: Arc<dyn Clock>,
    logs: Logs,
    generators: Vec<Generating>,
    functions: Vec<Consuming>,
    start_us: i64,
    rates: HashMap<(&'static str, String), Rate>,
}

impl Watcher {
    /// `start_us` is when the run began.
    pub fn new(
        pipeline: Arc<Pipeline>,
        systems: Arc<Systems>,
        clock: Arc<dyn Clock>,
        logs: Logs,
        start_us: i64,
    ) -> Self {
        Self {
            pipeline,
            systems,
            start_us,
            clock,
            logs,
            generators: Vec::new(),
            functions: Vec::new(),
            rates: HashMap::new(),
        }
    }

    /// Also watches these functions from now on.
    pub fn watch(&mut self, running: &Running) {
        self.generators.clone_from(&running.generators);
        self.functions.clone_from(&running.functions);
    }

    /// The current state.
    pub fn state(&mut self, seen: &Seen) -> State {
        let now_us = self.clock.now_us();
        let nothing = BTreeMap::new();
        let watermarks = seen.watermarks.as_ref().unwrap_or(&nothing);
        // Until the log has answered, there are no topics: a zero would look like a jump afterwards.
        let topics = if seen.watermarks.is_some() { self.topics(now_us, watermarks) } else { Vec::new() };
        let since_start = self.functions.iter().map(|consuming| consuming.function.runner.stats().dead_letters()).sum();
        let mut dead_letters = seen.dead_letters.clone();
        dead_letters.total = dead_letters.total.max(since_start);
        State {
            pipeline: self.pipeline.name.clone(),
            elapsed_ms: (now_us - self.start_us) / 1_000,
            topics,
            generators: self.generators(now_us),
            functions: self.functions(now_us, watermarks, seen),
            tables: seen.tables.clone(),
            dead_letters,
            systems: self.systems.describe(),
            notices: self.logs.latest(view::NOTICES),
            phase: if seen.watermarks.is_some() { Phase::Running } else { Phase::Starting },
        }
    }

    fn rate(&mut self, of: &'static str, name: &str, now_us: i64, count: i64) -> f64 {
        self.rates.entry((of, name.to_owned())).or_default().update(now_us, count)
    }

    fn topics(&mut self, now_us: i64, watermarks: &BTreeMap<TopicPartition, Watermarks>) -> Vec<TopicState> {
        let pipeline = Arc::clone(&self.pipeline);
        let mut names: Vec<(usize, &str)> = pipeline.steps().into_iter().map(|(name, step)| (step, name)).collect();
        names.sort_unstable();
        let topic = |(step, name): (usize, &str)| {
            let of_topic: Vec<_> = watermarks.iter().filter(|(partition, _)| partition.topic == name).collect();
            let end = of_topic.iter().map(|(_, held)| held.high).sum();
            TopicState {
                name: name.to_owned(),
                step,
                partitions: of_topic.len(),
                records_per_s: self.rate("topic", name, now_us, end),
                records: of_topic.iter().map(|(_, held)| held.high - held.low).sum(),
            }
        };
        names.into_iter().map(topic).collect()
    }

    fn generators(&mut self, now_us: i64) -> Vec<GeneratorState> {
        let all = self.generators.clone();
        let generator = |made: Generating| GeneratorState {
            records_per_s: self.rate("generator", &made.name, now_us, made.sent() as i64),
            into: made.into.to_string(),
            sent: made.sent(),
            name: made.name,
        };
        all.into_iter().map(generator).collect()
    }

    fn functions(
        &mut self,
        now_us: i64,
        watermarks: &BTreeMap<TopicPartition, Watermarks>,
        seen: &Seen,
    ) -> Vec<FunctionState> {
        let mut states = Vec::new();
        let pipeline = Arc::clone(&self.pipeline);
        let steps = pipeline.steps();
        for consuming in self.functions.clone() {
            let stats = consuming.function.runner.stats();
            let written = stats.partitions();
            let (mut fences, mut log_end, mut lag) = (0, 0, 0);
            for (partition, held) in watermarks.iter().filter(|(partition, _)| reads(&consuming, partition)) {
                let known = seen.fences.get(&(consuming.name.clone(), partition.clone())).copied();
                let fence = written.get(partition).map(|stats| stats.next_offset).or(known).unwrap_or(held.low);
                fences += fence;
                log_end += held.high;
                // The fence was read after the watermark, and may be beyond it.
                lag += (held.high - fence).max(0);
            }
            states.push(FunctionState {
                records_per_s: self.rate("function", &consuming.name, now_us, stats.records() as i64),
                from: consuming.topics().collect::<Vec<_>>().join(", "),
                step: consuming.topics().filter_map(|topic| steps.get(topic)).max().copied().unwrap_or(0),
                into: consuming.into.to_string(),
                records: stats.records(),
                rows: stats.rows(),
                fence: fences,
                log_end,
                lag,
                dead_letters: stats.dead_letters(),
                name: consuming.name,
            });
        }
        states
    }
}
