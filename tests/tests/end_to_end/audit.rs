//! The audit finds whatever is wrong with a table, in every store, and nothing else.

use std::{path::Path, sync::Arc};

use millstream_assembly::{
    AuditOptions, AuditReport, AuditSample, Connections, Difference, Systems, audit, audit_part,
};
use millstream_core::{DeadLetter, Env, NewRecord, SystemClock, TopicPartition};
use millstream_pipeline::Pipeline;
use millstream_tests::Store;

const PIPELINE: &str = r#"
name: audited
topics:
  sale: { partitions: 2, schema: { shop: string, pieces: bigint, price: "decimal(9,2)", weight: double, buyer: string } }
functions:
  sums:
    uses: aggregate
    from: sale
    sql: SELECT shop, sum(pieces) AS pieces, sum(price) AS total FROM sale GROUP BY 1
    into: postgres.sums
  means:
    uses: aggregate
    from: sale
    sql: SELECT shop, avg(weight) AS mean, approx_distinct(buyer) AS buyers FROM sale GROUP BY 1
    into: postgres.means
  kept: { uses: aggregate, from: sale, sql: "SELECT shop, pieces, weight FROM sale", into: postgres.kept }
  files: { uses: archive, from: sale, into: lake.files }
"#;

const FUNCTIONS: [&str; 4] = ["sums", "means", "kept", "files"];

/// A change of a table, how it is undone, and what the audit of a function then begins its findings with.
struct Change {
    function: &'static str,
    makes: &'static str,
    undoes: &'static str,
    finds: &'static [&'static str],
}

const fn change(
    function: &'static str,
    makes: &'static str,
    undoes: &'static str,
    finds: &'static [&'static str],
) -> Change {
    Change { function, makes, undoes, finds }
}

/// Changes that are the same in every database.
const EVERYWHERE: [Change; 6] = [
    change(
        "sums",
        "UPDATE sums SET pieces = pieces + 1 WHERE shop = 'a'",
        "UPDATE sums SET pieces = pieces - 1 WHERE shop = 'a'",
        &["shop='a': the sink has pieces="],
    ),
    change(
        "sums",
        "UPDATE sums SET shop = NULL WHERE shop = 'null'",
        "UPDATE sums SET shop = 'null' WHERE shop IS NULL",
        &["missing in the sink: shop='null', ", "not from the log: shop=NULL, "],
    ),
    change(
        "sums",
        "INSERT INTO sums (shop, pieces, total) VALUES ('zz', 1, '1.00')",
        "DELETE FROM sums WHERE shop = 'zz'",
        &["not from the log: shop='zz', "],
    ),
    change(
        "sums",
        "DELETE FROM sums WHERE shop = 'b'",
        "INSERT INTO sums (shop, pieces, total) VALUES ('b', 145, '12.50')",
        &["missing in the sink: shop='b', pieces=145, total=12.50"],
    ),
    change(
        "kept",
        "UPDATE kept SET pieces = 100 WHERE shop = 'a' AND pieces = 3",
        "UPDATE kept SET pieces = 3 WHERE shop = 'a' AND pieces = 100",
        &["missing in the sink: shop='a', pieces=3, ", "not from the log: shop='a', pieces=100, "],
    ),
    change(
        "kept",
        "DELETE FROM kept WHERE shop = 'b' AND pieces = 4",
        "INSERT INTO kept (shop, pieces, weight) VALUES ('b', 4, 1.0)",
        &["missing in the sink: shop='b', pieces=4, weight=1.0"],
    ),
];

const POSTGRES: [Change; 4] = [
    change(
        "kept",
        "INSERT INTO kept (shop, pieces, weight) SELECT shop, pieces, weight FROM kept WHERE shop = 'b' AND pieces = 4",
        "DELETE FROM kept WHERE shop = 'b' AND pieces = 4 AND ctid = (SELECT max(ctid) FROM kept)",
        &["not from the log: shop='b', pieces=4, "],
    ),
    change(
        "means",
        "UPDATE means_state SET mean_sum = mean_sum * 2 WHERE shop = 'a'",
        "UPDATE means_state SET mean_sum = mean_sum / 2 WHERE shop = 'a'",
        &["shop='a': the sink has mean="],
    ),
    change(
        "means",
        "UPDATE means_state SET buyers_sketch = set_byte(buyers_sketch, 7, 9) WHERE shop = 'b'",
        "UPDATE means_state SET buyers_sketch = set_byte(buyers_sketch, 7, 0) WHERE shop = 'b'",
        &["shop='b': the sink has buyers="],
    ),
    // A view that was left from an older statement shows other rows than the states give.
    change(
        "means",
        "CREATE OR REPLACE VIEW means AS SELECT shop, mean_sum AS mean, 0::numeric(20,0) AS buyers FROM means_state \
         WHERE shop = 'a'",
        "",
        &["missing in the sink: shop='b'", "missing in the sink: shop='null'", "shop='a': the sink has mean="],
    ),
];

