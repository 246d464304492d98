use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use millstream_assembly::Systems;
use millstream_core::{Clock, Result, TopicPartition, Watermarks};
use millstream_pipeline::{Pipeline, Store};

use super::{DeadLetterState, FunctionState, GeneratorState, Phase, State, TableState, TopicState, rate::Rate, view};
use crate::{
    logs::Logs,
    running::{Consuming, Generating, Running},
};

/// Counting rows and asking sinks for fences costs them something: every so many looks is enough.
const SLOW_EVERY: u64 = 4;
/// A table that does not answer by then is left out of this look: the view goes on.
const LOOK: Duration = Duration::from_secs(1);

/// Looks at systems and functions for the live view.
pub(crate) struct Watcher {
    pipeline: Arc<Pipeline>,
    systems: Arc<Systems>,
    clock: Arc<dyn Clock>,
    logs: Logs,
    generators: Vec<Generating>,
    functions: Vec<Consuming>,
    start_us: i64,
    looks: u64,
    rates: HashMap<(&'static str, String), Rate>,
    /// Fences of partitions that this process hasn't written yet: from earlier runs, or written by others.
    fences: BTreeMap<(String, TopicPartition), i64>,
    table_rows: BTreeMap<String, u64>,
    dead_letters: DeadLetterState,
    /// How many letters there were when they were last looked through.
    letters_read: Option<u64>,
}

impl Watcher {
    pub fn new(
        pipeline: Arc<Pipeline>,
        systems: Arc<Systems>,
        clock: Arc<dyn Clock>,
        logs: Logs,
        running: &Running,
    ) -> Self {
        Self {
            pipeline,
            systems,
            start_us: clock.now_us(),
            clock,
            logs,
            generators: running.generators.clone(),
            functions: running.functions.clone(),
            looks: 0,
            rates: HashMap::new(),
            fences: BTreeMap::new(),
            table_rows: BTreeMap::new(),
            dead_letters: DeadLetterState::default(),
            letters_read: None,
        }
    }

    /// How things stand now.
    ///
    /// # Errors
    /// Those of the log; what else can't be asked is left as it was.
    pub async fn look(&mut self) -> Result<State> {
        let watermarks = self.watermarks().await?;
        if self.looks.is_multiple_of(SLOW_EVERY) {
            self.look_closer(&watermarks).await;
        }
        self.looks += 1;
        let now_us = self.clock.now_us();
        Ok(State {
            pipeline: self.pipeline.name.clone(),
            elapsed_ms: (now_us - self.start_us) / 1_000,
            topics: self.topics(now_us, &watermarks),
            generators: self.generators(now_us),
            functions: self.functions(now_us, &watermarks),
            tables: self.tables().await,
            dead_letters: self.dead_letters.clone(),
            systems: self.systems.describe().into(),
            notices: self.logs.latest(view::NOTICES),
            phase: Phase::Running,
        })
    }

    async fn watermarks(&self) -> Result<BTreeMap<TopicPartition, Watermarks>> {
        let log = self.systems.source();
        let mut all = BTreeMap::new();
        for (name, topic) in &self.pipeline.topics {
            for partition in 0..log.partitions(name).await? {
                let partition = TopicPartition::new(name, topic.generation, partition);
                let watermarks = log.watermarks(&partition).await?;
                all.insert(partition, watermarks);
            }
        }
        Ok(all)
    }

