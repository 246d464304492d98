//! Many random schedules of writers over one log, each repeatable by its seed: crashes before, after and between the
//! store's operations, lost answers, zombies with old state, other batch ends, redeliveries, dates that go back and
//! forth, and a compaction that makes writers disagree on what a range holds. After each, every record that was never
//! compacted is in exactly one file, in order, and no file lies outside the chain.
//!
//! Every operation on the store waits at a gate, and one writer at a time is let through: so two writers also meet in
//! the middle of a write.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod around;

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{AsArray, Int64Array, RecordBatch},
    datatypes::{DataType, Int64Type},
};
use async_trait::async_trait;
use futures::TryStreamExt;
use millstream_core::{Column, Error, Fence, Role, Sink, Table, TopicPartition};
use millstream_lake::{LakeSink, read_parquet};
use object_store::{
    GetOptions, GetResult, ObjectMeta, ObjectStore, PutMode, PutOptions, PutPayload, PutResult, Result as StoreResult,
    memory::InMemory, path::Path,
};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinHandle,
};

use around::{Around, Happen};

const SCHEDULES: u64 = 400;
const RECORDS: i64 = 40;
const DAY_MS: i64 = 86_400_000;

/// Small, fast and the same everywhere (Marsaglia's xorshift64*).
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// What the scheduler lets an operation do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Go,
    FailBefore,
    /// It is done, but the answer gets lost.
    FailAfter,
    /// It is done, and the process dies before it hears of it.
    DieAfter,
}

/// A store at whose gate every operation waits.
#[derive(Debug)]
struct Gated {
    store: Arc<InMemory>,
    swaps: bool,
    writer: usize,
    waiting: mpsc::UnboundedSender<usize>,
    verdicts: Mutex<mpsc::UnboundedReceiver<Verdict>>,
}