const EMBEDDED: [Change; 3] = [
    change(
        "kept",
        "INSERT INTO kept (shop, pieces, weight) SELECT shop, pieces, weight FROM kept WHERE shop = 'b' AND pieces = 4",
        "DELETE FROM kept WHERE shop = 'b' AND pieces = 4 AND rowid = (SELECT max(rowid) FROM kept)",
        &["not from the log: shop='b', pieces=4, "],
    ),
    change(
        "means",
        "UPDATE means SET mean = mean * 2 WHERE shop = 'a'",
        "UPDATE means SET mean = mean / 2 WHERE shop = 'a'",
        &["shop='a': the sink has mean="],
    ),
    change(
        "means",
        "UPDATE means_state SET mean_sum = mean_sum * 2 WHERE shop = 'a'",
        "UPDATE means_state SET mean_sum = mean_sum / 2 WHERE shop = 'a'",
        &["readers see shop='a' with mean="],
    ),
];

struct Audited {
    pipeline: Pipeline,
    systems: Systems,
    folder: tempfile::TempDir,
    postgres: Option<tokio_postgres::Client>,
}

impl Audited {
    async fn new(url: Option<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pipeline = Pipeline::parse(PIPELINE, &folder.path().join("pipeline.yaml")).unwrap();
        let mut connections =
            Connections::read(&Env::of(url.clone().map(|url| ("MILLSTREAM_POSTGRES_URL", url)))).unwrap();
        connections.data_dir = folder.path().to_owned();
        let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
        systems.create_topics(&pipeline).await.unwrap();
        let postgres = match url {
            Some(url) => {
                let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
                tokio::spawn(connection);
                Some(client)
            }
            None => None,
        };
        let this = Self { pipeline, systems, folder, postgres };
        this.fill().await;
        this
    }

    async fn fill(&self) {
        let record = |number: i64| {
            let shop = ["a", "b", "null"][number as usize % 3];
            let (weight, buyer) = (number as f64 / 4.0, number % 7);
            let value = format!(
                r#"{{"shop":"{shop}","pieces":{number},"price":"{}.25","weight":{weight},"buyer":"{buyer}"}}"#,
                number / 10
            );
            NewRecord { value: Some(value.into_bytes()), partition: Some((number % 2) as i32), ..NewRecord::default() }
        };
        let bad = NewRecord { value: Some(b"{".to_vec()), partition: Some(0), ..NewRecord::default() };
        let mut records: Vec<NewRecord> = (0..30).map(record).collect();
        records.push(bad);
        self.systems.producer(&self.pipeline.topics["sale"]).unwrap().send("sale", records).await.unwrap();
        for name in FUNCTIONS {
            let function = self.systems.function(&self.pipeline, name).await.unwrap();
            function.drain(self.systems.source().as_ref()).await.unwrap();
        }
    }

    async fn audit(&self, name: &str) -> AuditReport {
        audit(&self.systems, &self.pipeline, name).await.unwrap()
    }

    async fn is_clean(&self, after: &str) {
        for name in FUNCTIONS {
            let report = self.audit(name).await;
            assert!(report.is_clean() && report.dead_letters == 1, "{name}, after {after}: {report:?}");
        }
    }

    /// Runs a statement in the store of the tables.
    async fn execute(&self, sql: &str) {
        match &self.postgres {
            Some(client) => client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")),
            None => self.execute_embedded(sql),
        }
    }

    fn execute_embedded(&self, sql: &str) {
        let store = rusqlite::Connection::open(self.folder.path().join("millstream.db")).unwrap();
        let changed = store.execute(sql, []).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert!(changed > 0, "{sql}");
    }

