//! The SQL crate's output in PostgreSQL's dialect agrees with its own computation: every aggregate through a view, with
//! the tables in PostgreSQL and embedded.

use std::path::Path;

use millstream_core::NewRecord;
use millstream_tests::Store;

use crate::world::World;

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

async fn rows(folder: &Path, postgres_url: Option<String>) -> Vec<Vec<String>> {
    let world = World::open(PIPELINE, folder, postgres_url).await;
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
    let rows = world.rows("trade", (0..200).map(record).collect()).await;
    world.audit().await;
    rows
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

/// Every operation that may stand above an aggregate, over values at the limits of their types. PostgreSQL's view must
/// show a reader in another time zone the same values as the embedded store computes.
const EDGES: &str = r#"
name: edges
topics:
  edge:
    partitions: 1
    schema: { id: bigint not null, i: bigint, j: bigint, small: int, d: "decimal(18,4)", e: "decimal(38,10)", f: double, g: double,
              at: timestamp, s: string, u: string, b: boolean }
functions:
  all:
    uses: aggregate
    from: edge
    batch: { max_records: 50 }
    sql: |
      SELECT id, COLUMNS
      FROM edge GROUP BY id
    into: postgres.edges
"#;

/// `i`, `j`, … stand for `max(i)`, `max(j)`, ….
const EXPRESSIONS: &[&str] = &[
    "i + j",
    "i - j",
    "i * j",
    "i / j",
    "i % j",
    "- i",
    "abs(i)",
    "i * 2 + 1",
    "sum(i) * 3",
    "count(*) - 1",
    "small * small",
    "small + i",
    "d + e",
    "d - e",
    "d * d",
    "d * e",
    "d / e",
    "e / d",
    "d % e",
    "d / 3",
    "e * 1.21",
    "e * (2 * 1e-9)",
    "i * CAST(1 AS decimal(38,0)) * (1e-9 * 1e-9)",
    "d < 2 * 1e-5",
    "coalesce(d, 1e-9 * 1e-9)",
    "- e",
    "abs(d)",
    "d / i",
    "i / d",
    "f + g",
    "f - g",
    "f * g",
    "f / g",
    "- f",
    "abs(f)",
    "f * i",
    "d / f",
    "sqrt(f)",
    "sqrt(i)",
    "floor(f)",
    "ceil(f)",
    "round(f)",
    "round(f, 2)",
    "round(f, -2)",
    "trunc(f)",
    "trunc(f, 3)",
    "floor(d)",
    "ceil(d)",
    "round(d)",
    "round(d, 2)",
    "round(d, -2)",
    "trunc(d, 1)",
    "round(e, 5)",
    "round(i, -2)",
    "round(i)",
    "CAST(f AS bigint)",
    "CAST(f AS int)",
    "CAST(f AS decimal(10,2))",
    "CAST(f AS decimal(38,10))",
    "CAST(f AS decimal(5,0))",
    "CAST(f AS float)",
    "CAST(d AS bigint)",
    "CAST(d AS int)",
    "CAST(d AS decimal(6,1))",
    "CAST(d AS decimal(20,0))",
    "CAST(e AS double)",
    "CAST(d AS double)",
    "CAST(i AS smallint)",
    "CAST(i AS decimal(18,2))",
    "CAST(i AS double)",
    "CAST(i AS text)",
    "CAST(d AS text)",
    "CAST(b AS text)",
    "TRY_CAST(f AS bigint)",
    "CAST(CAST(f AS decimal(20,4)) AS bigint)",
    "i = j",
    "f < g",
    "f = g",
    "f <> g",
    "d >= e",
    "s < u",
    "s = u",
    "s || u",
    "s || 'x'",
    "character_length(s)",
    "s IS DISTINCT FROM u",
    "i IN (0, 7, -7)",
    "f IN (0.0, 0.1)",
    "s IN ('a', 'Z')",
    "i BETWEEN -7 AND 7",
    "NOT i BETWEEN -7 AND 7",
    "f NOT BETWEEN -1 AND 1",
    "b AND i > 0",
    "b OR f > g",
    "NOT b",
    "b IS TRUE",
    "b IS NOT FALSE",
    "b IS UNKNOWN",
    "CASE WHEN i > 0 THEN d WHEN f > 0 THEN e ELSE 0 END",
    "CASE i WHEN 0 THEN 'zero' WHEN 7 THEN 'seven' END",
    "CASE WHEN j <> 0 THEN i / j END",
    "coalesce(i, j, 5)",
    "coalesce(f, d)",
    "nullif(i, j)",
    "nullif(s, u)",
    "greatest(i, j)",
    "least(f, g)",
    "greatest(s, u)",
    "least(d, 1)",
    "at + INTERVAL '2 days 3 seconds'",
    "at - INTERVAL '1 microsecond'",
    "at > TIMESTAMP '2024-02-29T00:00:00Z'",
    "CAST(at AS date)",
    "CAST(CAST(at AS date) AS timestamp)",
    "date_trunc('day', at)",
    "date_trunc('week', at)",
    "date_trunc('month', at)",
    "date_trunc('year', at)",
    "date_trunc('hour', at)",
    "date_trunc('quarter', at)",
    "date_trunc('second', at)",
    "date_trunc('millisecond', at)",
    "extract(year FROM at)",
    "extract(month FROM at)",
    "extract(day FROM at)",
    "extract(hour FROM at)",
    "extract(minute FROM at)",
    "extract(second FROM at)",
    "extract(week FROM at)",
    "extract(doy FROM at)",
    "extract(dow FROM at)",
    "extract(quarter FROM at)",
    "avg(d)",
    "avg(e)",
    "avg(i)",
    "avg(f)",
    "stddev_pop(f)",
    "var_pop(f)",
    "sum(d) / count(d)",
    "sum(f) / sum(g)",
    "avg(d) * 100 / avg(e)",
    "approx_distinct(i) * 2",
    "sum(d) / sum(e) * 100",
    "i / j + i % j - i * 2",
    "round(f / g, 3)",
    "CAST(f / g AS decimal(12,3))",
    "coalesce(i / j, -1)",
];

fn edge_values() -> Vec<String> {
    let ints = ["0", "1", "-1", "7", "-7", "9223372036854775807", "-9223372036854775808", "1000000007", "null"];
    let small = ["0", "1", "-2147483648", "2147483647", "46341", "null"];
    let decimals =
        ["0", "0.0001", "-0.0001", "99999999999999.9999", "2.5", "-2.5", "0.5", "149.9950", "-12345.6789", "3", "null"];
    let wide = [
        "0",
        "0.0000000001",
        "9999999999999999999999999999.9999999999",
        "-9999999999999999999999999999.9999999999",
        "7",
        "-3",
        "0.3333333333",
        "null",
    ];
    let doubles = [
        "0.0",
        "0.1",
        "-2.5",
        "2.5",
        "2.675",
        "0.49999999999999994",
        "1e300",
        "-1e308",
        "1.7976931348623157e308",
        "5e-324",
        "1e-200",
        "-1e-310",
        "123456789.987654321",
        "9.3e18",
        "-9007199254740993.0",
        "1e16",
        "3.0",
        "-0.0",
        "null",
    ];
    let times = [
        "\"0001-01-01T00:00:00Z\"",
        "\"9999-12-31T23:59:59.999999Z\"",
        "\"1969-12-31T23:59:59.999999Z\"",
        "\"1970-01-01T00:00:00Z\"",
        "\"2024-02-29T12:34:56.789012Z\"",
        "\"2024-11-03T05:30:00Z\"",
        "\"2024-03-10T07:00:00Z\"",
        "\"2021-01-03T23:00:00Z\"",
        "null",
    ];
    let texts = ["\"\"", "\"a\"", "\"Z\"", "\"ä\"", "\"z\"", "\"null\"", "null"];
    let truths = ["true", "false", "null"];
    let mut values = Vec::new();
    // Each pair of doubles, decimals and integers occurs; the other fields cycle.
    for first in 0..doubles.len() {
        for second in 0..doubles.len() {
            let (n, id) = (first + second * 5, values.len());
            values.push(format!(
                r#"{{"id":{id},"i":{},"j":{},"small":{},"d":"{}","e":"{}","f":{},"g":{},"at":{},"s":{},"u":{},"b":{}}}"#,
                ints[first % ints.len()], ints[second % ints.len()], small[n % small.len()], decimals[first % decimals.len()],
                wide[second % wide.len()], doubles[first], doubles[second], times[n % times.len()], texts[first % texts.len()],
                texts[second % texts.len()], truths[n % truths.len()],
            ).replace("\"null\",\"e\"", "null,\"e\"").replace("\"e\":\"null\"", "\"e\":null"));
        }
    }
    values
}

/// `max(…)` around each field.
fn over_maxima(expression: &str) -> String {
    let mut sql = String::new();
    let (mut word, mut quoted) = (String::new(), false);
    for letter in expression.chars().chain([' ']) {
        if letter.is_alphanumeric() || letter == '_' {
            word.push(letter);
            continue;
        }
        let inside = sql.ends_with("avg(")
            || sql.ends_with("sum(")
            || sql.ends_with("count(")
            || sql.ends_with("stddev_pop(")
            || sql.ends_with("var_pop(")
            || sql.ends_with("distinct(");
        let field = ["i", "j", "small", "d", "e", "f", "g", "at", "s", "u"].contains(&word.as_str());
        match word.as_str() {
            _ if quoted || inside => sql += &word,
            "b" => sql += "bool_or(b)",
            _ if field => sql += &format!("max({word})"),
            _ => sql += &word,
        }
        word.clear();
        quoted ^= letter == '\'';
        sql.push(letter);
    }
    sql.trim_end().to_owned()
}

async fn edges(folder: &Path, postgres_url: Option<String>) -> Vec<Vec<String>> {
    let columns: Vec<String> = EXPRESSIONS
        .iter()
        .enumerate()
        .map(|(number, expression)| format!("{} AS c{number}", over_maxima(expression)))
        .collect();
    let text = EDGES.replace("COLUMNS", &columns.join(", "));
    let record = |value: String| NewRecord { value: Some(value.into_bytes()), ..NewRecord::default() };
    let world = World::open(&text, folder, postgres_url).await;
    let mut rows = world.rows("edge", edge_values().into_iter().map(record).collect()).await;
    rows.sort_by_key(|row| row[0].parse::<i64>().unwrap());
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_above_aggregates_are_total_and_the_same_in_every_store() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = edges(&folder.path().join("embedded"), None).await;
    let Store::Services { direct, .. } = Store::services("edges").await else {
        unreachable!("services were asked for")
    };
    let client = millstream_tests::postgres_client(&direct).await;
    let database = direct.rsplit_once('/').unwrap().1.split('?').next().unwrap().to_owned();
    client.batch_execute(&format!("ALTER DATABASE \"{database}\" SET timezone = 'America/New_York'")).await.unwrap();
    let postgres = edges(&folder.path().join("postgres"), Some(direct)).await;
    assert_eq!(embedded.len(), edge_values().len());
    let values = edge_values();
    let mut wrong = Vec::new();
    for (e, p) in embedded.iter().zip(&postgres) {
        for (column, expression) in EXPRESSIONS.iter().enumerate() {
            let (e, p) = (&e[column + 1], &p[column + 1]);
            if e != p {
                wrong.push(format!("{expression}: embedded {e}, PostgreSQL {p}"));
            }
        }
    }
    assert!(
        wrong.is_empty() && postgres.len() == values.len(),
        "{} differences\n{}",
        wrong.len(),
        wrong[..wrong.len().min(60)].join("\n")
    );
    // Each expression has at least one value that isn't NULL.
    for (column, expression) in EXPRESSIONS.iter().enumerate() {
        assert!(embedded.iter().any(|row| row[column + 1] != "null"), "{expression} is NULL everywhere");
    }
}

/// Stores hold objects as JSON, which has neither NaN nor infinities, and one zero.
const NESTED: &str = r#"
name: nested
topics:
  edge: { partitions: 1, schema: { d: double, e: double } }
functions:
  all:
    uses: aggregate
    from: edge
    batch: { max_records: 2 }
    sql: |
      SELECT named_struct('rate', d / e) AS rate, count(*) AS n, last_value(named_struct('zero', d * -0.0)) AS zero
      FROM edge GROUP BY 1
    into: postgres.nested
"#;

#[tokio::test(flavor = "multi_thread")]
async fn numbers_in_objects_are_the_same_in_every_store() {
    let folder = tempfile::tempdir().unwrap();
    let Store::Services { direct, .. } = Store::services("nested").await else {
        unreachable!("services were asked for")
    };
    let mut shown = Vec::new();
    for (name, url) in [("embedded", None), ("postgres", Some(direct))] {
        let world = World::open(NESTED, &folder.path().join(name), url).await;
        let record =
            |(d, e)| NewRecord { value: Some(format!(r#"{{"d":{d},"e":{e}}}"#).into_bytes()), ..NewRecord::default() };
        let records = [(0, 0), (1, 0), (-1, 0), (1, 2), (0, 1), (0, -1)].map(record);
        shown.push(world.rows("edge", records.into()).await);
        world.audit().await;
    }
    let zero = "{zero: 0.0}";
    let row = |rate: &str, n: &str| vec![rate.to_owned(), n.to_owned(), zero.to_owned()];
    assert_eq!(shown[0], [row("{rate: 0.0}", "2"), row("{rate: 0.5}", "1"), row("{rate: null}", "3")]);
    assert_eq!(shown[1], shown[0]);
}
