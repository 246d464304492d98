//! An archive writes to every system that appends rows, not only to the lake.

use millstream_core::TopicPartition;
use millstream_pipeline::Diagnostic;

use super::*;
use crate::plan_function;

const ARCHIVE: &str = r#"
name: shop
topics:
  orders:
    partitions: 1
    schema: { product: string not null, at: timestamp not null, tags: [ boolean ] }
    event_time: at
functions:
  keep: { uses: archive, from: topic.orders, into: postgres.kept }
"#;

async fn open(folder: &std::path::Path) -> (Pipeline, Systems) {
    let pipeline = Pipeline::parse(ARCHIVE, &folder.join("pipeline.yaml")).unwrap();
    let mut connections = Connections::read(&Env::default()).unwrap();
    connections.data_dir = folder.join("data");
    let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
    systems.create_topics(&pipeline).await.unwrap();
    (pipeline, systems)
}

async fn order(pipeline: &Pipeline, systems: &Systems, at: &str) {
    let order = record(at, "true", Some(NOW_MS));
    systems.producer(&pipeline.topics["orders"]).unwrap().send("orders", vec![order]).await.unwrap();
}

/// The offsets of the rows.
async fn offsets(function: &Function) -> Vec<String> {
    let rows = function.runner.sink().snapshot().await.unwrap().rows;
    let at = function.table.columns.iter().position(|column| column.name == "_offset").unwrap();
    let mut offsets: Vec<String> = rows.iter().flat_map(|rows| texts(rows).unwrap()[at].clone()).collect();
    offsets.sort();
    offsets
}

#[tokio::test]
async fn a_table_holds_every_record_once() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, systems) = open(folder.path()).await;
    let log = systems.source();
    // An archive keeps a record of any time.
    for at in ["2026-01-01T11:59:00Z", "2999-01-01T00:00:00Z", "soon"] {
        order(&pipeline, &systems, at).await;
    }
    let function = systems.function(&pipeline, "keep").await.unwrap();
    function.drain(log.as_ref()).await.unwrap();
    assert_eq!(offsets(&function).await, ["0", "1"]);
    // The host delivers again, and another process starts.
    let partition = TopicPartition::new("orders", 1, 0);
    let again = log.read(&partition, 0..3, function.subscription.limits).await.unwrap();
    assert_eq!(function.runner.process(again).await.unwrap(), 3);
    order(&pipeline, &systems, "2026-01-01T12:00:00Z").await;
    let restarted = systems.function(&pipeline, "keep").await.unwrap();
    restarted.drain(log.as_ref()).await.unwrap();
    let late = log.read(&partition, 2..4, function.subscription.limits).await.unwrap();
    assert_eq!(function.runner.process(late).await.unwrap(), 4);
    assert_eq!(offsets(&restarted).await, ["0", "1", "3"]);
    let report = audit(&systems, &pipeline, "keep").await.unwrap();
    assert!(report.is_clean() && report.rows == 3 && report.dead_letters == 1, "{report:?}");
}

/// Plans the function with another beginning of its description.
async fn planned(beginning: &str) -> Result<(), Diagnostic> {
    let text = ARCHIVE.replace("{ uses: archive, from: topic.orders,", beginning);
    let pipeline = Pipeline::parse(&text, "pipeline.yaml".as_ref()).unwrap();
    plan_function(&pipeline, "keep").await.map(drop)
}

#[tokio::test]
async fn only_a_kind_that_merges_rows_can_have_aggregates() {
    let sql = "sql: 'SELECT product, count(*) AS n FROM orders GROUP BY 1',";
    let refused = planned(&format!("{{ uses: archive, from: orders, {sql}")).await.unwrap_err();
    let why = "function `keep`: aggregates merge into rows that are there, and a function that uses `archive` appends rows: \
               use `aggregate`";
    assert_eq!((refused.line, refused.message.as_str()), (9, why));
    planned(&format!("{{ uses: aggregate, from: orders, {sql}")).await.unwrap();
}