    /// Audits after a change: every finding begins as it should, and there are no others.
    async fn finds(&self, name: &str, change: &str, finds: &[&str]) {
        let report = self.audit(name).await;
        let mut found: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
        if finds.iter().all(|wanted| !wanted.starts_with("readers")) {
            // What was changed in a state shows in what readers see of it too.
            found.retain(|found| !found.starts_with("readers"));
        }
        found.sort();
        let fits = found.len() == finds.len() && found.iter().zip(finds).all(|(found, finds)| found.starts_with(finds));
        assert!(fits, "{name}, {change}\n  found:  {found:?}\n  wanted: {finds:?}");
    }

    /// Does an audit of half the keys find a change? Whatever it finds, an audit of all finds too.
    async fn finds_by_sample(&self, name: &str, change: &str, seed: u64) -> bool {
        let all = self.audit(name).await;
        let sample = Some(AuditSample { share: 0.5, seed });
        let options = AuditOptions { sample, ..AuditOptions::default() };
        let part = audit_part(&self.systems, &self.pipeline, name, options, &mut |_| ()).await.unwrap();
        let is_known = |found: &Difference| all.differences.contains(found);
        assert!(part.differences.iter().all(is_known), "{name}, {change}: {part:?}");
        assert!(part.notes.iter().any(|note| note.contains("Nothing is known of the others")), "{part:?}");
        !part.is_clean()
    }

    async fn letters(&self) {
        let position = TopicPartition::new("sale", 1, 1).at(3);
        for name in FUNCTIONS {
            let function = format!("audited.{name}");
            let letter = DeadLetter {
                function: function.clone(),
                position: position.clone(),
                timestamp_ms: 0,
                key: None,
                value: None,
                headers: Vec::new(),
                value_bytes: 0,
                reason: "nobody knows".into(),
            };
            self.systems.dead_letters(&self.pipeline).put(&[letter]).await.unwrap();
            self.finds(name, "a letter too many", &["record sale/1/1/3 is a dead letter (\u{201c}nobody knows"]).await;
            self.execute_embedded(&format!(
                "DELETE FROM millstream_dead_letters WHERE function = '{function}' AND partition = 1"
            ));
            self.is_clean("a letter too many").await;
        }
        self.execute_embedded("DELETE FROM millstream_dead_letters");
        for name in FUNCTIONS {
            self.finds(name, "a letter is missing", &["record sale/1/0/15 is neither a row nor a dead letter"]).await;
        }
    }

    async fn files(&self) {
        let mut files = Vec::new();
        find_files(&self.folder.path().join("lake"), &mut files);
        files.sort();
        let [one, other] = &files[..] else { panic!("two partitions, two files: {files:?}") };
        let (kept, first) = (std::fs::read(one).unwrap(), std::fs::read(other).unwrap());
        std::fs::remove_file(one).unwrap();
        assert_eq!(self.audit("files").await.total_differences, 15, "missing rows");
        std::fs::write(one, &first).unwrap();
        let report = self.audit("files").await;
        assert_eq!(report.total_differences, 30, "15 missing rows, 15 rows twice");
        std::fs::write(one, &kept).unwrap();
        self.is_clean("files were put back").await;
    }
}

fn find_files(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(path);
        }
    }
}

async fn every_change_is_found(world: &Audited, changes: impl IntoIterator<Item = &Change>) {
    world.is_clean("the start").await;
    let (mut found, mut missed) = (0, 0);
    for Change { function, makes, undoes, finds } in changes {
        let view = match &world.postgres {
            Some(client) if undoes.is_empty() => {
                let found = client.query_one("SELECT pg_get_viewdef('means'::regclass)", &[]).await.unwrap();
                format!("CREATE OR REPLACE VIEW means AS {}", found.get::<_, String>(0))
            }
            _ => (*undoes).to_owned(),
        };
        world.execute(makes).await;
        world.finds(function, makes, finds).await;
        for seed in 0..4 {
            let is_in_sample = world.finds_by_sample(function, makes, seed).await;
            found += u32::from(is_in_sample);
            missed += u32::from(!is_in_sample);
        }
        world.execute(&view).await;
        world.is_clean(makes).await;
    }
    assert!(found > 5 && missed > 5, "{found} changes are in samples of a half, {missed} aren't");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_an_embedded_table_is_found() {
    let world = Audited::new(None).await;
    every_change_is_found(&world, EVERYWHERE.iter().chain(&EMBEDDED)).await;
    world.files().await;
    world.letters().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_postgres_table_is_found() {
    let Store::Services { direct, .. } = Store::services("audit").await else {
        unreachable!("services were asked for")
    };
    let world = Audited::new(Some(direct)).await;
    every_change_is_found(&world, EVERYWHERE.iter().chain(&POSTGRES)).await;
}
