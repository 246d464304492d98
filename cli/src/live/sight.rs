use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use millstream_assembly::Systems;
use millstream_core::{Result, TextRows, TopicPartition, Watermarks};
use millstream_pipeline::Pipeline;
use tokio::sync::watch;

use super::{DeadLetterState, TableState, view};
use crate::{
    letters,
    running::{Consuming, Running},
};

/// The pause between two looks at the systems.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Counting rows and reading fences puts load on the systems, so it happens only at every fourth look.
const CLOSE_EVERY: u64 = 4;
/// If a table doesn't answer in this time, this look leaves it out, and the view goes on.
const LOOK: Duration = Duration::from_secs(1);

/// The last answers of the systems. Busy systems are slow to answer; the view doesn't wait for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// `None` until the log has answered for the first time.
    pub watermarks: Option<BTreeMap<TopicPartition, Watermarks>>,
    /// Fences of partitions that this process hasn't written yet: from earlier runs or from other processes.
    pub fences: HashMap<(String, TopicPartition), i64>,
    pub tables: Vec<TableState>,
    pub dead_letters: DeadLetterState,
}

/// Asks the systems.
pub(crate) struct Sight {
    pipeline: Arc<Pipeline>,
    systems: Arc<Systems>,
    functions: Vec<Consuming>,
    seen: Seen,
    table_rows: BTreeMap<String, u64>,
    /// How many letters there were at the last listing.
    letters_read: Option<u64>,
}

impl Sight {
    pub fn new(pipeline: Arc<Pipeline>, systems: Arc<Systems>, running: &Running) -> Self {
        Self {
            pipeline,
            systems,
            functions: running.functions.clone(),
            seen: Seen::default(),
            table_rows: BTreeMap::new(),
            letters_read: None,
        }
    }

