//! Eight writers race for one partition's files in a store that answers late, is overloaded (503), refuses for now (409, as
//! "exists" with nothing there and as an error), loses answers, and repeats puts so that writers meet their own. Each run is
//! repeatable by its seed: the clock is simulated. DuckDB then counts what is in the files.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod around;

use std::{
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::DataType,
};
use async_trait::async_trait;
use futures::{TryStreamExt as _, future::join_all};
use millstream_core::{Column, Error, Fence, Role, Sink, Table, TopicPartition};
use millstream_lake::LakeSink;
use object_store::{
    Error as StoreError, GetOptions, GetResult, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions,
    PutPayload, PutResult, Result as StoreResult, memory::InMemory, path::Path,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use around::{Around, Happen};

const SEEDS: u64 = 24;
const WRITERS: u64 = 8;
const RECORDS: i64 = 150;
const DAY_MS: i64 = 86_400_000;

/// What happened, so that a run in which nothing did is noticed.
#[derive(Debug, Default)]
struct Seen {
    refused: AtomicUsize,
    conflicts: AtomicUsize,
    lost: AtomicUsize,
    own: AtomicUsize,
    fenced: AtomicUsize,
}

#[derive(Debug)]
struct Unreliable {
    store: Arc<InMemory>,
    random: Mutex<StdRng>,
    seen: Arc<Seen>,
}

fn failure(what: &'static str) -> StoreError {
    StoreError::Generic { store: "unreliable", source: what.into() }
}

impl Unreliable {
    fn below(&self, limit: u64) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..limit)
    }

    async fn late(&self) {
        tokio::time::sleep(Duration::from_millis(self.below(40))).await;
    }

    fn count(&self, what: fn(&Seen) -> &AtomicUsize) {
        what(&self.seen).fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Happen for Unreliable {
    fn inside(&self) -> &InMemory {
        &self.store
    }

    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.late().await;
        let fate = self.below(16);
        match fate {
            0 => {
                self.count(|seen| &seen.refused);
                return Err(failure("503 Slow Down"));
            }
            1 => {
                self.count(|seen| &seen.conflicts);
                return Err(failure("409 ConditionalRequestConflict"));
            }
            2 if options.mode != PutMode::Overwrite => {
                self.count(|seen| &seen.conflicts);
                return Err(StoreError::AlreadyExists { path: path.to_string(), source: "409".into() });
            }
            _ => {}
        }
        let done = self.store.put_opts(path, payload.clone(), options.clone()).await;
        self.late().await;
        match fate {
            3 => {
                self.count(|seen| &seen.lost);
                Err(failure("time-out"))
            }
            // The client got a 503 for it, and repeats it by itself.
            4 | 5 if done.is_ok() => {
                self.count(|seen| &seen.own);
                self.store.put_opts(path, payload, options).await
            }
            _ => done,
        }
    }

    async fn get(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.late().await;
        if self.below(24) == 0 {
            self.count(|seen| &seen.refused);
            return Err(failure("503 Slow Down"));
        }
        self.store.get_opts(path, options).await
    }
}

fn table() -> Table {
    let offset = Column { name: "offset".into(), data_type: DataType::Int64, nullable: false, role: Role::Value };
    Table { name: "events".into(), columns: vec![offset], combine: None, view: None }
}

fn partition() -> TopicPartition {
    TopicPartition::new("in", 1, 0)
}

/// A day takes some twenty records.
fn day_ms(offset: i64) -> i64 {
    offset / 20 * DAY_MS
}

/// The fence that a process begins with. Whatever fails is tried again, as a host does.
async fn begin(sink: &LakeSink) -> Fence {
    for _ in 0..1_000 {
        if let Err(error) = sink.prepare(true).await {
            assert!(error.is_retry(), "{error}");
            continue;
        }
        match sink.create_fence(&partition(), Fence::starting_at(0)).await {
            Ok(fence) => return fence,
            Err(error) => assert!(error.is_retry(), "{error}"),
        }
    }
    panic!("no beginning");
}

