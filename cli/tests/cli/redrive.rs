//! Dead letters are redriven: by the function as it is, and by one that accepts what it refused before.

use serde_json::Value;

use super::{
    deployed::{Deployed, SHOP},
    json, millstream, said,
};

/// Of one partition: the second is a minute late, the third has no price, the fourth is cut.
const SALES: &str = r#"{"shop":"a","price":1,"at":"2026-01-01T00:02:00Z","seen":"2026-01-01T00:00:00Z"}
{"shop":"a","price":2,"at":"2026-01-01T00:01:00Z","seen":"2026-01-01T00:00:00Z"}
{"shop":"a","at":"2026-01-01T00:02:00Z","seen":"2026-01-01T00:00:00Z"}
"#;

fn late() -> String {
    let one = SHOP.replacen("partitions: 2", "partitions: 1", 1);
    one.replacen("into: postgres.income", "late: dead-letter\n    into: postgres.income", 1)
}

impl Deployed {
    #[track_caller]
    fn redrive(&self, args: &[&str]) -> Value {
        let done = self.run(&[&["dead-letters", "redrive", "income", "--json"], args].concat());
        assert!(done.status.success(), "{:?}", said(&done));
        json(&done)
    }

    fn sum(&self) -> Value {
        self.income("SELECT sum(income) AS n FROM income")[0]["n"].clone()
    }

    /// What is said of each letter of `income`, in the order of the offsets.
    fn letters(&self) -> Vec<(i64, String)> {
        let listed = self.run(&["dead-letters", "list", "-f", "income", "--json"]);
        let text = String::from_utf8(listed.stdout).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let letter = |line: Value| {
            let offset = line["position"].as_str().unwrap().rsplit('/').next().unwrap().parse().unwrap();
            (offset, format!("{} {}", line["state"].as_str().unwrap(), line["refused_again"]))
        };
        let mut letters: Vec<_> = lines.map(letter).collect();
        letters.sort_unstable();
        letters
    }

    #[track_caller]
    fn assert_audited(&self) {
        let audit = self.run(&["audit", "income"]);
        assert_eq!(audit.status.code(), Some(0), "{:?}", said(&audit));
    }
}

#[test]
fn a_late_record_is_brought_in_once_and_a_broken_one_stays_one_letter() {
    let shop = Deployed::of(&late(), SALES);
    assert_eq!(shop.sum(), "1.00");
    assert_eq!(shop.letters(), [(1, "open 0".to_owned()), (2, "open 0".to_owned())]);
    let planned = shop.redrive(&["--dry-run"]);
    assert_eq!((&planned["chosen"], &planned["unsettled"]), (&2.into(), &0.into()));
    assert_eq!(shop.sum(), "1.00");
    let done = shop.redrive(&[]);
    assert_eq!((&done["redriven"], &done["refused"]), (&1.into(), &1.into()), "{done}");
    assert_eq!(shop.sum(), "3.00");
    assert_eq!(shop.letters(), [(1, "redriven 0".to_owned()), (2, "open 1".to_owned())]);
    shop.assert_audited();
    let again = shop.redrive(&[]);
    assert_eq!((&again["redriven"], &again["refused"]), (&0.into(), &1.into()), "{again}");
    assert_eq!((shop.sum(), &shop.letters()[1].1), ("3.00".into(), &"open 2".to_owned()));
    shop.assert_audited();
}

#[test]
fn a_condition_chooses_and_the_others_stay_open() {
    let shop = Deployed::of(&late(), SALES);
    let done = shop.redrive(&["--where", "reason NOT LIKE 'late:%'"]);
    assert_eq!((&done["redriven"], &done["refused"], &done["others"]), (&0.into(), &1.into(), &1.into()), "{done}");
    let done = shop.redrive(&["--where", "\"offset\" = 1 AND value LIKE '%price%'"]);
    assert_eq!((&done["redriven"], &done["others"]), (&1.into(), &1.into()), "{done}");
    assert_eq!(shop.sum(), "3.00");
    shop.assert_audited();
    let wrong = shop.run(&["dead-letters", "redrive", "income", "--where", "reasons = 1"]);
    assert!(!wrong.status.success() && said(&wrong).1.contains("SQL over topic"), "{:?}", said(&wrong));
}

/// The schema gets a default for what was missing: the change is adopted, and the letters follow.
#[test]
fn a_changed_function_accepts_what_the_old_one_refused() {
    let shop = Deployed::of(&late(), SALES);
    let optional = late().replacen("price: 'decimal(9,2) not null'", "price: 'decimal(9,2)'", 1);
    shop.change(&optional.replacen("sum(s.price)", "sum(coalesce(s.price, 5))", 1));
    let stopped = shop.run(&["dead-letters", "redrive", "income"]);
    assert!(!stopped.status.success() && said(&stopped).1.contains("adopt"), "{:?}", said(&stopped));
    assert_eq!(shop.sum(), "1.00");
    let adopted = shop.run(&["adopt", "income", "--yes"]);
    assert!(adopted.status.success(), "{:?}", said(&adopted));
    let done = shop.redrive(&[]);
    assert_eq!((&done["redriven"], &done["refused"]), (&2.into(), &0.into()), "{done}");
    assert_eq!(shop.sum(), "8.00");
    assert_eq!(shop.letters(), [(1, "redriven 0".to_owned()), (2, "redriven 0".to_owned())]);
    shop.assert_audited();
}