    /// Asks the systems until the receiver is dropped. If a system can't answer, it is asked again; the functions
    /// report the problem.
    pub async fn look_on(mut self, told: watch::Sender<Seen>) {
        for looks in 0_u64.. {
            match self.watermarks().await {
                Ok(watermarks) => self.seen.watermarks = Some(watermarks),
                Err(error) => tracing::debug!(%error, "the live view can't read the log now"),
            }
            // The numbers of the log are sent before the slower questions are asked.
            told.send_replace(self.seen.clone());
            if looks.is_multiple_of(CLOSE_EVERY) {
                self.look_closer().await;
            }
            self.seen.tables = self.tables().await;
            if told.send(self.seen.clone()).is_err() {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
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

    /// Asks the slower questions. If one fails, it is asked again the next time.
    async fn look_closer(&mut self) {
        for consuming in &self.functions {
            let written = consuming.function.runner.stats().partitions();
            let unwritten = self.seen.watermarks.iter().flatten().map(|(partition, _)| partition);
            let unwritten =
                unwritten.filter(|partition| reads(consuming, partition) && !written.contains_key(*partition));
            for partition in unwritten {
                if let Ok(Some(fence)) = consuming.function.runner.sink().fence(partition).await {
                    self.seen.fences.insert((consuming.name.clone(), partition.clone()), fence.next_offset);
                }
            }
        }
        let (letters, mut kept) = (self.systems.dead_letters(&self.pipeline), 0);
        for consuming in &self.functions {
            kept += letters.count(&consuming.function.id).await.ok().flatten().unwrap_or(0);
            let table = &consuming.function.table;
            let Some(store) = self.systems.store(consuming.into.system) else { continue };
            if let Ok(Ok(Some(rows))) = tokio::time::timeout(LOOK, store.count_rows(table)).await {
                self.table_rows.insert(table.public_name().to_owned(), rows);
            }
        }
        let since_start = self.functions.iter().map(|consuming| consuming.function.runner.stats().dead_letters()).sum();
        self.seen.dead_letters.total = kept.max(since_start);
        if self.letters_read != Some(self.seen.dead_letters.total) && self.seen.dead_letters.total > 0 {
            self.read_letters().await;
        }
    }

    async fn read_letters(&mut self) {
        let store = self.systems.dead_letters(&self.pipeline);
        let is_ours = |id: &str| self.functions.iter().any(|consuming| consuming.function.id == id);
        let Ok(latest) = letters::newest(store.as_ref(), is_ours, 1).await else { return };
        let latest = latest.first().map(|letter| format!("{}: {}", letter.position, letter.reason));
        self.letters_read = Some(self.seen.dead_letters.total);
        self.seen.dead_letters.latest = latest;
    }

    /// The newest rows of each table.
    async fn tables(&self) -> Vec<TableState> {
        let mut tables = Vec::new();
        for consuming in &self.functions {
            let table = &consuming.function.table;
            let name = table.public_name().to_owned();
            let Some(store) = self.systems.store(consuming.into.system) else { continue };
            let looking = store.newest_rows(table, view::NEWEST_ROWS);
            let Ok(Ok(Some(TextRows { columns, rows: newest }))) = tokio::time::timeout(LOOK, looking).await else {
                continue;
            };
            tables.push(TableState { rows: self.table_rows.get(&name).copied(), name, columns, newest });
        }
        tables
    }
}

pub(super) fn reads(consuming: &Consuming, partition: &TopicPartition) -> bool {
    consuming.function.subscription.generation(&partition.topic).is_some()
}

#[cfg(test)]
mod tests {
    use millstream_assembly::Connections;
    use millstream_core::{DeadLetter, Env, ManualClock};

    use super::*;

    const PIPELINE: &str = "name: p\ntopics: { t: { partitions: 1, schema: { a: bigint } } }\nfunctions:\n  \
                            f: { uses: aggregate, from: t, sql: SELECT sum(a) AS a FROM t, into: postgres.f }\n";

    async fn sight(folder: &tempfile::TempDir, clock: Arc<ManualClock>) -> Sight {
        let pipeline = Arc::new(Pipeline::parse(PIPELINE, "p.yaml".as_ref()).unwrap());
        let mut connections = Connections::read(&Env::default()).unwrap();
        connections.data_dir = folder.path().to_owned();
        let systems = Arc::new(Systems::open(&pipeline, &connections, clock).unwrap());
        systems.create_topics(&pipeline).await.unwrap();
        let function = Arc::new(systems.function(&pipeline, "f").await.unwrap());
        let into = pipeline.functions["f"].into.clone();
        let mut running = Running::default();
        running.functions.push(Consuming { name: "f".into(), into, function });
        Sight::new(pipeline, systems, &running)
    }

    fn letter(function: &str, offset: i64, reason: &str) -> DeadLetter {
        DeadLetter {
            function: function.into(),
            position: TopicPartition::new("t", 1, 0).at(offset),
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: vec![],
            value_bytes: 0,
            reason: reason.into(),
        }
    }

    #[tokio::test]
    async fn the_newest_dead_letter_of_the_pipeline_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at_us(1_000_000));
        let mut sight = sight(&folder, clock.clone()).await;
        sight.look_closer().await;
        assert_eq!((sight.seen.dead_letters.total, &sight.seen.dead_letters.latest), (0, &None));

        let store = sight.systems.dead_letters(&sight.pipeline);
        for (function, offset, reason, total, latest) in [
            ("p.f", 7, "no JSON", 1, "t/1/0/7: no JSON"),
            // A letter of another pipeline is newer, and none of ours.
            ("other.f", 9, "late", 1, "t/1/0/7: no JSON"),
            // The newest is the one that was stored last, whatever its offset.
            ("p.f", 3, "ahead", 2, "t/1/0/3: ahead"),
        ] {
            clock.advance_us(1_000_000);
            store.put(&[letter(function, offset, reason)]).await.unwrap();
            sight.look_closer().await;
            let seen = &sight.seen.dead_letters;
            assert_eq!((seen.total, seen.latest.as_deref()), (total, Some(latest)));
        }
    }
}
