//! What an audit finds, tolerates and can't judge, on stores that were tampered with.

mod healthy;
mod part;
mod records;

use std::{path::Path, sync::Arc};

use millstream_assembly::{AuditReport, Connections, Standing, Systems, audit};
use millstream_core::{Env, NewRecord, SystemClock};
use millstream_embedded::Embedded;
use millstream_pipeline::Pipeline;
use tempfile::TempDir;

/// A pipeline on embedded systems, whose store the test can change directly.
struct World {
    folder: TempDir,
    pipeline: Pipeline,
    systems: Systems,
}

const AMOUNTS: &str = "
name: shop
topics:
  sales: { partitions: 2, schema: { shop: string, amount: double, buyer: string } }
functions:
  income:
    uses: aggregate
    from: sales
    sql: SELECT shop, amount < 0 AS negative, sum(amount) AS income, count(*) AS n FROM sales GROUP BY 1, 2
    into: postgres.income
  kept: { uses: aggregate, from: sales, sql: 'SELECT shop, buyer, amount FROM sales', into: postgres.kept }
  spread: { uses: aggregate, from: sales, sql: 'SELECT shop, sum(amount) AS income FROM sales GROUP BY 1', into: postgres.spread }
";

impl World {
    async fn of(text: &str) -> Self {
        Self::with(text, &[]).await
    }

    /// With more files in the folder.
    async fn with(text: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let (pipeline, systems) = Self::open(folder.path(), text).await;
        Self { folder, pipeline, systems }
    }

    async fn open(folder: &Path, text: &str) -> (Pipeline, Systems) {
        Self::open_with(folder, text, "buyer,city\nx,Oslo\n").await
    }

    /// With these cities.
    async fn with_cities(text: &str, cities: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (pipeline, systems) = Self::open_with(folder.path(), text, cities).await;
        Self { folder, pipeline, systems }
    }

    async fn open_with(folder: &Path, text: &str, cities: &str) -> (Pipeline, Systems) {
        std::fs::write(folder.join("pipeline.yaml"), text).unwrap();
        std::fs::write(folder.join("cities.csv"), cities).unwrap();
        let pipeline = Pipeline::load(folder).unwrap();
        let mut connections = Connections::read(&Env::default()).unwrap();
        connections.data_dir = folder.join("data");
        let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
        systems.create_topics(&pipeline).await.unwrap();
        (pipeline, systems)
    }

    /// The same folder under another pipeline file.
    async fn changed_to(self, text: &str) -> Self {
        let (pipeline, systems) = Self::open(self.folder.path(), text).await;
        Self { pipeline, systems, ..self }
    }

    /// Sends values to one partition.
    async fn send(&self, topic: &str, partition: i32, values: &[&str]) {
        let record = |value: &&str| NewRecord {
            value: Some(value.as_bytes().to_vec()),
            partition: Some(partition),
            ..NewRecord::default()
        };
        let records = values.iter().map(record).collect();
        self.systems.producer(&self.pipeline.topics[topic]).unwrap().send(topic, records).await.unwrap();
    }

    /// Accepts that the pipeline file has changed.
    async fn adopt(&self, name: &str) {
        match self.systems.standing(&self.pipeline, name).await.unwrap() {
            Standing::Stops { record, .. } => {
                self.systems.adopt(&self.pipeline, name, record.as_deref().cloned()).await.unwrap();
            }
            other => panic!("there is nothing to adopt: {other:?}"),
        }
    }

    async fn run(&self, name: &str) {
        let function = self.systems.function(&self.pipeline, name).await.unwrap();
        function.drain(self.systems.source().as_ref()).await.unwrap();
    }

    async fn audit(&self, name: &str) -> AuditReport {
        audit(&self.systems, &self.pipeline, name).await.unwrap()
    }

    async fn found(&self, name: &str) -> Vec<String> {
        self.audit(name).await.differences.iter().map(ToString::to_string).collect()
    }

