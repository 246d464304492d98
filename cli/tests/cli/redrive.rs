//! Dead letters are redriven: by the function as it is, and by one that accepts what it refused before.

use serde_json::Value;

use super::{
    deployed::{Deployed, SHOP},
    json, said,
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