    /// What costs more. Whatever fails is asked again the next time.
    async fn look_closer(&mut self, watermarks: &BTreeMap<TopicPartition, Watermarks>) {
        for consuming in &self.functions {
            let written = consuming.function.runner.stats().partitions();
            let unwritten =
                watermarks.keys().filter(|partition| reads(consuming, partition) && !written.contains_key(*partition));
            for partition in unwritten {
                if let Ok(Some(fence)) = consuming.function.runner.sink().fence(partition).await {
                    self.fences.insert((consuming.name.clone(), partition.clone()), fence.next_offset);
                }
            }
        }
        let mut kept = None;
        if let Some(embedded) = self.systems.embedded()
            && let Ok(counts) = embedded.counts().await
        {
            self.table_rows = counts.rows.into_iter().collect();
            let ours = counts.dead_letters.iter().filter(|(id, _)| self.functions.iter().any(|f| f.function.id == *id));
            kept = Some(ours.map(|(_, letters)| *letters).sum::<u64>());
        }
        let since_start = self.functions.iter().map(|consuming| consuming.function.runner.stats().dead_letters()).sum();
        self.dead_letters.total = kept.unwrap_or(0).max(since_start);
        if self.letters_read != Some(self.dead_letters.total) && self.dead_letters.total > 0 {
            self.read_letters().await;
        }
    }

    async fn read_letters(&mut self) {
        let letters = self.systems.dead_letters(&self.pipeline);
        let mut latest = None;
        for consuming in &self.functions {
            let Ok(letters) = letters.list(Some(&consuming.function.id), 1).await else { return };
            latest = letters.into_iter().chain(latest).max_by_key(|letter| letter.timestamp_ms);
        }
        self.letters_read = Some(self.dead_letters.total);
        self.dead_letters.latest = latest.map(|letter| format!("{}: {}", letter.position, letter.reason));
    }

    fn rate(&mut self, of: &'static str, name: &str, now_us: i64, count: i64) -> f64 {
        self.rates.entry((of, name.to_owned())).or_default().of(now_us, count)
    }

    fn topics(&mut self, now_us: i64, watermarks: &BTreeMap<TopicPartition, Watermarks>) -> Vec<TopicState> {
        let names: Vec<String> = self.pipeline.topics.keys().cloned().collect();
        let topic = |name: String| {
            let of_topic: Vec<_> = watermarks.iter().filter(|(partition, _)| partition.topic == name).collect();
            let end = of_topic.iter().map(|(_, held)| held.high).sum();
            TopicState {
                partitions: of_topic.len(),
                records_per_s: self.rate("topic", &name, now_us, end),
                records: of_topic.iter().map(|(_, held)| held.high - held.low).sum(),
                name,
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

    fn functions(&mut self, now_us: i64, watermarks: &BTreeMap<TopicPartition, Watermarks>) -> Vec<FunctionState> {
        let mut states = Vec::new();
        for consuming in self.functions.clone() {
            let stats = consuming.function.runner.stats();
            let written = stats.partitions();
            let (mut fences, mut log_end, mut lag) = (0, 0, 0);
            for (partition, held) in watermarks.iter().filter(|(partition, _)| reads(&consuming, partition)) {
                let known = self.fences.get(&(consuming.name.clone(), partition.clone())).copied();
                let fence = written.get(partition).map(|stats| stats.next_offset).or(known).unwrap_or(held.low);
                fences += fence;
                log_end += held.high;
                // The fence is younger than the watermark, and may be beyond it.
                lag += (held.high - fence).max(0);
            }
            states.push(FunctionState {
                records_per_s: self.rate("function", &consuming.name, now_us, stats.records() as i64),
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

    /// The newest rows of each table.
    async fn tables(&self) -> Vec<TableState> {
        let mut tables = Vec::new();
        for consuming in self.functions.iter().filter(|consuming| consuming.into.store == Store::Postgres) {
            let table = &consuming.function.table;
            let name = table.public_name().to_owned();
            let looking = self.systems.newest_rows(table, view::NEWEST_ROWS);
            let Ok(Ok((columns, newest))) = tokio::time::timeout(LOOK, looking).await else { continue };
            tables.push(TableState { rows: self.table_rows.get(&name).copied(), name, columns, newest });
        }
        tables
    }
}

fn reads(consuming: &Consuming, partition: &TopicPartition) -> bool {
    consuming.function.generations.contains_key(&partition.topic)
}