/// Writes to the end of the log from what it last heard of the fence. Returns the rows that it was told are written.
async fn work(sink: LakeSink, mut random: StdRng, seen: Arc<Seen>) -> i64 {
    let (mut fence, mut told) = (Some(begin(&sink).await), 0);
    for _ in 0..5_000 {
        let from = match fence.take() {
            Some(fence) => fence,
            None => match sink.fence(&partition()).await {
                Ok(fence) => fence.unwrap(),
                Err(error) => {
                    assert!(error.is_retry(), "{error}");
                    continue;
                }
            },
        };
        if from.next_offset == RECORDS {
            return told;
        }
        let next_offset = (from.next_offset + random.random_range(1..9)).min(RECORDS);
        let to = Fence { next_offset, last_timestamp_ms: Some(day_ms(next_offset - 1)), ..from.clone() };
        let offsets = Int64Array::from_iter_values(from.next_offset..next_offset);
        let rows = RecordBatch::try_new(table().schema(), vec![Arc::new(offsets)]).unwrap();
        match sink.write(&partition(), &from, &to, &[rows]).await {
            Ok(()) => {
                told += next_offset - from.next_offset;
                fence = Some(to);
            }
            Err(Error::Fenced { .. }) => {
                seen.fenced.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => assert!(error.is_retry(), "{error}"),
        }
    }
    panic!("the writer never came to the end of the log");
}

async fn race(seed: u64, seen: &Arc<Seen>) -> Arc<InMemory> {
    let store = Arc::new(InMemory::new());
    let writers = (0..WRITERS).map(|writer| {
        let random = |what: u64| StdRng::seed_from_u64(seed * 1_000 + writer * 10 + what);
        let unreliable = Unreliable { store: store.clone(), random: Mutex::new(random(0)), seen: seen.clone() };
        tokio::spawn(work(
            LakeSink::new(Arc::new(Around(unreliable)), "", "test.archive", table()),
            random(1),
            seen.clone(),
        ))
    });
    let told: i64 = join_all(writers).await.into_iter().map(Result::unwrap).sum();
    assert!(told <= RECORDS, "seed {seed}: two writers were told that they had written the same rows");
    let last = LakeSink::new(store.clone(), "", "test.archive", table());
    assert_eq!(last.fence(&partition()).await.unwrap().unwrap().next_offset, RECORDS, "seed {seed}");
    store
}

/// What DuckDB answers.
#[expect(clippy::disallowed_methods, reason = "the edge of the tests")]
fn duckdb(query: &str) -> String {
    let python = std::env::var("MILLSTREAM_TEST_DUCKDB");
    let python = python.unwrap_or_else(|_| panic!("MILLSTREAM_TEST_DUCKDB is not set: run the tests by tests/run"));
    let script = "import duckdb, sys\nfor row in duckdb.sql(sys.argv[1]).fetchall(): print(*row)";
    let answer = Command::new(python).args(["-c", script, query]).output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8(answer.stdout).unwrap()
}

#[tokio::test(start_paused = true)]
async fn eight_writers_leave_every_row_once() {
    let (folder, seen) = (tempfile::tempdir().unwrap(), Arc::new(Seen::default()));
    for seed in 0..SEEDS {
        let store = race(seed, &seen).await;
        let objects: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
        for object in objects {
            let file = folder.path().join(format!("seed={seed}/{}", object.location));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, store.get(&object.location).await.unwrap().bytes().await.unwrap()).unwrap();
        }
    }
    let files = folder.path().display();
    let answer = duckdb(&format!(
        "SELECT seed, count(*), count(DISTINCT \"offset\"), min(\"offset\"), max(\"offset\"), count(DISTINCT log_date) \
         FROM read_parquet('{files}/*/events/**/*.parquet', hive_partitioning = true) GROUP BY seed ORDER BY seed"
    ));
    let days = RECORDS / 20 + 1;
    let expected = |seed| format!("{seed} {RECORDS} {RECORDS} 0 {} ", RECORDS - 1);
    let lines: Vec<&str> = answer.lines().collect();
    assert_eq!(lines.len() as u64, SEEDS);
    for (seed, line) in lines.iter().enumerate() {
        let days_seen = line.strip_prefix(&expected(seed)).unwrap_or_else(|| panic!("seed {seed}: {line}"));
        assert!(days_seen.parse::<i64>().unwrap() <= days, "{line}");
    }
    for (what, count) in [
        ("refused", &seen.refused),
        ("conflicts", &seen.conflicts),
        ("lost", &seen.lost),
        ("own", &seen.own),
        ("fenced", &seen.fenced),
    ] {
        let count = count.load(Ordering::Relaxed);
        assert!(count > 50, "{what}: {count}");
    }
}
