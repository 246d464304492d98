//! SIGKILL at random moments of a rebuild, while records are produced, the old function works, and a reader polls.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::{Duration, Instant},
};

use millstream_pipeline::Pipeline;
use millstream_tests::{Child, Flow, PATIENCE, Scene, Setting, Store, bank, number_of_kills, postgres_client, until};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio_postgres::SimpleQueryMessage;

pub(super) const KILLS: usize = 6;
const FLOW: Flow = Flow { portion: 100, every: Duration::from_millis(100), bad_every: 50 };
/// Records that are there before the first rebuild.
const BEFORE: usize = 20_000;

/// What takes the place of the window and of the count in the statement: with results of other windows, and with hidden states.
pub(super) const STATEMENTS: [(&str, &str); 4] = [
    ("2 seconds", "count(*) AS transactions"),
    ("4 seconds", "count(*) AS transactions"),
    ("6 seconds", "count(*) AS transactions, avg(amount) AS mean"),
    ("3 seconds", "count(*) AS transactions, avg(amount) AS mean"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_killed_under_load_through_pgbouncer() {
    killed(Store::through_pgbouncer("rebuilds").await, 90).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_killed_under_load_with_everything_embedded() {
    killed(Store::Embedded, 91).await;
}

async fn killed(store: Store, seed: u64) {
    let scene = Scene::new(Setting { name: "rebuilds", store, max_records: 2_000, ..Setting::default() }).await;
    let mut written = scene.write(bank::transactions_with_bad(seed, BEFORE, 100)).await;
    let mut world = World::new(&scene, seed).await;
    let (done, looks) = (AtomicBool::new(false), AtomicI64::new(0));
    let (more, counts, ()) = tokio::join!(scene.write_until(&done, seed, FLOW), poll(&scene, &done, &looks), async {
        until(PATIENCE, "a first look of the reader", async || match looks.load(Ordering::Relaxed) {
            0 => Err("none yet".to_owned()),
            _ => Ok(()),
        })
        .await;
        world.rebuild_under_kills().await;
        done.store(true, Ordering::Relaxed);
    });
    written.extend(more);
    let good = written.transactions().len() as i64;
    let pipeline = world.current();
    let count = async || total(&scene).await.unwrap_or(-1);
    until(PATIENCE, "all records in the table", async || {
        let now = count().await;
        if now == good { Ok(()) } else { Err(format!("{now} of {good}")) }
    })
    .await;
    world.function.drain().await;
    scene.assert_letters("flow", &written, "after rebuilds").await;
    let report = millstream_assembly::audit(&scene.systems, &pipeline, "flow").await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    let (kills, swaps) = (world.kills, world.swaps);
    eprintln!(
        "{kills} kills, {swaps} tables have taken their place, {} looks of the reader, {good} records",
        counts.len()
    );
    assert!(swaps > 0 && counts.is_sorted(), "a reader has seen less than before: {counts:?}");
}

/// The function in a process, and the statement that it runs by.
struct World<'a> {
    scene: &'a Scene,
    random: StdRng,
    /// The statement of the function's process; the next one is that of the rebuild.
    statement: usize,
    function: Child,
    kills: usize,
    swaps: usize,
    /// How long a rebuild took that was not killed.
    took: Duration,
}

impl<'a> World<'a> {
    async fn new(scene: &'a Scene, seed: u64) -> Self {
        for number in 0..STATEMENTS.len() {
            write_statement(scene, number);
        }
        let function = start(scene, 0);
        let random = StdRng::seed_from_u64(seed);
        let took = Duration::from_secs(4);
        let mut world = Self { scene, random, statement: 0, function, kills: 0, swaps: 0, took };
        scene.until_all_in("flow", &mut [&mut world.function]).await;
        world
    }

    fn current(&self) -> Pipeline {
        Pipeline::load(&folder(self.scene, self.statement)).unwrap()
    }

    /// Each process of a rebuild is killed at a random moment of the time that a rebuild takes; the last one is not.
    async fn rebuild_under_kills(&mut self) {
        let kills = number_of_kills(KILLS);
        while self.kills < kills {
            let limit = self.took.mul_f64(1.3).as_millis() as u64;
            let after = Duration::from_millis(self.random.random_range(0..limit));
            self.rebuild(Some(after)).await;
        }
        self.rebuild(None).await;
    }

    async fn rebuild(&mut self, kill_after: Option<Duration>) {
        let target = (self.statement + 1) % STATEMENTS.len();
        let path = folder(self.scene, target).display().to_string();
        #[expect(clippy::disallowed_methods, reason = "a test measures how long a process takes")]
        let began = Instant::now();
        let args = ["rebuild", "flow", "--yes", "-p", &path];
        let mut child = Child::run("millstream", &args, self.scene, &[]);
        let ends = tokio::time::timeout(kill_after.unwrap_or(PATIENCE), child.end()).await;
        match ends {
            Ok(status) => {
                assert!(status.success(), "the rebuild ended with {status}: {}", child.stderr());
                self.took = (self.took + began.elapsed()) / 2;
            }
            Err(_) => {
                child.kill().await;
                self.kills += 1;
            }
        }
        self.follow(target, ends.is_ok()).await;
    }

    /// When the new table has taken the place, the function's process stops, and is started with the new statement.
    async fn follow(&mut self, target: usize, is_done: bool) {
        if is_done {
            let status = self.function.end().await;
            assert!(!status.success(), "{}", self.function.stderr());
        } else {
            // If the place was taken just before the kill, the function finds out with its next write.
            tokio::time::sleep(FLOW.every * 5).await;
        }
        if self.function.ended().is_none() {
            return;
        }
        let said = self.function.stderr();
        assert!(said.contains("was rebuilt or adopted while this process ran"), "{said}");
        self.swaps += 1;
        if !is_done {
            // It goes on with what is left, or finds nothing to do.
            let path = folder(self.scene, target).display().to_string();
            let mut rest = Child::run("millstream", &["rebuild", "flow", "--yes", "-p", &path], self.scene, &[]);
            let status = rest.end().await;
            assert!(status.success(), "{}", rest.stderr());
        }
        self.statement = target;
        self.function = start(self.scene, target);
    }
}

pub(super) fn start(scene: &Scene, statement: usize) -> Child {
    let path = folder(scene, statement).display().to_string();
    Child::start("aggregate", scene, "flow", &[("MILLSTREAM_PIPELINE", path)])
}

pub(super) fn folder(scene: &Scene, statement: usize) -> PathBuf {
    scene.folder().join(format!("statement-{statement}"))
}

pub(super) fn write_statement(scene: &Scene, number: usize) {
    let text = std::fs::read_to_string(scene.folder().join("pipeline.yaml")).unwrap();
    let (window, count) = STATEMENTS[number];
    let changed = text.replace("2 seconds", window).replace("count(*) AS transactions", count);
    assert!(changed.contains(window) && changed.contains(count), "{changed}");
    std::fs::create_dir_all(folder(scene, number)).unwrap();
    std::fs::write(folder(scene, number).join("pipeline.yaml"), changed).unwrap();
}

/// What a reader sees again and again: how many records are in the table. Every look succeeds.
async fn poll(scene: &Scene, done: &AtomicBool, looks: &AtomicI64) -> Vec<i64> {
    let mut counts = Vec::new();
    while !done.load(Ordering::Relaxed) {
        counts.push(total(scene).await.unwrap_or_else(|error| panic!("look {}: {error}", counts.len())));
        looks.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    counts
}

/// The sum of `transactions`.
async fn total(scene: &Scene) -> Result<i64, String> {
    ask(scene, &format!("SELECT coalesce(sum(transactions), 0) FROM flow_{}", scene.name())).await
}

/// A number from the store of the tables, by the way that the functions take.
pub(super) async fn ask(scene: &Scene, sql: &str) -> Result<i64, String> {
    if scene.has_kafka() {
        let client = postgres_client(&scene.environment()["MILLSTREAM_POSTGRES_URL"]).await;
        let answer = client.simple_query(sql).await.map_err(|error| format!("{error:?}"))?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        return row.and_then(|text| text.parse().ok()).ok_or_else(|| "no number".to_owned());
    }
    let file = rusqlite::Connection::open(scene.folder().join("data/millstream.db")).unwrap();
    file.busy_timeout(Duration::from_secs(5)).unwrap();
    file.query_row(sql, [], |row| row.get(0)).map_err(|error| error.to_string())
}