/// A rebuild reads the records from the log: what was redriven is judged anew, and nothing is counted twice.
#[test]
fn what_was_redriven_is_not_in_a_rebuilt_table_twice() {
    let shop = Deployed::of(&late(), SALES);
    shop.redrive(&[]);
    shop.change(&late().replacen("sum(s.price)", "sum(s.price * 10)", 1));
    let rebuilt = shop.run(&["rebuild", "income", "--yes"]);
    assert!(rebuilt.status.success(), "{:?}", said(&rebuilt));
    assert_eq!((shop.sum(), shop.letters().len()), ("10.00".into(), 2));
    assert!(shop.letters().iter().all(|(_, said)| said.starts_with("open")), "{:?}", shop.letters());
    shop.assert_audited();
    let done = shop.redrive(&[]);
    assert_eq!((&done["redriven"], &done["refused"]), (&1.into(), &1.into()), "{done}");
    assert_eq!(shop.sum(), "30.00");
    shop.assert_audited();
}

const CHAIN: &str = "
name: chain
topics:
  sales: { partitions: 1, schema: { shop: string, price: 'decimal(9,2) not null' } }
  clean: { partitions: 2, schema: { shop: string, price: 'decimal(9,2)' } }
functions:
  copy:
    uses: transform
    from: sales
    sql: SELECT shop, price FROM sales
    key: shop
    into: topic.clean
  sums:
    uses: aggregate
    from: clean
    sql: SELECT shop, sum(price) AS price, count(*) AS sales FROM clean GROUP BY shop
    into: postgres.sums
";

/// Rows of a topic can't be taken back: what was sent before a kill must not come again under another selection.
#[test]
fn what_is_redriven_into_a_topic_comes_once_whatever_dies_in_between() {
    for point in ["after_outbox", "before_send", "after_send", "after_fence"] {
        let chain = Deployed::of(CHAIN, "{\"shop\":\"a\",\"price\":1}\n{\"shop\":\"b\"}\n{\"shop\":\"c\"}\n");
        let optional = CHAIN.replacen(
            "{ shop: string, price: 'decimal(9,2) not null' }",
            "{ shop: string, price: 'decimal(9,2)' }",
            1,
        );
        chain.change(&optional.replacen(
            "SELECT shop, price FROM",
            "SELECT shop, CAST(coalesce(price, 5) AS decimal(9,2)) AS price FROM",
            1,
        ));
        let adopted = chain.run(&["adopt", "copy", "--yes"]);
        assert!(adopted.status.success(), "{:?}", said(&adopted));
        let redrive = ["dead-letters", "redrive", "copy", chain.of[0].as_str(), chain.of[1].as_str()];
        for passage in [1, 1] {
            let fault = format!("topic.{point}:{passage}");
            let killed = millstream(&chain.data, &redrive).env("MILLSTREAM_FAULT", fault).output().unwrap();
            let has_died = !killed.status.success() && killed.status.code().is_none();
            assert!(has_died || point == "after_fence", "{point}: {:?}", said(&killed));
        }
        let done = chain.run(&["dead-letters", "redrive", "copy", "--json"]);
        assert!(done.status.success(), "{point}: {:?}", said(&done));
        chain.dev();
        let sums = chain.income("SELECT shop, price, sales FROM sums ORDER BY shop");
        let sums =
            sums.as_array().unwrap().iter().map(|row| format!("{} {} {}", row["shop"], row["price"], row["sales"]));
        assert_eq!(sums.collect::<Vec<_>>(), ["\"a\" \"1.00\" 1", "\"b\" \"5.00\" 1", "\"c\" \"5.00\" 1"], "{point}");
        for function in ["copy", "sums"] {
            let audit = chain.run(&["audit", function]);
            assert_eq!(audit.status.code(), Some(0), "{point} {function}: {:?}", said(&audit));
        }
    }
}

const KEPT: &str = "
name: keep
topics:
  sales: { partitions: 1, schema: { shop: string, price: 'decimal(9,2) not null' } }
functions:
  kept: { uses: archive, from: sales, sql: 'SELECT shop, price FROM sales', into: lake.kept }
";

/// Files can't be taken back either: what a killed process had put counts, and the rest is open to the next one.
#[test]
fn what_is_redriven_into_the_lake_comes_once_whatever_dies_in_between() {
    let kept = Deployed::of(KEPT, "{\"shop\":\"a\",\"price\":1}\n{\"shop\":\"b\"}\n{\"shop\":1}\n{\"shop\":\"c\"}\n");
    let optional = KEPT.replacen("'decimal(9,2) not null'", "'decimal(9,2)'", 1);
    kept.change(&optional.replacen(
        "SELECT shop, price",
        "SELECT shop, CAST(coalesce(price, 5) AS decimal(9,2)) AS price",
        1,
    ));
    let adopted = kept.run(&["adopt", "kept", "--yes"]);
    assert!(adopted.status.success(), "{:?}", said(&adopted));
    let redrive = ["dead-letters", "redrive", "kept", kept.of[0].as_str(), kept.of[1].as_str()];
    for point in ["runner.after_dead_letters", "lake.after_file"] {
        let killed = millstream(&kept.data, &redrive).env("MILLSTREAM_FAULT", point).output().unwrap();
        assert_eq!(killed.status.code(), None, "{point}: {:?}", said(&killed));
    }
    let done = kept.run(&["dead-letters", "redrive", "kept"]);
    assert!(done.status.success(), "{:?}", said(&done));
    let rows = kept.income("SELECT shop, price FROM kept ORDER BY shop");
    let rows = rows.as_array().unwrap().iter().map(|row| format!("{} {}", row["shop"], row["price"]));
    assert_eq!(rows.collect::<Vec<_>>(), ["\"a\" \"1.00\"", "\"b\" \"5.00\"", "\"c\" \"5.00\""]);
    assert!(!kept.data.path().join("lake/kept/log_date=1970-01-01").exists());
    let audit = kept.run(&["audit", "kept"]);
    assert_eq!(audit.status.code(), Some(0), "{:?}", said(&audit));
}
