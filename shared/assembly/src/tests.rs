//! Whole pipelines, with everything embedded.

mod appended;

use std::sync::Arc;

use millstream_core::{Env, NewRecord, SystemClock};
use millstream_pipeline::Pipeline;

use crate::{Connections, Function, Systems, audit, run_fixtures, texts};

const PIPELINE: &str = r#"
name: shop
topics:
  orders:
    partitions: 1
    schema: { product: string not null, at: timestamp not null, tags: [ boolean ] }
    event_time: at
functions:
  daily:
    uses: aggregate
    from: orders
    late: dead-letter
    lateness: 1m
    sql: |
      SELECT tumble(at, INTERVAL '1 day') AS day, count(*) AS orders, sum(array_length(tags)) AS tags
      FROM orders GROUP BY 1
    into: postgres.daily
tests:
  - given: { orders: orders.jsonl }
    expect: { postgres.daily: daily.csv }
"#;

struct Shop {
    _folder: tempfile::TempDir,
    pipeline: Pipeline,
    systems: Systems,
    function: Function,
}

impl Shop {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pipeline.yaml"), PIPELINE).unwrap();
        let given = ["1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z"].map(|at| order(at, ""));
        std::fs::write(folder.path().join("orders.jsonl"), given.join("\n")).unwrap();
        std::fs::write(folder.path().join("daily.csv"), "day,orders\n2999-01-01T00:00:00Z,1\n1970-01-01T00:00:00Z,1\n")
            .unwrap();
        let pipeline = Pipeline::load(folder.path()).unwrap();
        let mut connections = Connections::read(&Env::default()).unwrap();
        connections.data_dir = folder.path().join("data");
        let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
        systems.create_topics(&pipeline).await.unwrap();
        let function = systems.function(&pipeline, "daily").await.unwrap();
        Self { _folder: folder, pipeline, systems, function }
    }

    async fn order(&self, at: &str, tags: &str, timestamp_ms: Option<i64>) {
        let order = record(at, tags, timestamp_ms);
        self.systems.producer(&self.pipeline.topics["orders"]).unwrap().send("orders", vec![order]).await.unwrap();
    }

    /// The day and the number of orders of each row of the table.
    async fn days(&self) -> Vec<(String, String)> {
        let rows = self.function.runner.sink().snapshot().await.unwrap().rows;
        let columns: Vec<_> = rows.iter().map(|rows| texts(rows).unwrap()).collect();
        let mut days: Vec<_> =
            columns.iter().flat_map(|columns| columns[0].iter().cloned().zip(columns[1].iter().cloned())).collect();
        days.sort();
        days
    }
}

fn record(at: &str, tags: &str, timestamp_ms: Option<i64>) -> NewRecord {
    NewRecord { value: Some(order(at, tags).into_bytes()), timestamp_ms, ..NewRecord::default() }
}

/// An order as JSON.
fn order(at: &str, tags: &str) -> String {
    format!(r#"{{"product":"tea","at":"{at}","tags":[{tags}]}}"#)
}

/// 2026-01-01, at noon.
const NOW_MS: i64 = 1_767_268_800_000;

#[tokio::test]
async fn one_wrong_clock_makes_nothing_late_and_the_audit_agrees() {
    let shop = Shop::open().await;
    for at in ["2026-01-01T11:59:00Z", "2999-01-01T00:00:00Z", "2026-01-02T11:59:00Z", "2026-01-02T12:00:01Z"] {
        shop.order(at, "", Some(NOW_MS)).await;
    }
    // Late, compared with the newest event time that counts.
    shop.order("2026-01-02T11:57:59Z", "", Some(NOW_MS)).await;
    shop.order("2026-01-02T11:58:59Z", "", None).await;
    shop.function.drain(shop.systems.source().as_ref()).await.unwrap();
    let day = |day: &str, orders: &str| (format!("2026-01-0{day}T00:00:00Z"), orders.to_owned());
    assert_eq!(shop.days().await, [day("1", "1"), day("2", "2")]);
    let letters = shop.systems.dead_letters(&shop.pipeline).list(Some("shop.daily"), 10).await.unwrap();
    let mut reasons: Vec<_> = letters.iter().map(|letter| &letter.reason[..5]).collect();
    reasons.sort();
    assert_eq!(reasons, ["ahead", "ahead", "late:"]);
    let report = audit(&shop.systems, &shop.pipeline, "daily").await.unwrap();
    assert!(report.is_clean() && report.dead_letters == 3, "{report:?}");
}

/// Records of a file get their event time as timestamp, so that a test may use any time.
#[tokio::test]
async fn fixtures_may_have_any_time() {
    let shop = Shop::open().await;
    let reports = run_fixtures(&shop.pipeline).await.unwrap();
    assert_eq!(reports[0].differences, [""; 0]);
}

/// More list items than a decoded batch may hold: function and audit split the batch.
#[tokio::test]
async fn a_batch_with_too_many_list_items_goes_through_in_parts() {
    let shop = Shop::open().await;
    let tags = format!("{}true", "true,".repeat(799_999));
    for _ in 0..3 {
        shop.order("2026-01-01T11:59:00Z", &tags, Some(NOW_MS)).await;
    }
    shop.function.drain(shop.systems.source().as_ref()).await.unwrap();
    assert_eq!(shop.days().await.len(), 1);
    let report = audit(&shop.systems, &shop.pipeline, "daily").await.unwrap();
    assert!(report.is_clean() && report.dead_letters == 0 && report.records == 3, "{report:?}");
}