    /// The embedded store itself.
    fn store(&self) -> Arc<Embedded> {
        Embedded::open(&self.folder.path().join("data/millstream.db"), Arc::new(SystemClock)).unwrap()
    }

    fn tamper(&self, sql: &str) {
        let store = rusqlite::Connection::open(self.folder.path().join("data/millstream.db")).unwrap();
        assert!(store.execute(sql, []).unwrap() > 0, "{sql}");
    }
}

#[tokio::test]
async fn null_is_not_the_text_null_and_different_texts_look_different() {
    let world = World::of(AMOUNTS).await;
    let values = [r#"{"shop":"null","amount":1}"#, r#"{"amount":2}"#, r#"{"shop":"a', n=1","amount":3}"#];
    world.send("sales", 0, &values).await;
    for name in ["income", "kept"] {
        world.run(name).await;
        assert_eq!(world.found(name).await, [""; 0], "{name}");
    }
    world.tamper("UPDATE income SET n = 5 WHERE shop = 'a'', n=1'");
    let difference = "shop='a'', n=1', negative=false: the sink has n=5, the log gives n=1";
    assert_eq!(world.found("income").await, [difference]);
    world.tamper("UPDATE kept SET shop = 'null' WHERE shop IS NULL");
    let rows = [
        "missing in the sink: shop=NULL, buyer=NULL, amount=2.0",
        "not from the log: shop='null', buyer=NULL, amount=2.0",
    ];
    let mut found = world.found("kept").await;
    found.sort();
    assert_eq!(found, rows);
}

#[tokio::test]
async fn negative_zero_equals_zero() {
    let text = AMOUNTS.replace("amount < 0 AS negative", "amount AS negative");
    let world = World::of(&text).await;
    world.send("sales", 0, &[r#"{"shop":"a","amount":-0.0}"#, r#"{"shop":"b","amount":0.0}"#]).await;
    for name in ["income", "kept"] {
        world.run(name).await;
        assert_eq!(world.found(name).await, [""; 0], "{name}");
    }
    world.tamper("UPDATE kept SET amount = -0.0");
    assert_eq!(world.found("kept").await, [""; 0]);
}

#[tokio::test]
async fn small_sums_are_compared_as_strictly_as_large_ones() {
    let world = World::of(AMOUNTS).await;
    world.send("sales", 0, &[r#"{"shop":"dust","amount":1e-18}"#, r#"{"shop":"gold","amount":1e18}"#]).await;
    world.run("spread").await;
    assert_eq!(world.found("spread").await, [""; 0]);
    for (shop, wrong, within) in
        [("dust", "2e-18", "1.0000000000000002e-18"), ("gold", "1.0001e18", "1.0000000000000002e18")]
    {
        world.tamper(&format!("UPDATE spread SET income = {wrong} WHERE shop = '{shop}'"));
        let found = world.found("spread").await;
        assert!(found.len() == 1 && found[0].starts_with(&format!("shop='{shop}': ")), "{found:?}");
        world.tamper(&format!("UPDATE spread SET income = {within} WHERE shop = '{shop}'"));
        assert_eq!(world.found("spread").await, [""; 0], "{shop}");
    }
}

#[tokio::test]
async fn sums_that_cancel_out_may_depend_on_their_order_and_nothing_else_is_tolerated() {
    let world = World::of(AMOUNTS).await;
    let values = ["1e16", "-1e16", "1"].map(|amount| format!(r#"{{"shop":"a","amount":{amount}}}"#));
    world.send("sales", 0, &values.each_ref().map(String::as_str)).await;
    world.send("sales", 0, &[r#"{"shop":"b","amount":7}"#]).await;
    world.run("spread").await;
    assert_eq!(world.found("spread").await, [""; 0]);
    // In another order, adding 1 to 1e16 loses the 1.
    world.tamper("UPDATE spread SET income = 0 WHERE shop = 'a'");
    assert_eq!(world.found("spread").await, [""; 0]);
    world.tamper("UPDATE spread SET income = 100 WHERE shop = 'a'");
    world.tamper("UPDATE spread SET income = 8 WHERE shop = 'b'");
    assert_eq!(world.audit("spread").await.total_differences, 2);
}

#[tokio::test]
async fn moments_are_compared_by_the_size_of_their_values() {
    let text = "
name: shop
topics:
  sales: { partitions: 3, schema: { shop: string, amount: double } }
functions:
  spread:
    uses: aggregate
    from: sales
    sql: SELECT shop, stddev(amount) AS s, var_pop(amount) AS v FROM sales GROUP BY 1
    into: postgres.spread
    batch: { max_records: 5 }
";
    let world = World::of(text).await;
    let mut delay = 1.0_f64;
    for partition in 0..3 {
        let mut values = Vec::new();
        for number in 0..100 {
            // Pseudo-random values, each with its negative, in a pseudo-random order.
            delay = (delay * 16_807.0) % 2_147_483_647.0;
            let shop = |shop: &str, amount: f64| format!(r#"{{"shop":"{shop}","amount":{amount}}}"#);
            values.extend([shop("tenth", 0.1), shop("large", 683.18), shop("even", 1e6 + f64::from(number) / 7.0)]);
            values.extend([shop("delays", delay / 1e7), shop("delays", -delay / 1e7)]);
            let place = delay as usize % values.len();
            values.rotate_left(place);
        }
        world.send("sales", partition, &values.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    world.run("spread").await;
    assert_eq!(world.found("spread").await, [""; 0]);
    // The states still give what was there before, so these differences are left out here.
    let of_log = async || {
        let found = world.found("spread").await;
        found.into_iter().filter(|difference| difference.contains("the log gives")).collect::<Vec<_>>()
    };
    for (column, shop, noise) in [("s", "tenth", 1e-16), ("v", "large", 1e-22), ("s", "even", 1e-9)] {
        let changed = |by: f64| format!("UPDATE spread SET {column} = {column} + {by} WHERE shop = '{shop}'");
        world.tamper(&changed(noise));
        assert_eq!(of_log().await, [""; 0], "{column} of {shop}");
        world.tamper(&changed(-noise));
    }
    for (column, shop) in [("s", "even"), ("v", "even"), ("s", "delays"), ("v", "delays")] {
        let changed = |by: &str| format!("UPDATE spread SET {column} = {column} {by} 1.000001 WHERE shop = '{shop}'");
        world.tamper(&changed("*"));
        let found = of_log().await;
        let told = |found: &str| found.starts_with(&format!("shop='{shop}'")) && found.contains(&format!(" {column}="));
        assert!(found.len() == 1 && told(&found[0]), "{column} of {shop}: {found:?}");
        world.tamper(&changed("/"));
    }
    world.tamper("UPDATE spread SET s = 1e-6 WHERE shop = 'tenth'");
    assert_eq!(of_log().await.len(), 1);
    world.tamper("UPDATE spread_state SET v_m2 = v_m2 * 1.000001 WHERE shop = 'delays'");
    let found = world.found("spread").await;
    assert!(
        found.iter().any(|found| found.starts_with("readers see shop='delays' with ")),
        "states that don't fit: {found:?}"
    );
}

#[tokio::test]
async fn partitions_without_a_fence_are_reported() {
    let world = World::of(AMOUNTS).await;
    world.send("sales", 1, &[r#"{"shop":"a","amount":1}"#]).await;
    let report = world.audit_before_it_ran("income").await;
    assert!(report.is_clean());
    let note = "no fence, so none of their records have been processed: sales/1/0 (0 records), sales/1/1 (1 records)";
    assert_eq!(report.notes, [note]);
    world.run("income").await;
    assert_eq!(world.audit("income").await.notes, [""; 0]);
}

impl World {
    /// Creates the table, and audits it before any record is processed.
    async fn audit_before_it_ran(&self, name: &str) -> AuditReport {
        self.systems.function(&self.pipeline, name).await.unwrap();
        self.audit(name).await
    }
}

#[tokio::test]
async fn data_of_an_earlier_generation_is_compared_only_where_rows_are_not_merged() {
    let world = World::of(AMOUNTS).await;
    let old = [r#"{"shop":"old","amount":1}"#, r#"{"shop":"old","amount":2}"#];
    world.send("sales", 0, &old).await;
    world.run("income").await;
    world.run("kept").await;
    let file = world.folder.path().join("data/millstream.db");
    Embedded::open(&file, Arc::new(SystemClock)).unwrap().delete_topic("sales").await.unwrap();
    let world = world.changed_to(&AMOUNTS.replace("partitions: 2", "partitions: 2, generation: 2")).await;
    world.send("sales", 0, &[r#"{"shop":"new","amount":3}"#]).await;
    for name in ["income", "kept"] {
        world.adopt(name).await;
        world.run(name).await;
    }

    let error = audit(&world.systems, &world.pipeline, "income").await.unwrap_err().to_string();
    assert!(
        error.contains("offsets 0..2 of sales/1/0") && error.contains("Merged rows don't show which data is old"),
        "{error}"
    );
    let report = world.audit("kept").await;
    assert!(report.is_clean(), "{report:?}");
    assert!(report.notes.iter().any(|note| note.contains("sales/1/0") && note.contains("2 more")), "{report:?}");
    world.tamper("DELETE FROM kept WHERE shop = 'new'");
    assert_eq!(world.found("kept").await, ["missing in the sink: shop='new', buyer=NULL, amount=3.0"]);
}

#[tokio::test]
async fn a_reference_that_may_have_changed_is_reported() {
    let text = AMOUNTS.replace(
        "SELECT shop, buyer, amount FROM sales",
        "SELECT shop, c.city FROM sales JOIN cities c ON c.buyer = sales.buyer",
    ) + "references:\n  cities: { file: cities.csv, refresh: 1s, schema: { buyer: string, city: string } }\n";
    let world = World::of(&text).await;
    world.send("sales", 0, &[r#"{"shop":"a","buyer":"x"}"#]).await;
    world.run("kept").await;
    world.run("income").await;
    assert!(world.audit("income").await.notes.is_empty(), "it joins nothing");
    std::fs::write(world.folder.path().join("cities.csv"), "buyer,city\nx,Bergen\n").unwrap();
    let report = world.audit("kept").await;
    assert_eq!(report.total_differences, 2, "{report:?}");
    assert!(
        report.notes.iter().any(|note| note.contains("`cities`") && note.contains("may not be errors")),
        "{report:?}"
    );
}

#[tokio::test]
async fn rows_come_in_any_number_of_copies() {
    let world = World::of(AMOUNTS).await;
    world.send("sales", 0, &[r#"{"shop":"a","amount":1}"#; 3]).await;
    world.run("kept").await;
    world.tamper("INSERT INTO kept SELECT * FROM (SELECT shop, buyer, amount FROM kept LIMIT 2)");
    assert_eq!(world.found("kept").await, ["not from the log: shop='a', buyer=NULL, amount=1.0 (2 times)"]);
}

#[tokio::test]
async fn a_re_created_topic_is_reported() {
    let world = World::of(AMOUNTS).await;
    world.send("sales", 0, &[r#"{"shop":"a","amount":1}"#; 3]).await;
    world.run("kept").await;
    world.tamper("UPDATE millstream_topics SET uuid = 'another'");
    let error = audit(&world.systems, &world.pipeline, "kept").await.unwrap_err().to_string();
    assert!(error.contains("topic sales was deleted and re-created") && error.contains("another"), "{error}");
}
