//! SIGKILL at every fault point of the step in which a rebuilt table takes its place: what readers see then is the old table or
//! the new one, whole, and the next run of the rebuild leaves nothing behind.

use millstream_core::fault::SWAP_POINTS;
use millstream_pipeline::Pipeline;
use millstream_tests::{Child, PATIENCE, Scene, Setting, Store, bank, until};

use super::rebuilds::{STATEMENTS, ask, folder, start, write_statement};

/// The end of a fault point's name, and the passage at which it kills. Up to the second passage of `after_rename` the step is
/// rehearsed.
const PASSAGES: [(&str, u32); 6] = [
    ("before_swap", 1),
    ("after_rename", 1),
    ("before_swap", 2),
    ("after_rename", 2),
    ("before_swap_commit", 1),
    ("after_swap_commit", 1),
];
const RECORDS: usize = 4_000;

#[test]
fn every_point_of_the_swap_is_tried() {
    for point in SWAP_POINTS {
        assert!(PASSAGES.iter().any(|(end, _)| point.split_once('.').is_some_and(|(_, name)| name == *end)), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_is_killed_at_every_point_through_pgbouncer() {
    killed("postgres", Store::through_pgbouncer("swaps").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_is_killed_at_every_point_with_everything_embedded() {
    killed("embedded", Store::Embedded).await;
}

/// What the store holds of the function.
#[derive(Debug, PartialEq)]
struct Held {
    transactions: i64,
    rows: i64,
    /// The sum of the function's fences.
    fences: i64,
    term: i64,
}

async fn killed(system: &str, store: Store) {
    let scene = Scene::new(Setting { name: "swaps", store, max_records: 1_000, ..Setting::default() }).await;
    let written = scene.write(bank::transactions_with_bad(92, RECORDS, 100)).await;
    let good = written.transactions().len() as i64;
    (0..STATEMENTS.len()).for_each(|number| write_statement(&scene, number));
    let mut function = start(&scene, 0);
    scene.until_all_in("flow", &mut [&mut function]).await;
    function.drain().await;
    for (number, (end, passage)) in PASSAGES.into_iter().enumerate() {
        let what = format!("{system}: killed at passage {passage} of {end}");
        let path = folder(&scene, (number + 1) % STATEMENTS.len());
        let args = ["rebuild", "flow", "--yes", "-p", &path.display().to_string()];
        let before = Held::by(&scene, &what).await;
        let fault = ("MILLSTREAM_FAULT", format!("{system}.{end}:{passage}"));
        Child::run("millstream", &args, &scene, &[fault]).dies().await;

        let found = Held::by(&scene, &what).await;
        let is_new = end == "after_swap_commit";
        assert_eq!(found == before, !is_new, "{what}: {before:?}, {found:?}");
        let mut again = Child::run("millstream", &args, &scene, &[]);
        assert!(again.end().await.success(), "{what}: {}", again.stderr());
        let now = Held::by(&scene, &what).await;
        assert_eq!(found == now, is_new, "{what}: {found:?}, {now:?}");
        assert_eq!((now.transactions, now.fences), (good, before.fences), "{what}: {now:?}");
        assert!(now.term > before.term, "{what}: {before:?}, {now:?}");
        assert_nothing_is_left(&scene, &what).await;
        let pipeline = Pipeline::load(&path).unwrap();
        let report = millstream_assembly::audit(&scene.systems, &pipeline, "flow").await.unwrap();
        assert!(report.is_clean(), "{what}: {report:?}");
        scene.assert_letters("flow", &written, &what).await;
    }
    // The function goes on with the last statement.
    let mut written = written;
    written.extend(scene.write(bank::transactions_with_bad(93, RECORDS, 100)).await);
    let mut function = start(&scene, PASSAGES.len() % STATEMENTS.len());
    let good = written.transactions().len() as i64;
    until(PATIENCE, "all records in the table", async || {
        let now = Held::by(&scene, system).await.transactions;
        if now == good { Ok(()) } else { Err(format!("{now} of {good}")) }
    })
    .await;
    function.drain().await;
}

impl Held {
    async fn by(scene: &Scene, what: &str) -> Self {
        let (table, function) = (format!("flow_{}", scene.name()), format!("function LIKE '{}.flow'", scene.name()));
        let number =
            async |sql: String| ask(scene, &sql).await.unwrap_or_else(|error| panic!("{what}: {sql}: {error}"));
        Self {
            transactions: number(format!("SELECT coalesce(sum(transactions), 0) FROM {table}")).await,
            rows: number(format!("SELECT count(*) FROM {table}")).await,
            fences: number(format!(
                "SELECT sum(next_offset) FROM millstream_fences WHERE {function} AND partition >= 0"
            ))
            .await,
            term: number(format!("SELECT term FROM millstream_owners WHERE {function}")).await,
        }
    }
}

/// Neither tables nor fences nor records nor letters of the rebuild.
async fn assert_nothing_is_left(scene: &Scene, what: &str) {
    let relations = match scene.has_kafka() {
        true => "SELECT count(*) FROM pg_class WHERE relname ~ '(__rebuild|__old)'",
        false => "SELECT count(*) FROM sqlite_master WHERE name LIKE '%\\_\\_rebuild%' ESCAPE '\\'",
    };
    let of = "WHERE function LIKE '%.rebuild'";
    let fences = format!("SELECT count(*) FROM millstream_fences {of}");
    let owners = format!("SELECT count(*) FROM millstream_owners {of}");
    for sql in [relations, &fences, &owners] {
        assert_eq!(ask(scene, sql).await, Ok(0), "{what}: {sql}");
    }
}
