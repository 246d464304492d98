use millstream_core::{NewRecord, SystemClock};

use super::*;

const TEXT: &str = "name: p\ntopics: { t: { partitions: 1, schema: { a: bigint } } }\nfunctions:\n  \
                    f: { uses: archive, from: t, into: lake.f }\n  \
                    g: { uses: aggregate, from: t, sql: SELECT sum(a) AS a FROM t, into: postgres.g }\n";

fn open(folder: &tempfile::TempDir, settings: &[(&str, &str)], change: impl Fn(&mut Connections)) -> Systems {
    let pipeline = Pipeline::parse(TEXT, "p.yaml".as_ref()).unwrap();
    let mut connections = Connections::read(&Env::of(settings.iter().copied())).unwrap();
    connections.data_dir = folder.path().to_owned();
    change(&mut connections);
    Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap()
}

const BROKERS: (&str, &str) = ("MILLSTREAM_KAFKA_BROKERS", "127.0.0.1:9");

#[tokio::test]
async fn what_is_embedded_beside_a_kafka_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let described = |settings: &[(&str, &str)], group_prefix: &str| {
        let systems = open(&folder, settings, |connections| connections.group_prefix = group_prefix.to_owned());
        let described = systems.describe();
        assert_eq!(described.iter().map(|(what, _)| *what).collect::<Vec<_>>(), ["log", "tables", "lake"]);
        described.into_iter().map(|(_, place)| place).collect::<Vec<_>>()
    };
    let places = described(&[BROKERS], "dev.ann-laptop.");
    let [log, tables, lake] = &places[..] else { panic!("{places:?}") };
    assert!(log.contains("Kafka at 127.0.0.1:9") && log.contains("dev.ann-laptop."), "{log}");
    assert!(tables.ends_with("millstream.db (embedded, for MILLSTREAM_POSTGRES_URL is not set)"), "{tables}");
    assert!(lake.ends_with("lake (embedded, for MILLSTREAM_LAKE_URL is not set)"), "{lake}");
    let said = [BROKERS, ("MILLSTREAM_POSTGRES_URL", "embedded"), ("MILLSTREAM_LAKE_URL", "embedded")];
    for settings in [&said[..], &[]] {
        assert!(described(settings, "").iter().all(|place| !place.contains('(')), "{settings:?}");
    }
}

#[tokio::test]
async fn only_the_systems_of_the_function_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::parse(TEXT, "p.yaml".as_ref()).unwrap();
    let mut connections = Connections::read(&Env::of([BROKERS, ("MILLSTREAM_LAKE_URL", "gs://wrong")])).unwrap();
    connections.data_dir = folder.path().join("data");
    let open = |name: &str| {
        Systems::open_for(&pipeline, name, &connections, Arc::new(SystemClock))
            .map(|opened| opened.describe().into_iter().map(|(what, _)| what).collect::<Vec<_>>())
    };
    assert_eq!(open("g").unwrap(), ["log", "tables"]);
    assert!(open("f").unwrap_err().to_string().contains("MILLSTREAM_LAKE_URL"));
    assert!(!connections.lake_folder().exists());
}

#[tokio::test]
async fn a_trial_is_told_nothing_that_would_change_production() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("files").display().to_string();
    let lake = ("MILLSTREAM_LAKE_URL", files.as_str());
    let embedded = open(&folder, &[lake], |_| {});
    let pipeline = Pipeline::parse(TEXT, "p.yaml".as_ref()).unwrap();
    embedded.create_topics(&pipeline).await.unwrap();
    let record = NewRecord { value: Some(b"{\"a\":1}".to_vec()), ..NewRecord::default() };
    embedded.producer(&pipeline.topics["t"]).unwrap().send("t", vec![record]).await.unwrap();
    for name in ["f", "g"] {
        let function = embedded.function(&pipeline, name).await.unwrap();
        function.drain(embedded.source().as_ref()).await.unwrap();
    }
    let changed =
        TEXT.replace("sum(a)", "max(a)").replace("from: t, into: lake", "from: t, sql: SELECT a FROM t, into: lake");
    let changed = Pipeline::parse(&changed, "p.yaml".as_ref()).unwrap();
    for (is_trial, name, advice) in [
        (false, "f", "`millstream adopt f`"),
        (true, "f", "set MILLSTREAM_LAKE_URL to `embedded`"),
        (true, "g", "use another data folder (--data-dir)"),
    ] {
        let systems = open(&folder, &[BROKERS, lake], |connections| connections.embed_tables = is_trial);
        let said = systems.function(&changed, name).await.err().unwrap().to_string();
        assert!(said.contains("was filled by another plan") && said.contains(advice), "{said}");
        assert_eq!(said.contains(&format!("`millstream adopt {name}`")), !is_trial, "{said}");
    }
}

#[tokio::test]
async fn a_function_needs_no_reference_that_it_does_not_join() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{TEXT}references: {{ r: {{ from: lake.nowhere.parquet, schema: {{ a: bigint }} }} }}\n");
    let pipeline = Pipeline::parse(&text, "p.yaml".as_ref()).unwrap();
    let mut connections = Connections::read(&Env::default()).unwrap();
    connections.data_dir = folder.path().to_owned();
    let systems = Systems::open_for(&pipeline, "g", &connections, Arc::new(SystemClock)).unwrap();
    systems.create_topics(&pipeline).await.unwrap();
    assert!(systems.function(&pipeline, "g").await.unwrap().references.is_empty());
}

#[tokio::test]
async fn a_trial_embeds_tables_next_to_a_log_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let home = |settings: &[(&str, &str)]| {
        let systems = open(&folder, settings, |connections| connections.embed_tables = true);
        systems.home(System::Postgres).cloned()
    };
    let postgres = ("MILLSTREAM_POSTGRES_URL", "postgres://me@127.0.0.1:9/x");
    assert_eq!(home(&[BROKERS, postgres]), Some(Home::Database));
    assert_eq!(home(&[postgres]), Some(Home::Connected));
}
