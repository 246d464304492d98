//! Healthy tables of statements that are hard to compute in another way, and wrong ones that are hard to see.

use millstream_core::{NewRecord, SOURCE_HEADER};

use super::World;

/// A pipeline with one function.
fn pipeline(sql: &str) -> String {
    format!(
        "
name: shop
topics:
  sales: {{ partitions: 2, schema: {{ shop: string, buyer: string, n: bigint, x: double, amount: 'decimal(38,18)' }} }}
  others: {{ partitions: 1, schema: {{ shop: string }} }}
functions:
  f: {{ uses: aggregate, from: [sales, others], into: postgres.t, sql: \"{sql}\" }}
"
    )
}

const SALES: [&str; 6] = [
    r#"{"shop":"a","buyer":"x","n":0,"x":10,"amount":"90000000000000000000.000000000000000001"}"#,
    r#"{"shop":"a","buyer":"y","n":2,"x":1000,"amount":"90000000000000000000"}"#,
    r#"{"shop":"b","buyer":"x","n":3,"x":2000000000,"amount":"1"}"#,
    r#"{"shop":"b","buyer":"x","n":5,"x":1,"amount":"2"}"#,
    r#"{"shop":"c","buyer":"x","n":null,"x":1e16,"amount":null}"#,
    r#"{"shop":"c","buyer":"x","n":1,"x":-1e16,"amount":null}"#,
];

async fn world(sql: &str) -> World {
    let world = World::of(&pipeline(sql)).await;
    world.send("sales", 0, &SALES[..3]).await;
    world.send("sales", 1, &SALES[3..]).await;
    world.run("f").await;
    world
}

#[tokio::test]
async fn a_healthy_table_has_no_difference() {
    for sql in [
        // A side of AND that fails for a record is computed for it only beside others.
        "SELECT shop, n FROM sales WHERE n <> 0 AND 10 / n > 1",
        "SELECT shop, count(*) AS c FROM sales WHERE n = 0 OR 10 / n > 1 GROUP BY 1",
        "SELECT sum(x) AS a, sum(x) AS b, sum(x) + 1 AS c FROM sales",
        "SELECT buyer, sum(x) - sum(x / 3.0) * 3 AS zero, avg(x) / sum(x) - 1.0 / count(*) AS share FROM sales GROUP BY 1",
        "SELECT shop, avg(amount) AS mean FROM sales GROUP BY shop",
        "SELECT sum(x) AS s FROM sales GROUP BY shop, buyer",
        "SELECT k, count(*) AS c FROM (SELECT shop AS k FROM sales UNION ALL SELECT buyer AS k FROM sales) AS u GROUP BY 1",
        "SELECT count(*) AS c FROM sales WHERE false",
    ] {
        let world = world(sql).await;
        let report = world.audit("f").await;
        assert!(report.is_clean(), "{sql}: {report:?}");
        assert_eq!(report.records, 6, "{sql}");
    }
}

#[tokio::test]
async fn a_table_without_records_is_empty() {
    let world = World::of(&pipeline("SELECT count(*) AS c FROM sales")).await;
    world.run("f").await;
    let report = world.audit("f").await;
    assert!(report.is_clean() && report.rows == 0, "{report:?}");
}

#[tokio::test]
async fn a_wrong_number_is_not_taken_for_rounding() {
    let world = world("SELECT shop, sum(x) AS s FROM sales GROUP BY shop, buyer").await;
    assert_eq!(world.found("f").await, [""; 0]);
    // Another row of the shop has another sum; the last record of b was small.
    for (shop, is, wrong) in [("a", "1000", "1001"), ("b", "2000000001", "2000000002")] {
        let set = |from: &str, to: &str| format!("UPDATE t SET s = {to} WHERE shop = '{shop}' AND s = {from}");
        world.tamper(&set(is, wrong));
        let found = world.found("f").await;
        // What readers see doesn't fit the states either.
        let of_log: Vec<_> = found.iter().filter(|found| !found.starts_with("readers")).collect();
        assert_eq!(of_log.len(), 1, "{shop}: {found:?}");
        world.tamper(&set(wrong, is));
        assert_eq!(world.found("f").await, [""; 0]);
    }
}

#[tokio::test]
async fn records_of_a_topic_that_is_not_read_are_not_lost() {
    let world = world("SELECT shop FROM sales").await;
    world.send("others", 0, &["{"]).await;
    world.run("f").await;
    assert_eq!(world.audit("f").await.dead_letters, 1);
    world.tamper("DELETE FROM millstream_dead_letters");
    let found = world.found("f").await;
    assert!(found.len() == 1 && found[0].starts_with("record others/1/0/0 is neither"), "{found:?}");
}

#[tokio::test]
async fn records_that_a_statement_gives_up_on_are_looked_at() {
    let sql = "SELECT c.city, count(*) AS c FROM sales s JOIN cities c ON s.buyer = c.buyer GROUP BY 1";
    let references = "references:\n  cities: { file: cities.csv, schema: { buyer: string, city: string } }\n";
    let world = World::of(&(pipeline(sql) + references)).await;
    // A join with an empty table reads none of the other one.
    std::fs::write(world.folder.path().join("cities.csv"), "buyer,city\n").unwrap();
    world.send("sales", 0, &SALES[..3]).await;
    world.send("sales", 1, &["{"]).await;
    world.run("f").await;
    let report = world.audit("f").await;
    assert!(report.is_clean() && report.records == 4 && report.dead_letters == 1, "{report:?}");
    world.tamper("DELETE FROM millstream_dead_letters");
    let found = world.found("f").await;
    assert!(found.len() == 1 && found[0].starts_with("record sales/1/1/0 is neither"), "{found:?}");
}

#[tokio::test]
async fn differences_beside_neighbours_that_fail_are_found() {
    let only = "WHERE n <> 0 AND 10 / n > 1 GROUP BY 1";
    let sums = world(&format!("SELECT shop, sum(x) AS s FROM sales {only}")).await;
    assert_eq!(sums.found("f").await, [""; 0]);
    sums.tamper("UPDATE t SET s = s + 1 WHERE shop = 'b'");
    let found = sums.found("f").await;
    assert!(found.len() == 1 && found[0].starts_with("shop='b': "), "{found:?}");

    let refused = world(&format!("SELECT shop, sum(10 / (n - 5)) AS s FROM sales {only}")).await;
    assert_eq!(refused.audit("f").await.dead_letters, 1);
    refused.tamper("DELETE FROM millstream_dead_letters");
    let found = refused.found("f").await;
    assert!(found.len() == 1 && found[0].starts_with("record sales/1/1/0 is neither"), "{found:?}");
}

#[tokio::test]
async fn headers_that_somebody_has_copied_mean_nothing() {
    let world = World::of(&pipeline("SELECT shop, n FROM sales")).await;
    let record = |value: &&str| NewRecord {
        value: Some(value.as_bytes().to_vec()),
        headers: vec![(SOURCE_HEADER.to_owned(), b"elsewhere/1/0/5/0".to_vec())],
        partition: Some(0),
        ..NewRecord::default()
    };
    let records = SALES.iter().map(record).collect();
    world.systems.producer(&world.pipeline.topics["sales"]).unwrap().send("sales", records).await.unwrap();
    world.run("f").await;
    let report = world.audit("f").await;
    assert!(report.is_clean() && report.rows == 6, "no function of the file writes this topic: {report:?}");
}
