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
    // The row against the log, and against the stored states.
    assert!(out.ends_with("2 functions audited: 2 differences\n"), "{out}");
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
    let difference = "readers see shop='null' with income=1.00, but the stored states give income=3.00\n";
    assert!(out.contains(difference), "{out}");
}

#[test]
fn a_part_is_audited_and_the_report_says_so() {
    let shop = Shop::filled();
    shop.tamper("UPDATE income SET income = '9.00'");
    let report = json(&shop.run(&["audit", "income", "--sample", "100%", "--seed", "7", "--limit", "1", "--json"]));
    assert_eq!((&report["rows"], &report["compared_rows"]), (&2.into(), &2.into()), "{report}");
    assert_eq!(
        (&report["total_differences"], report["differences"].as_array().unwrap().len()),
        (&4.into(), 1),
        "{report}"
    );
    assert!(report["notes"][0].as_str().unwrap().starts_with("a sample of 100% (seed 7) of the keys"), "{report}");
    // A seed is made up, and printed.
    let (out, _) = said(&shop.run(&["audit", "income", "--sample", "0.000001%"]));
    assert!(out.contains("(seed ") && out.contains("0 of 2 rows in the sink, 0 dead letters: no difference"), "{out}");

    // Rows of an archive show the time of their record; those of the other function show none.
    let report = json(&shop.run(&["audit", "kept", "--since", "1h", "--json"]));
    assert_eq!((&report["clean"], &report["compared_rows"], &report["records"]), (&true.into(), &3.into(), &3.into()));
    let report = json(&shop.run(&["audit", "kept", "--since", "1ms", "--json"]));
    assert_eq!((&report["clean"], &report["compared_rows"], &report["records"]), (&true.into(), &0.into(), &0.into()));
    let refused = shop.run(&["audit", "income", "--since", "2026-01-01"]);
    let (_, err) = said(&refused);
    assert!(refused.status.code() == Some(3) && err.contains("can't be audited since a time"), "{err}");
    for wrong in [&["--sample", "7"][..], &["--seed", "7"], &["--since", "soon"]] {
        assert_eq!(shop.run(&[&["audit", "income"], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn advised_commands_name_the_pipeline() {
    let shop = Shop::filled();
    pipeline(&shop.data, &SHOP.replace("FROM sales GROUP", "FROM sales WHERE price > 1 GROUP"));
    let named = |command: &str| format!("`millstream {command} {}`", shop.pipeline.join(" "));
    let (out, _) = said(&shop.run(&["audit", "income"]));
    assert!(out.contains(&named("check --deployed")) && out.contains(&named("preview")), "{out}");
    let (out, _) = said(&shop.run(&["check", "--deployed"]));
    assert!(out.contains(&named("rebuild income")), "{out}");
    let of_file = run(&shop.data, &["check", "--deployed", &shop.pipeline[1]]);
    assert!(said(&of_file).0.contains(&named("rebuild income")), "{of_file:?}");
}
