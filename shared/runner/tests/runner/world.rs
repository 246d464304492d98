//! One log, one table store and one dead-letter store, shared by any number of runners like processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millstream_core::{
    Batch, BatchBuilder, DeadLetters, Decode, Late, Limits, Log, NewRecord, OnGap, Producer, Sink, Start,
    TopicPartition, Transform,
};
use millstream_runner::{Parts, Runner, Timeliness};
use millstream_testkit::{Journal, MemoryDeadLetters, MemoryLog, MemorySink, MemoryStore, PlainDecode, PlainTransform};

use crate::yielding::Yielding;

pub const TOPIC: &str = "words";
pub const FUNCTION: &str = "test.words";
/// The sink, and only the sink, refuses a text that starts with this.
pub const UNSTORABLE: &str = "unstorable";

/// The default of how far an event may be ahead of its record's timestamp: an hour.
pub const AHEAD_MS: i64 = 3_600_000;

pub fn partition() -> TopicPartition {
    TopicPartition::new(TOPIC, 1, 0)
}

/// The settings that a pipeline file would have.
#[derive(Clone)]
pub struct Declared {
    pub decode: Arc<dyn Decode>,
    pub transform: Arc<dyn Transform>,
    pub table: PlainTransform,
    pub start: Start,
    pub on_gap: OnGap,
    pub late: Late,
    pub lateness_ms: i64,
    pub ahead_ms: Option<i64>,
    pub max_records: usize,
    /// Is it a store without transactions?
    pub by_position: bool,
}

impl Default for Declared {
    fn default() -> Self {
        Self {
            decode: Arc::new(PlainDecode),
            transform: Arc::new(PlainTransform::Append),
            table: PlainTransform::Append,
            start: Start::Earliest,
            on_gap: OnGap::Heal,
            late: Late::Merge,
            lateness_ms: 0,
            ahead_ms: Some(AHEAD_MS),
            max_records: 1_000,
            by_position: false,
        }
    }
}

pub struct World {
    pub log: MemoryLog,
    pub store: MemoryStore,
    pub letters: Arc<MemoryDeadLetters>,
    pub journal: Journal,
    pub declared: Declared,
}

/// A runner with its own connection to the store, which can fail separately.
pub struct Member {
    pub runner: Runner,
    pub sink: Arc<MemorySink>,
}

impl World {
    pub fn new(declared: Declared) -> Self {
        let journal = Journal::new();
        Self {
            log: MemoryLog::with_topic(TOPIC, 1),
            store: if declared.by_position { MemoryStore::without_transactions() } else { MemoryStore::new() },
            letters: Arc::new(MemoryDeadLetters::with_journal(&journal)),
            journal,
            declared,
        }
    }

    pub fn with<V: AsRef<[u8]>>(declared: Declared, values: impl IntoIterator<Item = V>) -> Self {
        let world = Self::new(declared);
        world.log.append(TOPIC, 0, values);
        world
    }

    /// A process with its own cache of the fences.
    pub async fn member(&self) -> Member {
        self.member_with(self.letters.clone(), 0).await
    }

    /// A process that can be dropped at every step; each step yields `yields` times.
    pub async fn slow_member(&self, yields: usize) -> Member {
        self.member_with(Arc::new(Yielding { inner: self.letters.clone(), yields }), yields).await
    }

    pub async fn member_with(&self, letters: Arc<dyn DeadLetters>, yields: usize) -> Member {
        let table = self.declared.table.table("words");
        let sink = Arc::new(self.store.sink(FUNCTION, table).with_journal(&self.journal));
        sink.prepare(true).await.unwrap();
        sink.poison_if(|row| row[0].starts_with(UNSTORABLE));
        let declared = self.declared.clone();
        let runner = Runner::new(Parts {
            function: FUNCTION.into(),
            decoders: BTreeMap::from([(TOPIC.to_owned(), declared.decode)]),
            hops: BTreeSet::new(),
            transform: declared.transform,
            sink: Arc::new(Yielding { inner: sink.clone(), yields }),
            dead_letters: letters,
            log: Arc::new(self.log.clone()),
            start: declared.start,
            on_gap: declared.on_gap,
            timeliness: Timeliness {
                ahead_ms: declared.ahead_ms,
                late: declared.late,
                lateness_ms: declared.lateness_ms,
            },
            stops_when_refused: true,
            limits: Limits { max_records: declared.max_records, max_bytes: 1 << 20, max_wait_ms: 0 },
        });
        Member { runner, sink }
    }

    /// Appends one record with a given timestamp.
    pub async fn append_at(&self, timestamp_ms: i64, value: &str) {
        let record = NewRecord {
            value: Some(value.as_bytes().to_vec()),
            timestamp_ms: Some(timestamp_ms),
            partition: Some(0),
            ..NewRecord::default()
        };
        self.log.send(TOPIC, vec![record]).await.unwrap();
    }

    /// What a consumer reads: the log guarantees that missing offsets don't exist.
    pub async fn read(&self, from: i64, to: i64) -> Batch {
        let limits = Limits { max_records: usize::MAX, max_bytes: usize::MAX, max_wait_ms: 0 };
        self.log.read(&partition(), from..to, limits).await.unwrap()
    }

    /// What a trigger delivers: these records, without any guarantee about the others.
    pub fn pushed(&self, offsets: &[i64]) -> Batch {
        let all = self.log.all(&partition());
        pushed_of(&all, |offset| offsets.contains(&offset)).expect("records that are there")
    }

    pub fn letter_offsets(&self) -> Vec<i64> {
        self.letters.all().iter().map(|letter| letter.position.offset).collect()
    }
}

impl Member {
    pub async fn texts(&self) -> Vec<String> {
        self.sink.texts().await.into_iter().map(|row| row[0].clone()).collect()
    }

    pub async fn next_offset(&self) -> i64 {
        self.sink.fence(&partition()).await.unwrap().unwrap().next_offset
    }
}

/// The records of `batch` for which `wanted` holds, as a trigger delivers them.
pub fn pushed_of(batch: &Batch, wanted: impl Fn(i64) -> bool) -> Option<Batch> {
    let mut builder = BatchBuilder::new(batch.partition().clone());
    for row in 0..batch.len() {
        let offset = batch.offsets().value(row);
        if wanted(offset) {
            let value = batch.values().iter().nth(row).flatten();
            builder.push(offset, batch.timestamps_ms().value(row), None, value, []);
        }
    }
    builder.finish_pushed()
}
