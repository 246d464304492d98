//! Audits of a part of a table: a sample of the keys, or rows that are made only of newer records.

use millstream_assembly::{AuditOptions, AuditReport, AuditSample, audit_part};
use millstream_core::{NewRecord, Result};
use millstream_embedded::Embedded;

use super::{Arc, SystemClock, World};

/// 2026-01-01.
const DAY_MS: i64 = 1_767_225_600_000;
const HOUR_MS: i64 = 3_600_000;

impl World {
    async fn part(&self, name: &str, options: AuditOptions) -> Result<AuditReport> {
        audit_part(&self.systems, &self.pipeline, name, options, &mut |_| ()).await
    }

    async fn sample(&self, name: &str, share: f64, seed: u64) -> AuditReport {
        let sample = Some(AuditSample { share, seed });
        self.part(name, AuditOptions { sample, ..AuditOptions::default() }).await.unwrap()
    }

    async fn since(&self, name: &str, since_ms: i64) -> Result<AuditReport> {
        self.part(name, AuditOptions { since_ms: Some(since_ms), ..AuditOptions::default() }).await
    }

    /// Sends values with the records' own timestamps.
    async fn send_at(&self, partition: i32, records: &[(i64, String)]) {
        let record = |(timestamp_ms, value): &(i64, String)| NewRecord {
            value: Some(value.as_bytes().to_vec()),
            timestamp_ms: Some(*timestamp_ms),
            partition: Some(partition),
            ..NewRecord::default()
        };
        let topic = &self.pipeline.topics["sales"];
        self.systems.producer(topic).unwrap().send("sales", records.iter().map(record).collect()).await.unwrap();
    }
}

const KEYS: &str = "
name: shop
topics:
  sales: { partitions: 2, schema: { shop: string, amount: double, price: 'decimal(9,2)', n: bigint } }
functions:
  byshop: { uses: aggregate, from: sales, sql: 'SELECT shop, sum(n) AS n FROM sales GROUP BY 1', into: postgres.byshop }
  byamount: { uses: aggregate, from: sales, sql: 'SELECT sum(n) AS n, amount, price, avg(n) AS m FROM sales GROUP BY 2, 3', into: postgres.byamount }
  kept: { uses: aggregate, from: sales, sql: 'SELECT shop, amount, n FROM sales', into: postgres.kept }
  all: { uses: aggregate, from: sales, sql: 'SELECT sum(n) AS n FROM sales', into: postgres.all }
";

const FILLED: [&str; 3] = ["byshop", "byamount", "kept"];

