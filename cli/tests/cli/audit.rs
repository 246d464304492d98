//! `audit` of a whole pipeline, on tables that were tampered with.

use std::process::Output;

use tempfile::TempDir;

use super::{data, json, pipeline, run, said};

const SHOP: &str = "
name: shop
topics:
  sales:
    partitions: 2
    schema: { shop: string, price: 'decimal(9,2) not null', buyer: string }
functions:
  kept:
    uses: archive
    from: sales
    into: lake.sales
  income:
    uses: aggregate
    from: sales
    sql: SELECT shop, sum(price) AS income, approx_distinct(buyer) AS buyers FROM sales GROUP BY 1
    into: postgres.income
";

/// Two shops; one of them has the name `null`.
const SALES: &str = r#"
{"shop":"null","price":1,"buyer":"a"}
{"shop":null,"price":2,"buyer":"b"}
{"price":4}
"#;

/// A pipeline whose tables are filled.
struct Shop {
    data: TempDir,
    pipeline: [String; 2],
}

impl Shop {
    fn filled() -> Self {
        let data = data();
        let shop = Self { pipeline: pipeline(&data, SHOP), data };
        let file = shop.data.path().join("sales.jsonl");
        std::fs::write(&file, SALES).unwrap();
        assert!(shop.run(&["produce", "sales", &file.display().to_string()]).status.success());
        assert!(shop.run(&["dev", "--no-generate", "--for", "1.5"]).status.success());
        shop
    }

    fn run(&self, args: &[&str]) -> Output {
        run(&self.data, &[args, &self.pipeline.each_ref().map(String::as_str)].concat())
    }

    /// Changes the embedded store directly.
    fn tamper(&self, sql: &str) {
        let store = rusqlite::Connection::open(self.data.path().join("millstream.db")).unwrap();
        assert!(store.execute(sql, []).unwrap() > 0, "{sql}");
    }
}

#[test]
fn all_functions_are_audited_at_once() {
    let shop = Shop::filled();
    let audit = shop.run(&["audit"]);
    let (out, err) = said(&audit);
    assert_eq!(audit.status.code(), Some(0), "{out} {err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("shop.income: 3 records of the log, 2 rows in the sink, "), "{out}");
    assert!(lines[1].starts_with("shop.kept: 3 records of the log, 3 rows in the sink, "), "{out}");
    assert_eq!(lines.last(), Some(&"2 functions audited: no difference"), "{out}");
    assert!(err.contains("shop.income: ") && err.contains("3 of 3 records"), "progress: {err}");

    shop.tamper("UPDATE income SET income = '9.00' WHERE shop = 'null'");
    let audit = shop.run(&["audit"]);
    let (out, _) = said(&audit);
    assert_eq!(audit.status.code(), Some(1), "{out}");
    assert!(out.contains("shop='null': ") && out.contains("income=9.00") && out.contains("income=1.00"), "{out}");
    // The row against the log, and against the stored states in both directions.
    assert!(out.ends_with("2 functions audited: 3 differences\n"), "{out}");
    let report = json(&shop.run(&["audit", "--json"]));
    assert_eq!((&report[0]["clean"], &report[1]["clean"]), (&false.into(), &true.into()), "{report}");

    shop.tamper("UPDATE income SET income = '1.00' WHERE shop = 'null'");
    assert_eq!(shop.run(&["audit"]).status.code(), Some(0));
}

#[test]
fn states_that_do_not_fit_are_found_before_they_are_merged_again() {
    let shop = Shop::filled();
    shop.tamper("UPDATE income_state SET income = '3.00' WHERE shop = 'null'");
    let audit = shop.run(&["audit", "income"]);
    let (out, _) = said(&audit);
    assert_eq!(audit.status.code(), Some(1), "{out}");
    assert!(out.contains("readers see shop='null', income=1.00, "), "{out}");
    assert!(out.contains("readers don't see shop='null', income=3.00, "), "{out}");
}
