//! SIGKILL at every fault point of `millstream adopt`, with the function's process at work: the table is of the old plan, whose
//! process goes on, or of the new one, and the next run finishes it. No number stands there in the spelling of the other plan.

use std::{path::PathBuf, sync::Arc};

use millstream_assembly::{Connections, Standing, Systems};
use millstream_core::{Env, NewRecord, SystemClock, fault::ADOPT_POINTS};
use millstream_pipeline::Pipeline;
use millstream_tests::{Child, PATIENCE, Scene, Setting, Store, bank, setting, unique, until};
use scylla::client::session_builder::SessionBuilder;

use super::rebuilds::ask;

/// The end of a fault point's name, and whether the new plan has the table then.
const ENDS: [(&str, bool); 3] = [("after_adapt", false), ("before_adopt_commit", false), ("after_adopt_commit", true)];
const RECORDS: usize = 1_000;

#[test]
fn every_point_of_an_adoption_is_tried() {
    for point in ADOPT_POINTS {
        assert!(ENDS.iter().any(|(end, _)| point.split_once('.').is_some_and(|(_, name)| name == *end)), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_is_killed_at_every_point_through_pgbouncer() {
    killed("postgres", Store::through_pgbouncer("adopts").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_is_killed_at_every_point_with_everything_embedded() {
    killed("embedded", Store::Embedded).await;
}

async fn killed(system: &str, store: Store) {
    let scene = Scene::new(Setting { name: "adopts", store, max_records: 200, ..Setting::default() }).await;
    (0..=ENDS.len()).for_each(|plan| write_plan(&scene, plan));
    let mut written = RECORDS;
    scene.write(bank::transactions(94, RECORDS)).await;
    let mut function = start(&scene, 0);
    all_in(&scene, written, &mut function).await;
    for (number, (end, is_new)) in ENDS.into_iter().enumerate() {
        let what = format!("{system}: killed at {end}");
        let path = folder(&scene, number + 1);
        let args = ["adopt", "flow", "--yes", "-p", &path.display().to_string()];
        let before = term(&scene).await;
        Child::run("millstream", &args, &scene, &[("MILLSTREAM_FAULT", format!("{system}.{end}"))]).dies().await;
        assert_eq!(term(&scene).await > before, is_new, "{what}");
        if !is_new {
            // The old process writes into the table between both runs.
            written += RECORDS;
            scene.write(bank::transactions(95 + number as u64, RECORDS)).await;
            all_in(&scene, written, &mut function).await;
        }
        let mut again = Child::run("millstream", &args, &scene, &[]);
        assert!(again.end().await.success(), "{what}: {}", again.stderr());
        assert!(term(&scene).await > before, "{what}");
        written += RECORDS;
        scene.write(bank::transactions(98 + number as u64, RECORDS)).await;
        assert!(!function.end().await.success(), "{what}: the old process writes on: {}", function.stderr());
        let said = function.stderr();
        assert!(said.contains("was rebuilt or adopted while this process ran"), "{what}: {said}");
        function = start(&scene, number + 1);
        all_in(&scene, written, &mut function).await;
        // Both plans give the same numbers, with more digits.
        let pipeline = Pipeline::load(&path).unwrap();
        let report = millstream_assembly::audit(&scene.systems, &pipeline, "flow").await.unwrap();
        assert!(report.is_clean() && report.rows > 0, "{what}: {report:?}");
    }
    function.drain().await;
}

/// Waits until the fences are above all records, whatever the statement is now.
async fn all_in(scene: &Scene, written: usize, function: &mut Child) {
    let sql = format!(
        "SELECT coalesce(sum(next_offset), 0) FROM millstream_fences WHERE function LIKE '{}.flow' AND partition >= 0",
        scene.name()
    );
    until(PATIENCE, "all records in the table", async || {
        let now = ask(scene, &sql).await?;
        if now == written as i64 { Ok(()) } else { Err(format!("{now} of {written}")) }
    })
    .await;
    function.assert_runs();
}

async fn term(scene: &Scene) -> i64 {
    let sql = format!("SELECT term FROM millstream_owners WHERE function LIKE '{}.flow'", scene.name());
    ask(scene, &sql).await.unwrap()
}

fn start(scene: &Scene, plan: usize) -> Child {
    let path = folder(scene, plan).display().to_string();
    Child::start("aggregate", scene, "flow", &[("MILLSTREAM_PIPELINE", path)])
}

fn folder(scene: &Scene, plan: usize) -> PathBuf {
    scene.folder().join(format!("plan-{plan}"))
}

/// Each plan has one digit more behind the point than the one before.
fn write_plan(scene: &Scene, plan: usize) {
    let text = std::fs::read_to_string(scene.folder().join("pipeline.yaml")).unwrap();
    let changed = match plan {
        0 => text,
        _ => {
            let sum = format!("sum(CAST(amount AS decimal({}, {})))", 18 + 2 * plan, 2 + plan);
            assert!(text.contains("sum(amount)"), "{text}");
            text.replace("sum(amount)", &sum)
        }
    };
    std::fs::create_dir_all(folder(scene, plan)).unwrap();
    std::fs::write(folder(scene, plan).join("pipeline.yaml"), changed).unwrap();
}

/// A number of the old type would be none of the new one, though PostgreSQL has one type for both.
#[tokio::test(flavor = "multi_thread")]
async fn a_narrower_type_is_refused_where_the_database_has_one_for_both() {
    let Store::Services { kafka, direct, .. } = Store::services("narrowed").await else {
        unreachable!("services were asked for")
    };
    let topic = unique("narrowed");
    let text = |n: &str| {
        format!(
            r#"
name: {topic}
topics:
  {topic}: {{ partitions: 1, schema: {{ n: bigint }} }}
functions:
  keyed: {{ uses: aggregate, from: {topic}, sql: "SELECT {n} AS k, count(*) AS c FROM {topic} GROUP BY 1", into: postgres.keyed }}
  kept: {{ uses: aggregate, from: {topic}, sql: "SELECT {n} AS v FROM {topic}", into: postgres.kept }}
"#
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let pipeline = |n: &str| Pipeline::parse(&text(n), &folder.path().join("pipeline.yaml")).unwrap();
    let settings = [("MILLSTREAM_KAFKA_BROKERS", kafka), ("MILLSTREAM_POSTGRES_URL", direct)];
    let mut connections = Connections::read(&Env::of(settings)).unwrap();
    connections.data_dir = folder.path().to_owned();
    let (before, after) = (pipeline("n"), pipeline("CAST(n AS INT UNSIGNED)"));
    let systems = Systems::open(&before, &connections, Arc::new(SystemClock)).unwrap();
    systems.create_topics(&before).await.unwrap();
    let record = NewRecord { value: Some(b"{\"n\":-1}".to_vec()), ..NewRecord::default() };
    systems.producer(&before.topics[&topic]).unwrap().send(&topic, vec![record]).await.unwrap();
    for name in ["keyed", "kept"] {
        let function = systems.function(&before, name).await.unwrap();
        function.drain(systems.source().as_ref()).await.unwrap();
        let Standing::Stops { record, .. } = systems.standing(&after, name).await.unwrap() else {
            panic!("{name} has another plan")
        };
        let said = systems.adopt(&after, name, record.as_deref().cloned()).await.unwrap_err().to_string();
        assert!(said.contains("was filled as bigint") && said.contains("Nothing was changed"), "{said}");
    }
}

/// Cassandra has no NOT NULL: rows of the plan in between would stop every reader of the column.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_was_left_out_does_not_come_back_as_never_null() {
    let (contact, name) = (setting("MILLSTREAM_TEST_CASSANDRA"), unique("came_back"));
    let session = SessionBuilder::new().known_node(&contact).build().await.unwrap();
    let replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}";
    session.query_unpaged(format!("CREATE KEYSPACE {name} WITH replication = {replication}"), ()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = [("MILLSTREAM_CASSANDRA_CONTACT_POINTS", contact), ("MILLSTREAM_CASSANDRA_KEYSPACE", name.clone())];
    let mut connections = Connections::read(&Env::of(settings)).unwrap();
    connections.data_dir = folder.path().to_owned();
    let pipeline = |selected: &str| {
        let text = format!(
            r#"
name: {name}
topics:
  notes: {{ partitions: 1, schema: {{ id: bigint not null, note: string not null }} }}
functions:
  keep: {{ uses: store, from: notes, sql: "SELECT {selected} FROM notes", into: cassandra.kept }}
"#
        );
        Pipeline::parse(&text, &folder.path().join("pipeline.yaml")).unwrap()
    };
    let (whole, without) = (pipeline("id, note"), pipeline("id"));
    let systems = Systems::open(&whole, &connections, Arc::new(SystemClock)).unwrap();
    systems.create_topics(&whole).await.unwrap();
    let producer = systems.producer(&whole.topics["notes"]).unwrap();
    let record = async |pipeline: &Pipeline| {
        let Standing::Stops { record, .. } = systems.standing(pipeline, "keep").await.unwrap() else {
            panic!("it has another plan")
        };
        record.as_deref().cloned()
    };
    let keep = async |pipeline: &Pipeline| {
        let record = NewRecord { value: Some(br#"{"id":1,"note":"a"}"#.to_vec()), ..NewRecord::default() };
        producer.send("notes", vec![record]).await.unwrap();
        let function = systems.function(pipeline, "keep").await.unwrap();
        function.drain(systems.source().as_ref()).await.unwrap();
    };
    keep(&whole).await;
    systems.adopt(&without, "keep", record(&without).await).await.unwrap();
    keep(&without).await;
    let said = systems.adopt(&whole, "keep", record(&whole).await).await.unwrap_err().to_string();
    assert!(said.contains("column note is NOT NULL") && said.contains("Nothing was changed"), "{said}");
    let nullable = pipeline("id, nullif(note, '') AS note");
    systems.adopt(&nullable, "keep", record(&nullable).await).await.unwrap();
    keep(&nullable).await;
    session.query_unpaged(format!("DROP KEYSPACE {name}"), ()).await.unwrap();
}