impl Gated {
    async fn pass<T>(&self, operation: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        self.waiting.send(self.writer).unwrap();
        let verdict = self.verdicts.lock().await.recv().await;
        let lost = || object_store::Error::Generic { store: "simulated", source: "connection lost".into() };
        match verdict {
            Some(Verdict::Go) => operation.await,
            Some(Verdict::FailAfter) => operation.await.and_then(|_| Err(lost())),
            Some(Verdict::FailBefore) => Err(lost()),
            Some(Verdict::DieAfter) => {
                let _ = operation.await;
                self.waiting.send(self.writer).unwrap();
                std::future::pending().await
            }
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Happen for Gated {
    fn inside(&self) -> &InMemory {
        &self.store
    }

    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        if matches!(options.mode, PutMode::Update(_)) && !self.swaps {
            let (operation, implementer) = ("update".into(), "a gate".into());
            return Err(object_store::Error::NotImplemented { operation, implementer });
        }
        self.pass(self.store.put_opts(path, payload, options)).await
    }

    async fn get(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.pass(self.store.get_opts(path, options)).await
    }
}

fn table() -> Table {
    let offset = Column { name: "offset".into(), data_type: DataType::Int64, nullable: false, role: Role::Value };
    Table { name: "events".into(), columns: vec![offset], combine: None, view: None }
}

fn partition() -> TopicPartition {
    TopicPartition::new("in", 1, 0)
}

fn sink(store: Arc<dyn ObjectStore>) -> LakeSink {
    LakeSink::new(store, "", "test.archive", table())
}

/// The log: each offset's day, and which records compaction takes away from those who read late.
struct Log {
    days: Vec<i64>,
    compacted: BTreeSet<i64>,
}

impl Log {
    fn random(random: &mut Random) -> Self {
        // The day changes one time in `calm`, to one of three: back and forth.
        let calm = 1 + random.below(12);
        let mut day = 0;
        let days = (0..RECORDS).map(|_| {
            if random.one_in(calm) {
                day = random.below(3) as i64;
            }
            day
        });
        let days = days.collect();
        Self { days, compacted: (0..RECORDS).filter(|_| random.one_in(5)).collect() }
    }

    /// The write of `from.next_offset..next_offset`, by one who reads before the compaction or after it.
    fn write(&self, from: &Fence, next_offset: i64, early: bool) -> (Fence, RecordBatch) {
        let offsets = (from.next_offset..next_offset).filter(|at| early || !self.compacted.contains(at));
        let offsets: Vec<i64> = offsets.collect();
        let last_timestamp_ms =
            offsets.last().map(|last| self.days[*last as usize] * DAY_MS).or(from.last_timestamp_ms);
        let rows = RecordBatch::try_new(table().schema(), vec![Arc::new(Int64Array::from(offsets))]).unwrap();
        (Fence { next_offset, last_timestamp_ms, ..from.clone() }, rows)
    }
}

/// One process: reads the fence or trusts the one that it holds, and writes batches that end anywhere.
async fn work(sink: LakeSink, log: Arc<Log>, mut random: Random) {
    let mut held: Option<Fence> = None;
    loop {
        let fence = match held.take() {
            Some(fence) => fence,
            None => match sink.fence(&partition()).await {
                Ok(Some(fence)) => fence,
                Ok(None) => match sink.create_fence(&partition(), Fence::starting_at(0)).await {
                    Ok(fence) => fence,
                    Err(error) if error.is_retry() => continue,
                    Err(error) => panic!("{error}"),
                },
                Err(error) if error.is_retry() => continue,
                Err(error) => panic!("{error}"),
            },
        };
        if fence.next_offset == RECORDS {
            return;
        }
        let next_offset = (fence.next_offset + 1 + random.below(9) as i64).min(RECORDS);
        let (to, rows) = log.write(&fence, next_offset, random.one_in(2));
        held = match sink.write(&partition(), &fence, &to, &[rows]).await {
            Ok(()) => Some(to),
            // A redelivery, as if nothing had been heard: the same fence again with another end.
            Err(error) if error.is_retry() && random.one_in(3) => {
                let (to, rows) = log.write(&fence, fence.next_offset + 1, random.one_in(2));
                sink.write(&partition(), &fence, &to, &[rows]).await.is_ok().then_some(to)
            }
            Err(error) if error.is_retry() => None,
            Err(error) => panic!("{error}"),
        };
    }
}

/// The writers' processes and the gates they wait at.
struct World {
    store: Arc<InMemory>,
    swaps: bool,
    log: Arc<Log>,
    random: Random,
    waiting: (mpsc::UnboundedSender<usize>, mpsc::UnboundedReceiver<usize>),
    processes: Vec<(JoinHandle<()>, mpsc::UnboundedSender<Verdict>)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let log = Arc::new(Log::random(&mut random));
        let swaps = random.one_in(2);
        let waiting = mpsc::unbounded_channel();
        Self { store: Arc::new(InMemory::new()), swaps, log, random, waiting, processes: Vec::new() }
    }

    fn spawn(&mut self, writer: usize) -> (JoinHandle<()>, mpsc::UnboundedSender<Verdict>) {
        let (verdict, verdicts) = mpsc::unbounded_channel();
        let (store, waiting) = (self.store.clone(), self.waiting.0.clone());
        let gated = Gated { store, swaps: self.swaps, writer, waiting, verdicts: Mutex::new(verdicts) };
        let random = Random::new(self.random.below(1 << 30));
        (tokio::spawn(work(sink(Arc::new(Around(gated))), self.log.clone(), random)), verdict)
    }

    /// Waits until the writer stands at its gate (true) or has ended.
    async fn settle(&mut self, writer: usize) -> bool {
        tokio::select! {
            biased;
            at_gate = self.waiting.1.recv() => { assert_eq!(at_gate, Some(writer)); true }
            ended = &mut self.processes[writer].0 => { ended.unwrap(); false }
        }
    }

    async fn run(&mut self) {
        let writers = 2 + self.random.below(2) as usize;
        for writer in 0..writers {
            let process = self.spawn(writer);
            self.processes.push(process);
            assert!(self.settle(writer).await);
        }
        let mut alive: Vec<usize> = (0..writers).collect();
        // A writer that goes on for a while, so that the others grow old; then another.
        let mut writer = 0;
        for _ in 0..5_000 {
            if alive.is_empty() {
                return;
            }
            if self.random.one_in(4) || !alive.contains(&writer) {
                writer = alive[self.random.below(alive.len() as u64) as usize];
            }
            if !self.step(writer).await {
                alive.retain(|other| *other != writer);
            }
        }
        panic!("the writers never came to the end of the log");
    }

    /// Lets one operation of `writer` through; false when the writer has come to the end of the log.
    async fn step(&mut self, writer: usize) -> bool {
        let verdict = match self.random.below(40) {
            0 => Verdict::FailBefore,
            1 | 2 => Verdict::FailAfter,
            3 | 4 => Verdict::DieAfter,
            _ => Verdict::Go,
        };
        self.processes[writer].1.send(verdict).unwrap();
        let waits = self.settle(writer).await;
        if verdict != Verdict::DieAfter || !waits {
            return waits;
        }
        self.processes[writer].0.abort();
        let _ = (&mut self.processes[writer].0).await;
        self.processes[writer] = self.spawn(writer);
        self.settle(writer).await
    }
}

/// What an outside reader sees: the rows of each file, in the order of their starts.
async fn visible_files(store: &InMemory) -> Vec<(i64, Vec<i64>)> {
    let objects: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
    let mut files = Vec::new();
    for path in objects.into_iter().map(|object| object.location).filter(|path| path.as_ref().contains("/log_date=")) {
        let rows = read_parquet(store, &path).await.unwrap();
        let offsets = rows.iter().flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec());
        let start = path.as_ref().trim_end_matches(".parquet").rsplit_once('-').unwrap().1.parse().unwrap();
        files.push((start, offsets.collect()));
    }
    files.sort();
    files
}

