//! What the SQL crate says in PostgreSQL's dialect is what it computes itself: every aggregate through a view, with the
//! tables in PostgreSQL and embedded.

use std::{path::Path, sync::Arc};

use millstream_assembly::{Systems, schema_of, texts};
use millstream_core::{NewRecord, SystemClock};
use millstream_pipeline::{Connections, Pipeline, Secret};
use millstream_tests::Store;

const PIPELINE: &str = r#"
name: views
topics:
  trade:
    partitions: 2
    schema: { symbol: string, price: "decimal(18,4)", pieces: bigint, weight: double, at: timestamp not null }
    event_time: at
functions:
  all:
    uses: aggregate
    from: trade
    batch: { max_records: 7 }
    sql: |
      SELECT hop(at, INTERVAL '5 seconds', INTERVAL '10 seconds') AS since, symbol,
             avg(price) AS mean, avg(pieces) AS mean_pieces, stddev(weight) AS sd, var_pop(weight) AS spread,
             first_value(price) AS opened, last_value(price) AS closed, max(price) - min(price) AS range,
             sum(pieces) * 2 AS double, count(*) AS trades, bool_and(pieces > 3) AS big, approx_distinct(pieces) AS sizes,
             sum(price) FILTER (WHERE pieces > 5) AS large, max(symbol) AS last_symbol
      FROM trade WHERE weight IS NOT NULL GROUP BY 1, 2 HAVING count(*) > 2 AND max(pieces) >= 1
    into: postgres.trades
"#;

async fn rows(folder: &Path, postgres_url: Option<String>) -> Vec<String> {
    std::fs::create_dir_all(folder).unwrap();
    let pipeline = Pipeline::parse(PIPELINE, &folder.join("pipeline.yaml")).unwrap();
    let mut connections = Connections::read(&|_| None).unwrap();
    connections.data_dir = folder.to_owned();
    connections.postgres_url = postgres_url.clone().map(Secret::new);
    let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
    systems.create_topics(&pipeline).await.unwrap();
    let record = |number: i64| {
        let symbol = ["null", "\"A\"", "\"B\"", "\"Ü\""][number as usize % 4];
        let (cents, pieces, weight) = (number * 37 % 1_000, number * 13 % 11, (number * 7 % 64) as f64 / 8.0);
        let at = format!("2026-11-21T10:{:02}:{:02}.5Z", number / 60 % 60, number % 60);
        let value = format!(
            r#"{{"symbol":{symbol},"price":"{}.{:02}","pieces":{pieces},"weight":{weight},"at":"{at}"}}"#,
            cents / 100,
            cents % 100
        );
        NewRecord { value: Some(value.into_bytes()), partition: Some((number % 2) as i32), ..NewRecord::default() }
    };
    systems.producer(&pipeline.topics["trade"]).unwrap().send("trade", (0..200).map(record).collect()).await.unwrap();
    let function = systems.function(&pipeline, "all").await.unwrap();
    function.drain(systems.source().as_ref()).await.unwrap();
    let report = millstream_assembly::audit(&systems, &pipeline, "all").await.unwrap();
    assert!(report.is_clean() && report.dead_letters == 0, "{report:?}");
    let schema = schema_of(&function.table);
    let shown = match postgres_url {
        Some(url) => {
            let pool = millstream_postgres::pool(&url, 1).unwrap();
            millstream_postgres::read_table(&pool, "trades", &schema).await.unwrap()
        }
        None => systems.embedded().unwrap().read_table("trades", schema).await.unwrap(),
    };
    let mut lines = Vec::new();
    for batch in &shown {
        let columns = texts(batch).unwrap();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|column| rounded(&column[row])).collect();
            lines.push(cells.join(" | "));
        }
    }
    lines.sort();
    lines
}

/// Fractions to 5 digits: PostgreSQL rounds the last one of a quotient where Arrow cuts it.
fn rounded(cell: &str) -> String {
    match (cell.contains('.'), cell.parse::<f64>()) {
        (true, Ok(number)) => format!("{number:.5}"),
        _ => cell.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_shows_the_same_in_postgres_and_embedded() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = rows(&folder.path().join("embedded"), None).await;
    let Store::Services { direct, .. } = Store::services("views").await else {
        unreachable!("services were asked for")
    };
    let postgres = rows(&folder.path().join("postgres"), Some(direct)).await;
    assert!(embedded.len() > 50, "{} rows", embedded.len());
    assert_eq!(postgres, embedded);
}
