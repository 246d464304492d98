//! An archive in a PostgreSQL table: rows that are appended, each once, while two processes write them.

use std::{path::Path, sync::Arc};

use millstream_assembly::{Connections, Function, Systems};
use millstream_core::{Env, NewRecord, SystemClock};
use millstream_pipeline::Pipeline;
use millstream_tests::Store;

const PIPELINE: &str = r#"
name: kept
topics:
  trade:
    partitions: 2
    schema: { number: bigint not null, tags: [string] }
functions:
  keep: { uses: archive, from: topic.trade, into: postgres.trades, batch: { max_records: 7 } }
"#;

const RECORDS: i64 = 400;

struct Trades {
    pipeline: Pipeline,
    systems: Systems,
}

impl Trades {
    async fn open(folder: &Path, postgres_url: String) -> Self {
        let pipeline = Pipeline::parse(PIPELINE, &folder.join("pipeline.yaml")).unwrap();
        let mut connections = Connections::read(&Env::of([("MILLSTREAM_POSTGRES_URL", postgres_url)])).unwrap();
        connections.data_dir = folder.to_owned();
        let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
        systems.create_topics(&pipeline).await.unwrap();
        let record = |number: i64| NewRecord {
            value: Some(format!(r#"{{"number":{number},"tags":["a","b"]}}"#).into_bytes()),
            partition: Some((number % 2) as i32),
            ..NewRecord::default()
        };
        let records = (0..RECORDS).map(record).collect();
        systems.producer(&pipeline.topics["trade"]).unwrap().send("trade", records).await.unwrap();
        Self { pipeline, systems }
    }

    async fn start(&self) -> Function {
        self.systems.function(&self.pipeline, "keep").await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_table_holds_every_record_once() {
    let folder = tempfile::tempdir().unwrap();
    let Store::Services { direct, .. } = Store::services("archive").await else {
        unreachable!("services were asked for")
    };
    let trades = Trades::open(folder.path(), direct.clone()).await;
    let log = trades.systems.source();
    let (one, other) = (trades.start().await, trades.start().await);
    let (one, other) = tokio::join!(one.drain(log.as_ref()), other.drain(log.as_ref()));
    one.unwrap();
    other.unwrap();
    let client = millstream_tests::postgres_client(&direct).await;
    let row = client
        .query_one("SELECT count(*), count(DISTINCT number), count(DISTINCT (_partition, _offset)) FROM trades", &[])
        .await
        .unwrap();
    assert_eq!([row.get(0), row.get(1), row.get::<_, i64>(2)], [RECORDS; 3]);
    let report = millstream_assembly::audit(&trades.systems, &trades.pipeline, "keep").await.unwrap();
    assert!(report.is_clean() && report.dead_letters == 0, "{report:?}");
}