async fn schedule(seed: u64) {
    let mut world = World::new(seed);
    world.run().await;
    let last = sink(world.store.clone());
    let fence = last.fence(&partition()).await.unwrap().unwrap();
    assert_eq!(fence.next_offset, RECORDS, "seed {seed}");
    let files = visible_files(&world.store).await;
    let rows: Vec<i64> = files.iter().flat_map(|(_, rows)| rows.clone()).collect();
    assert!(rows.is_sorted_by(|a, b| a < b), "seed {seed}: in order, nothing twice: {files:?}");
    let kept: Vec<i64> = rows.iter().copied().filter(|at| !world.log.compacted.contains(at)).collect();
    let expected: Vec<i64> = (0..RECORDS).filter(|at| !world.log.compacted.contains(at)).collect();
    assert_eq!(kept, expected, "seed {seed}: nothing lost: {files:?}");
    for (start, rows) in &files {
        assert!(rows.first().is_none_or(|first| first >= start), "seed {seed}: a file below its start: {files:?}");
    }
    let audit = last.snapshot().await.unwrap();
    let audited: usize = audit.rows.iter().map(RecordBatch::num_rows).sum();
    assert_eq!((audited, audit.fences), (rows.len(), vec![(partition(), fence)]), "seed {seed}: the audit sees it all");
}

#[tokio::test]
async fn every_record_is_in_exactly_one_file_after_any_schedule() {
    for seed in 0..SCHEDULES {
        schedule(seed).await;
    }
}

/// The simulation shows nothing unless its schedules do go wrong on the way.
#[tokio::test]
async fn a_lost_answer_is_a_retry_and_the_fence_tells_the_rest() {
    let store = Arc::new(InMemory::new());
    let (waiting, mut waits) = mpsc::unbounded_channel();
    let (verdict, verdicts) = mpsc::unbounded_channel();
    let gated = Gated { store: store.clone(), swaps: true, writer: 0, waiting, verdicts: Mutex::new(verdicts) };
    let before = sink(store);
    before.prepare(true).await.unwrap();
    let start = before.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    let log = Log { days: vec![0; 10], compacted: BTreeSet::new() };
    let (to, rows) = log.write(&start, 5, true);
    let under_test = sink(Arc::new(Around(gated)));
    // Read the fence, look up the table's layout (its size, then its end) and the first name, put the turn; the answer to the
    // file is lost.
    for _ in 0..5 {
        verdict.send(Verdict::Go).unwrap();
    }
    verdict.send(Verdict::FailAfter).unwrap();
    let written = under_test.write(&partition(), &start, &to, &[rows]).await;
    assert!(matches!(written, Err(Error::Retry(_))), "{written:?}");
    assert_eq!(std::iter::from_fn(|| waits.try_recv().ok()).count(), 6);
    assert_eq!(before.fence(&partition()).await.unwrap(), Some(to));
}