async fn keys() -> World {
    let world = World::of(KEYS).await;
    for partition in 0..2 {
        let value = |n: i32| {
            let shop = if n % 50 == 0 { "null".to_owned() } else { format!("\"s{}\"", n % 200) };
            let amount = if n % 40 == 0 { "-0.0".to_owned() } else { format!("{}", f64::from(n % 40) / 4.0) };
            format!(r#"{{"shop":{shop},"amount":{amount},"price":"{}.50","n":{n}}}"#, n % 3)
        };
        let values: Vec<String> = (0..400).map(value).collect();
        world.send("sales", partition, &values.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    for name in FILLED {
        world.run(name).await;
    }
    world
}

#[tokio::test]
async fn a_sample_is_compared_exactly_and_nothing_else_is() {
    let world = keys().await;
    for name in FILLED {
        let all = world.audit(name).await;
        assert!(all.is_clean() && all.compared == all.rows, "{all:?}");
        for seed in 0..5 {
            let report = world.sample(name, 0.2, seed).await;
            assert!(report.is_clean() && report.records == 800 && report.rows == all.rows, "{report:?}");
            assert!(report.compared > 0 && report.compared < all.rows / 2, "{report:?}");
            let told = format!("a sample of 20% (seed {seed})");
            let how_many = format!("{} of {} rows", report.compared, report.rows);
            assert!(report.notes.iter().any(|note| note.contains(&told) && note.contains(&how_many)), "{report:?}");
        }
        assert_eq!(world.sample(name, 1.0, 9).await.compared, all.rows);
    }
    // A zero is the same key with either sign, wherever it comes from.
    world.tamper("UPDATE byamount SET amount = -0.0 WHERE amount = 0");
    for seed in 0..5 {
        assert!(world.sample("byamount", 0.3, seed).await.is_clean(), "{seed}");
    }
    // Each row is wrong: those of the sample are found, and another sample is of other rows.
    world.tamper("UPDATE byshop SET n = n + 1");
    let (first, again, other) = (
        world.sample("byshop", 0.2, 1).await,
        world.sample("byshop", 0.2, 1).await,
        world.sample("byshop", 0.2, 2).await,
    );
    assert_eq!((first.total_differences, &first.differences), (first.compared, &again.differences));
    assert_ne!(first.differences, other.differences);
}

#[tokio::test]
async fn a_row_in_the_sample_is_found_and_one_outside_is_not() {
    let world = keys().await;
    let (sample, mut inside, mut outside) = ((0.2, 3), 0, 0);
    for shop in (1..40).map(|shop| format!("s{shop}")) {
        world.tamper(&format!("UPDATE byshop SET n = n + 1 WHERE shop = '{shop}'"));
        match &world.sample("byshop", sample.0, sample.1).await.differences[..] {
            [] => outside += 1,
            [one] if one.to_string().starts_with(&format!("shop='{shop}': ")) => inside += 1,
            found => panic!("{shop}: {found:?}"),
        }
        world.tamper(&format!("UPDATE byshop SET n = n - 1 WHERE shop = '{shop}'"));
    }
    assert!(inside > 0 && outside > inside, "{inside} {outside}");
    // What is said of the records themselves is complete.
    world.send("sales", 0, &["{"]).await;
    world.run("byshop").await;
    world.tamper("DELETE FROM millstream_dead_letters");
    let report = world.sample("byshop", 0.001, 1).await;
    assert!(
        report.total_differences == 1 && report.differences[0].to_string().contains("is neither a row"),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_table_without_keys_has_no_sample() {
    let world = keys().await;
    world.run("all").await;
    let options = AuditOptions { sample: Some(AuditSample { share: 0.5, seed: 1 }), ..AuditOptions::default() };
    let error = world.part("all", options).await.unwrap_err().to_string();
    assert!(error.contains("table all shows no group") && error.contains("audit the whole table"), "{error}");
}

#[tokio::test]
async fn as_many_differences_are_kept_as_were_asked_for() {
    let world = keys().await;
    world.tamper("UPDATE byshop SET n = n + 1");
    let report = world.part("byshop", AuditOptions { limit: 3, ..AuditOptions::default() }).await.unwrap();
    assert_eq!((report.differences.len(), report.total_differences), (3, report.rows));
}

fn timed(sql: &str) -> String {
    format!(
        "
name: shop
topics:
  sales:
    partitions: 2
    schema: {{ shop: string, n: bigint, at: timestamp not null }}
    event_time: at
functions:
  f: {{ uses: aggregate, from: sales, ahead: 2h, into: postgres.t, sql: \"{sql}\" }}
"
    )
}

fn sale(shop: &str, n: i64, stamped_ms: i64, at_ms: i64) -> (i64, String) {
    let at = time(at_ms);
    (stamped_ms, format!(r#"{{"shop":"{shop}","n":{n},"at":"{at}"}}"#))
}

/// A time of 2026-01-01 as text.
fn time(ms: i64) -> String {
    let minutes = (ms - DAY_MS) / 60_000;
    format!("2026-01-01T{:02}:{:02}:00Z", minutes / 60, minutes % 60)
}

/// Twelve hours of records: each hour has one that is late, one in time, and one that is dated two hours ahead.
async fn day(sql: &str) -> World {
    let world = World::of(&timed(sql)).await;
    for partition in 0..2 {
        let hour = |hour: i64| {
            let stamped_ms = DAY_MS + (hour + 2) * HOUR_MS;
            let number = i64::from(partition) * 100 + hour;
            [
                sale("late", number, stamped_ms, stamped_ms - 2 * HOUR_MS),
                sale("in time", number, stamped_ms - 1_000, stamped_ms),
                sale("ahead", number, stamped_ms + 7, stamped_ms + 2 * HOUR_MS),
            ]
        };
        world.send_at(partition, &(0..12).flat_map(hour).collect::<Vec<_>>()).await;
    }
    world.run("f").await;
    assert!(world.audit("f").await.is_clean());
    world
}

const HOURLY: &str =
    "SELECT tumble(at, INTERVAL '1 hour') AS w, shop, sum(n) AS n, avg(n) AS m FROM sales GROUP BY 1, 2";

#[tokio::test]
async fn rows_of_newer_records_are_compared_and_only_these_records_are_read() {
    let world = day(HOURLY).await;
    let all = world.audit("f").await;
    let since_ms = DAY_MS + 10 * HOUR_MS;
    let report = world.since("f", since_ms).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    // Windows from 10:00 on: records of 8:00 may be in them. The first one of an hour is exactly that old.
    assert_eq!((report.records, report.rows, report.compared), (36, all.rows, 12));
    assert!(report.ranges.iter().all(|(_, range)| *range == (18..36)), "{report:?}");
    let note = &report.notes[0];
    assert!(note.starts_with("only rows with `w` at or after 2026-01-01T10:00:00Z were compared: 12 of 36"), "{note}");
    assert!(note.contains("sales/1/0 from offset 18") && note.contains("2h after its record (`ahead`)"), "{note}");

    let change = |hour: &str, by: &str| {
        world.tamper(&format!("UPDATE t SET n = n {by} WHERE w = '2026-01-01T{hour}:00:00Z' AND shop = 'ahead'"));
    };
    change("09", "+ 1");
    assert!(world.since("f", since_ms).await.unwrap().is_clean(), "that row was not compared");
    assert!(!world.since("f", since_ms - HOUR_MS).await.unwrap().is_clean());
    change("09", "- 1");
    change("10", "+ 1");
    let report = world.since("f", since_ms).await.unwrap();
    let found: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 2, "against the log and the states: {found:?}");
    assert!(found[0].starts_with("w=2026-01-01T10:00:00Z, shop='ahead': the sink has n="), "{found:?}");
    change("10", "- 1");
    // A sample of these.
    let sample = Some(AuditSample { share: 0.5, seed: 4 });
    let both = AuditOptions { since_ms: Some(since_ms), sample, ..AuditOptions::default() };
    let report = world.part("f", both).await.unwrap();
    assert!(report.is_clean() && report.compared > 0 && report.compared < 12, "{report:?}");
    // Of a time after all records, nothing is read.
    let report = world.since("f", DAY_MS + 48 * HOUR_MS).await.unwrap();
    assert!(report.is_clean() && report.records == 0 && report.compared == 0, "{report:?}");
}

#[tokio::test]
async fn many_statements_show_which_rows_are_new() {
    for sql in [
        HOURLY,
        "SELECT hop(at, INTERVAL '1 hour', INTERVAL '3 hours') AS w, count(*) AS n FROM sales GROUP BY 1",
        "SELECT tumble(at, INTERVAL '1 hour') + INTERVAL '1 hour' AS e, max(n) AS n FROM sales GROUP BY 1",
        "SELECT date_trunc('hour', _timestamp) AS w, count(*) AS n FROM sales GROUP BY 1",
        "SELECT shop, at, n FROM sales WHERE n > 3",
        "SELECT shop, at, _timestamp AS stamp FROM sales",
    ] {
        let world = day(sql).await;
        let report = world.since("f", DAY_MS + 10 * HOUR_MS).await.unwrap();
        assert!(report.is_clean() && report.compared > 3 && report.compared < report.rows, "{sql}: {report:?}");
        assert!(report.records < 72, "{sql}: {report:?}");
        world.tamper("DELETE FROM t WHERE rowid = (SELECT max(rowid) FROM t)");
        assert!(!world.since("f", DAY_MS + 10 * HOUR_MS).await.unwrap().is_clean(), "{sql}");
    }
}

#[tokio::test]
async fn tables_that_do_not_show_it_are_refused_with_the_reason() {
    for (sql, change, why) in [
        ("SELECT shop, count(*) AS n FROM sales GROUP BY 1", ("", ""), "a window of the topic's event time"),
        ("SELECT shop, n FROM sales", ("", ""), "a window of the topic's event time"),
        (HOURLY, ("ahead: 2h", "late: dead-letter, lateness: 1h"), "depends on all records before"),
        (
            "SELECT shop, at FROM sales",
            ("uses: aggregate, from: sales, ahead: 2h", "uses: archive, from: sales"),
            "no column `_timestamp`",
        ),
    ] {
        let text = timed(sql);
        assert!(text.contains(change.0), "{text}");
        let world = World::of(&text.replacen(change.0, change.1, 1)).await;
        world.run("f").await;
        let error = world.since("f", DAY_MS).await.unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("--sample 5%"), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_record_without_a_timestamp_could_be_part_of_any_row() {
    for hour in [9, 11] {
        let world = day(HOURLY).await;
        let at_ms = DAY_MS + 10 * HOUR_MS;
        // Before the first record that is read, and among them.
        world.send_at(0, &[sale("unstamped", 1, 5, at_ms), sale("in time", 2, DAY_MS + hour * HOUR_MS, at_ms)]).await;
        world.send_at(0, &[sale("in time", 3, DAY_MS + 20 * HOUR_MS, at_ms)]).await;
        world.run("f").await;
        for since_ms in [DAY_MS + 10 * HOUR_MS, DAY_MS + 20 * HOUR_MS] {
            let error = world.since("f", since_ms).await.unwrap_err().to_string();
            assert!(error.contains("record sales/1/0/36 has no timestamp of its own"), "{error}");
        }
        assert!(world.audit("f").await.is_clean() && world.sample("f", 0.5, 1).await.is_clean());
    }
}

#[tokio::test]
async fn older_records_may_be_gone() {
    let world = day(HOURLY).await;
    let file = world.folder.path().join("data/millstream.db");
    let store = Embedded::open(&file, Arc::new(SystemClock)).unwrap();
    for partition in 0..2 {
        store.delete_records("sales", partition, 12).await.unwrap();
    }
    let since = async |hour: i64| world.since("f", DAY_MS + hour * HOUR_MS).await;
    let error = world.part("f", AuditOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("no longer in the log (retention)"), "{error}");
    assert!(since(10).await.unwrap().is_clean());
    // It can't be known whether records that are gone were of these rows.
    let error = since(8).await.unwrap_err().to_string();
    assert!(error.contains("offsets 0..12 of sales/1/0") && error.contains("audit since a later time"), "{error}");
}

#[tokio::test]
async fn a_value_that_is_not_of_its_type_is_a_difference_of_its_row() {
    let world = keys().await;
    let found =
        async |name: &str| world.audit(name).await.differences.iter().map(ToString::to_string).collect::<Vec<_>>();
    world.tamper("UPDATE byshop SET n = 'some' WHERE shop = 's7'");
    world.tamper("INSERT INTO byshop (shop, n) VALUES ('zz', x'00')");
    let mut differences = found("byshop").await;
    differences.sort();
    let all = ["not from the log: shop='zz', n=1 bytes", "shop='s7': the sink has n='some', the log gives n=428"];
    assert_eq!(differences, all);
    world.tamper("UPDATE kept SET amount = 'much' WHERE shop = 's7' AND n = 7 AND rowid = (SELECT min(rowid) FROM kept WHERE n = 7)");
    let mut differences = found("kept").await;
    differences.sort();
    assert_eq!(
        differences,
        ["missing in the sink: shop='s7', amount=1.75, n=7", "not from the log: shop='s7', amount='much', n=7"]
    );
    // Of a table that is finished from states: one row and one state, each told of once.
    world.tamper("UPDATE byamount SET n = 'x' WHERE amount = 2.0 AND price = '2.50'");
    let differences = found("byamount").await;
    assert!(
        differences.len() == 1
            && differences[0].starts_with("amount=2.0, price=2.50: the sink has n='x', the log gives n="),
        "{differences:?}"
    );
    world.tamper("UPDATE byamount_state SET m_sum = 'x' WHERE amount = 1.0 AND price = '1.50'");
    let differences = found("byamount").await;
    assert!(
        differences.len() == 2
            && differences
                .iter()
                .any(|found| found.starts_with("a stored state can't be read: amount=1.0, price=1.50")),
        "{differences:?}"
    );
}

#[tokio::test]
async fn a_row_whose_key_can_not_be_read_is_in_every_sample() {
    let world = keys().await;
    world.tamper("INSERT INTO byshop (shop, n) VALUES (x'00ff', 1)");
    world.tamper("INSERT INTO kept (shop, amount, n) VALUES ('a', 'much', 1)");
    for name in ["byshop", "kept"] {
        for seed in 0..5 {
            let report = world.sample(name, 0.01, seed).await;
            let found: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
            assert!(found.len() == 1 && found[0].starts_with("not from the log: shop="), "{name} {seed}: {found:?}");
        }
    }
    // What can be read says where it belongs.
    world.tamper("INSERT INTO byshop (shop, n) VALUES ('some', x'00')");
    let in_sample = async |seed| world.sample("byshop", 0.2, seed).await.total_differences == 2;
    let mut seen = [false; 2];
    for seed in 0..40 {
        seen[usize::from(in_sample(seed).await)] = true;
    }
    assert_eq!(seen, [true, true]);
}

#[tokio::test]
async fn a_row_whose_window_can_not_be_read_is_among_the_newer_ones() {
    let world = day(HOURLY).await;
    let since_ms = DAY_MS + 10 * HOUR_MS;
    world.tamper("INSERT INTO t (millstream_row, w, shop, n) VALUES (1000, 'yesterday', 'x', 1)");
    world.tamper("INSERT INTO t (millstream_row, w, shop, n) VALUES (1001, '2026-01-01T01:00:00Z', 'x', 'old')");
    let report = world.since("f", since_ms).await.unwrap();
    let found: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["not from the log: w='yesterday', shop='x', n=1, m=NULL"]);
}

/// The engine may compute the key, and whether it is in the sample, before the statement leaves a record out.
#[tokio::test]
async fn a_key_need_not_be_computed_for_records_that_the_statement_leaves_out() {
    for sql in [
        "SELECT a / b AS k, count(*) AS n FROM sales WHERE b <> 0 GROUP BY 1",
        "SELECT CAST(shop AS int) AS k, count(*) AS n FROM sales WHERE b = 0 GROUP BY 1",
        "SELECT CAST(sales.shop AS int) AS k, count(*) AS n FROM sales JOIN cities ON cities.buyer = sales.shop GROUP BY 1",
        "SELECT 100 / s.b + s.a % 20 AS k, count(*) AS n FROM sales s JOIN cities c ON c.buyer = s.shop WHERE s.b + c.n > 1 GROUP BY 1",
    ] {
        let text = format!(
            "
name: shop
topics:
  sales: {{ partitions: 2, schema: {{ shop: string, a: bigint, b: bigint }} }}
references:
  cities: {{ file: cities.csv, schema: {{ buyer: string, n: bigint }} }}
functions:
  f: {{ uses: aggregate, from: sales, into: postgres.t, sql: '{sql}' }}
"
        );
        let numbers: String = (0..20).map(|n| format!("{n},{n}\n")).collect();
        let world = World::with_cities(&text, &format!("buyer,n\n{numbers}")).await;
        let value = |n: i64| match n % 3 {
            0 => format!(r#"{{"shop":"none","a":{n},"b":{}}}"#, if sql.contains("b = 0") { 1 } else { 0 }),
            _ => format!(r#"{{"shop":"{}","a":{n},"b":{}}}"#, n % 20, if sql.contains("b = 0") { 0 } else { n % 3 }),
        };
        let values: Vec<String> = (0..300).map(value).collect();
        world.send("sales", 0, &values.iter().map(String::as_str).collect::<Vec<_>>()).await;
        world.run("f").await;
        let all = world.audit("f").await;
        assert!(all.is_clean() && all.rows > 5, "{sql}: {all:?}");
        let mut compared = 0;
        for seed in 0..4 {
            let report = world.sample("f", 0.4, seed).await;
            assert!(report.is_clean(), "{sql}: {report:?}");
            compared += report.compared;
        }
        assert!(compared > 0 && compared < 4 * all.rows, "{sql}");
        world.tamper("UPDATE t SET n = n + 1");
        let report = world.sample("f", 0.4, 1).await;
        assert_eq!(report.total_differences, report.compared, "{sql}: {report:?}");
    }
}

#[tokio::test]
async fn a_difference_names_only_the_columns_that_differ() {
    let world = World::of(&KEYS.replace("avg(n) AS m", "avg(amount) AS m, sum(amount) AS s")).await;
    let values: Vec<String> =
        (1..40).map(|n| format!(r#"{{"shop":"a","amount":0.1,"price":"1.50","n":{n}}}"#)).collect();
    world.send("sales", 0, &values.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.run("byamount").await;
    // The sum differs by no more than rounding.
    world.tamper("UPDATE byamount SET s = s + 4e-16, n = n + 1");
    let found = world.found("byamount").await;
    assert_eq!(found[0], "amount=0.1, price=1.50: the sink has n=781, the log gives n=780");
    assert!(found[1].starts_with("readers see amount=0.1, price=1.50 with n=781, "), "{found:?}");
}
