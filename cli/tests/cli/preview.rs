//! What a changed statement would do, seen before anything is written.

use serde_json::Value;
use tempfile::TempDir;

use super::{data, json, pipeline, run, said};

const SHOP: &str = "
name: shop
topics:
  sales: { partitions: 2, schema: { shop: string, price: 'decimal(9,2)', pieces: bigint } }
functions:
  income:
    uses: aggregate
    from: sales
    sql: SELECT shop, sum(price) AS income, count(*) AS n FROM sales GROUP BY 1
    into: postgres.income
";

/// Four shops.
const SALES: &str = r#"
{"shop":"a","price":1,"pieces":1}
{"shop":"a","price":2.5,"pieces":0}
{"shop":"b","price":4,"pieces":2}
{"shop":"c","price":-1,"pieces":3}
{"shop":null,"price":7,"pieces":1}
"#;

struct Shop {
    data: TempDir,
    of: [String; 2],
}

impl Shop {
    fn filled() -> Self {
        let data = data();
        let shop = Self { of: pipeline(&data, SHOP), data };
        let file = shop.data.path().join("sales.jsonl");
        std::fs::write(&file, SALES).unwrap();
        let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
        let produced = shop.run(&["produce", "sales", &file.display().to_string()]);
        assert!(produced.status.success(), "{}", said(&produced));
        let ran = shop.run(&["dev", "--no-generate", "--for", "1.5"]);
        assert!(ran.status.success(), "{}", said(&ran));
        shop
    }

    fn run(&self, args: &[&str]) -> std::process::Output {
        run(&self.data, &[args, &self.of.each_ref().map(String::as_str)].concat())
    }

    /// The preview of the statement after a change of the file.
    fn with(&self, from: &str, to: &str) -> (String, Value) {
        assert!(SHOP.contains(from), "{from}");
        pipeline(&self.data, &SHOP.replace(from, to));
        let before = self.rows();
        let output = self.run(&["preview", "income"]);
        let (out, err) = said(&output);
        assert!(output.status.success(), "{out} {err}");
        let document = json(&self.run(&["preview", "income", "--json"]));
        assert_eq!(self.rows(), before, "nothing was written");
        (out, document)
    }

    /// The table and the fences, as SQLite has them.
    fn rows(&self) -> Vec<String> {
        let store = rusqlite::Connection::open(self.data.path().join("millstream.db")).unwrap();
        let mut rows = Vec::new();
        for sql in [
            "SELECT shop || ' ' || income || ' ' || n FROM income",
            "SELECT function || topic || partition || ' ' || next_offset FROM millstream_fences",
            "SELECT table_name || fingerprint || term FROM millstream_owners",
        ] {
            let mut select = store.prepare(sql).unwrap();
            let found = select.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
            rows.extend(found.map(|row| row.unwrap().unwrap_or_default()));
        }
        rows.sort();
        rows
    }
}

fn counts(document: &Value) -> [u64; 4] {
    ["same", "new", "gone", "different"].map(|kind| document["changes"][kind].as_u64().unwrap())
}

#[test]
fn a_preview_shows_what_would_change_and_writes_nothing() {
    let shop = Shop::filled();
    let (out, document) = shop.with("name: shop", "name: shop");
    assert!(out.starts_with("postgres.income: 4 rows and no change\n"), "{out}");
    assert!(out.ends_with("shop.income: 5 records give 4 rows and 0 dead letters; nothing was written\n"), "{out}");
    assert_eq!(counts(&document), [4, 0, 0, 0]);

    let (out, document) = shop.with("FROM sales", "FROM sales WHERE price > 1");
    assert_eq!(counts(&document), [2, 0, 1, 1], "{out}");
    assert!(out.contains("- shop='c', income=-1.00, n=1\n"), "{out}");
    assert!(out.contains("~ shop='a': income=3.50, n=2 becomes income=2.50, n=1\n"), "{out}");
    assert!(out.contains("postgres.income: 2 rows stay, 0 new (+), 1 gone (-), 1 different (~)\n"), "{out}");

    let (out, document) = shop.with("SELECT shop,", "SELECT coalesce(shop, '?') AS shop,");
    assert_eq!(counts(&document), [3, 1, 1, 0], "{out}");
    assert!(out.contains("+ shop='?', income=7.00, n=1\n") && out.contains("- shop=NULL, "), "{out}");

    let (out, document) = shop.with("count(*) AS n", "max(price) AS top");
    assert_eq!(counts(&document), [4, 0, 0, 0], "{out}");
    assert!(out.contains("column `top` would be new: decimal(9,2)\ncolumn `n` would be gone\n"), "{out}");

    let (out, document) = shop.with("sum(price)", "sum(10 / pieces)");
    assert_eq!(document["dead_letters"], 1, "{out}");
    assert!(out.contains("a division by zero") && out.contains("column `income` is decimal(19,2)"), "{out}");
}

#[test]
fn a_preview_of_a_table_that_is_not_there_shows_rows() {
    let shop = Shop::filled();
    pipeline(&shop.data, &SHOP.replace("postgres.income", "postgres.earned"));
    let output = shop.run(&["preview", "income", "--limit", "2"]);
    let (out, err) = said(&output);
    assert!(output.status.success(), "{out} {err}");
    assert!(out.contains("income  n\n") && out.contains("there is no table postgres.earned yet"), "{out}");
    assert!(out.contains("5 records give 4 rows"), "{out}");
    let document = json(&shop.run(&["preview", "income", "--limit", "2", "--json"]));
    assert_eq!((document["some_rows"].as_array().unwrap().len(), &document["changes"]), (2, &Value::Null));
}

#[test]
fn a_preview_reads_only_what_is_new_enough() {
    let shop = Shop::filled();
    let read = |since: &str| json(&shop.run(&["preview", "income", "--since", since, "--json"]));
    assert_eq!((&read("1h")["records"], &read("1h")["changes"]), (&5.into(), &Value::Null));
    assert_eq!(read("1ms")["records"], 0);
    let wrong = shop.run(&["preview", "income", "--since", "yesterday"]);
    assert_eq!(wrong.status.code(), Some(2), "{:?}", said(&wrong));
}
