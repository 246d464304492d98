//! References as rows of a table, joined and refreshed, with everything embedded.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod audit;

use std::{path::Path, sync::Arc, time::Duration};

use millstream_assembly::{Connections, Systems, audit, texts};
use millstream_core::{Env, NewRecord, SystemClock};
use millstream_pipeline::Pipeline;

const PIPELINE: &str = r#"
name: shop
topics:
  orders:
    partitions: 1
    schema: { product: string not null, pieces: bigint not null }
functions:
  named:
    uses: aggregate
    from: orders
    sql: |
      SELECT p.title, sum(o.pieces) AS pieces FROM orders o LEFT JOIN products p ON p.product = o.product GROUP BY 1
    into: postgres.named
references:
  products: { file: products.csv, refresh: 1s, schema: { product: string, title: string } }
"#;

fn write_products(folder: &Path, title: &str) {
    std::fs::write(folder.join("products.csv"), format!("product,title\nt,{title}\n")).unwrap();
}

async fn order(systems: &Systems, pipeline: &Pipeline, product: &str) {
    let value = format!(r#"{{"product":"{product}","pieces":2}}"#).into_bytes();
    let record = NewRecord { value: Some(value), ..NewRecord::default() };
    systems.producer(&pipeline.topics["orders"]).unwrap().send("orders", vec![record]).await.unwrap();
}

#[tokio::test]
async fn a_reference_is_joined_and_reloaded() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pipeline.yaml"), PIPELINE).unwrap();
    write_products(folder.path(), "Tea");
    let pipeline = Pipeline::load(folder.path()).unwrap();
    let mut connections = Connections::read(&Env::default()).unwrap();
    connections.data_dir = folder.path().join("data");
    let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
    systems.create_topics(&pipeline).await.unwrap();

    order(&systems, &pipeline, "t").await;
    order(&systems, &pipeline, "unknown").await;
    let function = systems.function(&pipeline, "named").await.unwrap();
    let source = systems.source();
    function.drain(source.as_ref()).await.unwrap();
    let titles = || async {
        let rows = function.runner.sink().snapshot().await.unwrap().rows;
        let mut titles: Vec<String> = rows.iter().flat_map(|rows| texts(rows).unwrap().remove(0)).collect();
        titles.sort();
        titles
    };
    assert_eq!(titles().await, ["Tea", "null"]);
    assert!(audit(&systems, &pipeline, "named").await.unwrap().is_clean());

    write_products(folder.path(), "Green tea");
    for _ in 0..100 {
        order(&systems, &pipeline, "t").await;
        function.drain(source.as_ref()).await.unwrap();
        if titles().await.contains(&"Green tea".to_owned()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the reference was not reloaded within 10 s");
}

/// A CSV file of the lake is read by the lake's store, and by the same rules as one next to the pipeline file.
#[tokio::test]
async fn a_csv_file_of_the_lake_is_joined() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    std::fs::create_dir_all(lake.join("lists")).unwrap();
    write_products(&lake.join("lists"), "Tea");
    let text = PIPELINE.replace("file: products.csv", "from: lake.lists/products.csv");
    let pipeline = Pipeline::parse(&text, &folder.path().join("pipeline.yaml")).unwrap();
    let env = Env::of([("MILLSTREAM_LAKE_URL", format!("file://{}", lake.display()))]);
    let mut connections = Connections::read(&env).unwrap();
    connections.data_dir = folder.path().join("data");
    let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
    systems.create_topics(&pipeline).await.unwrap();
    order(&systems, &pipeline, "t").await;
    let function = systems.function(&pipeline, "named").await.unwrap();
    function.drain(systems.source().as_ref()).await.unwrap();
    let rows = function.runner.sink().snapshot().await.unwrap().rows;
    assert_eq!(texts(&rows[0]).unwrap()[0], ["Tea"]);

    std::fs::write(lake.join("lists/products.csv"), "product\nt\n").unwrap();
    let refused = systems.function(&pipeline, "named").await.err().unwrap().to_string();
    assert!(refused.contains("lists/products.csv:1: there is no column `title`"), "{refused}");
    std::fs::remove_file(lake.join("lists/products.csv")).unwrap();
    let refused = systems.function(&pipeline, "named").await.err().unwrap().to_string();
    assert!(refused.contains("there is no file at lists/products.csv"), "{refused}");
}
