//! The ways out that are offered where a changed pipeline file stops a start: each one works, and no other does.

use super::{
    deployed::{Deployed, SALES, SHOP},
    json, said,
};

const COMMANDS: [&str; 2] = ["adopt", "rebuild"];

/// A change of [`SHOP`], or of the store, with the ways that are offered for a function.
struct Case {
    what: &'static str,
    /// Each text, and what it becomes.
    change: &'static [(&'static str, &'static str)],
    sql: &'static str,
    function: &'static str,
    offered: &'static [&'static str],
    /// A part of what is said of the others.
    why: &'static str,
}

const CASE: Case = Case { what: "", change: &[], sql: "", function: "income", offered: &[], why: "" };
const NARROWER: (&str, &str) =
    ("decimal(9,2) not null', at: timestamp not null, s", "decimal(7,2) not null', at: timestamp not null, s");
const WIDER: (&str, &str) =
    ("decimal(9,2) not null', at: timestamp not null, s", "decimal(11,2) not null', at: timestamp not null, s");
const BOTH: &[&str] = &["millstream rebuild income", "millstream adopt income"];
const REBUILD: &[&str] = &["millstream rebuild income"];

#[test]
fn the_ways_of_a_table_are_those_that_work() {
    for case in [
        Case { what: "filter", change: &[("= n.shop", "= n.shop WHERE s.price > 0")], offered: BOTH, ..CASE },
        Case { what: "column", change: &[("AS income\n", "AS income, max(s.price) AS top\n")], offered: BOTH, ..CASE },
        Case { what: "wider", change: &[WIDER], offered: BOTH, ..CASE },
        Case { what: "narrower", change: &[NARROWER], offered: REBUILD, why: "not decimal(17,2)", ..CASE },
        Case { what: "text", change: &[("sum(s.price)", "max(s.shop)")], offered: REBUILD, why: "not string", ..CASE },
        Case {
            what: "states",
            change: &[("sum(s.price) AS income", "avg(s.price) AS income")],
            offered: REBUILD,
            why: "can't be computed from the results",
            ..CASE
        },
        Case {
            what: "keys",
            change: &[("n.title AS shop", "n.title AS seller")],
            offered: REBUILD,
            why: "lacks column `seller`",
            ..CASE
        },
    ] {
        offers_what_works(&case);
    }
}

#[test]
fn the_ways_of_what_is_not_whole_are_those_that_work() {
    for case in [
        Case { what: "dropped", sql: "DROP TABLE income", offered: BOTH, ..CASE },
        Case {
            what: "somebody's",
            sql: "DELETE FROM millstream_owners; DELETE FROM millstream_fences",
            offered: &["millstream adopt income"],
            why: "may be somebody else's",
            ..CASE
        },
        Case {
            what: "retention",
            change: &[("= n.shop", "= n.shop WHERE s.price > 0")],
            sql: "UPDATE millstream_partitions SET low = high; DELETE FROM millstream_records",
            offered: &["millstream rebuild income --partial", "millstream adopt income"],
            ..CASE
        },
        Case {
            what: "retention of what can't be adopted",
            change: &[NARROWER],
            sql: "UPDATE millstream_partitions SET low = high; DELETE FROM millstream_records",
            offered: &["millstream rebuild income --partial"],
            why: "not decimal(17,2)",
            ..CASE
        },
        Case {
            what: "two functions",
            change: &[("  income:\n", "  earned:\n")],
            sql: "INSERT INTO millstream_fences SELECT 'shop.earned', topic, generation, partition, start_offset, next_offset,
                  last_timestamp_ms, max_event_time_us, upstream, updated_at, topic_id, rows, term FROM millstream_fences
                  WHERE function = 'shop.income'",
            function: "earned",
            why: "has fences of its own",
            ..CASE
        },
    ] {
        offers_what_works(&case);
    }
}

#[test]
fn the_ways_of_a_folder_are_those_that_work() {
    let kept = Case { function: "kept", why: "By hand: give `kept` and its table new names", ..CASE };
    let adopt = &["millstream adopt kept"];
    for case in [
        Case { what: "wider", change: &[WIDER], offered: adopt, ..kept },
        Case {
            what: "a column that is not at the end",
            change: &[("seen: timestamp not null }", "seen: timestamp not null, new: int }")],
            ..kept
        },
        Case { what: "narrower", change: &[NARROWER], ..kept },
    ] {
        offers_what_works(&case);
    }
}

fn offers_what_works(case: &Case) {
    let Case { what, change, sql, function, offered, why } = case;
    let shop = Deployed::new();
    let mut text = SHOP.to_owned();
    for (from, to) in *change {
        assert!(text.contains(from), "{what}");
        text = text.replacen(from, to, 1);
    }
    shop.change(&text);
    shop.alter(sql);
    let start = shop.start_of(function);
    assert_eq!((&start["would"], &start["ways"]), (&"stop".into(), &(*offered).into()), "{what}: {start}");
    let (out, _) = said(&shop.run(&["check", "--deployed"]));
    assert!(out.contains(why), "{what}: {out}");
    let ran = said(&shop.run(&["run", function])).1;
    for command in COMMANDS {
        let is_offered = |said: &str| said.contains(&format!("- `millstream {command} {function}"));
        let works = offered.iter().any(|way| way.contains(command));
        assert_eq!((is_offered(&out), is_offered(&ran)), (works, works), "{what}: {out}\n{ran}");
    }
    for command in COMMANDS.iter().filter(|command| !offered.iter().any(|way| way.contains(*command))) {
        let refused = shop.run(&[command, function, "--yes"]);
        assert_eq!(refused.status.code(), Some(3), "{what}: {command}: {:?}", said(&refused));
        assert_eq!(shop.start_of(function), start, "{what}: {command} has changed nothing");
    }
    // A table that goes on can be rebuilt all the same.
    for way in offered.iter().rev() {
        let words: Vec<_> = way.split(' ').skip(1).chain(["--yes"]).collect();
        let done = shop.run(&words);
        assert!(done.status.success(), "{what}: {way}: {:?}", said(&done));
        assert_eq!(shop.start_of(function)["would"], "go on", "{what}: {way}");
    }
}

/// Keys, states, a view and files of narrower types, and then records that only the wider ones hold.
#[test]
fn wider_types_are_adopted_and_the_audit_is_clean() {
    let shop = SHOP.replacen("{ shop: string,", "{ shop: string, till: int, weight: float,", 1).replacen(
        "  kept:\n",
        "  tills:
    uses: aggregate
    from: sales
    sql: SELECT till, min(price) AS least, max(weight) AS heaviest FROM sales GROUP BY till
    into: postgres.tills
  means:
    uses: aggregate
    from: sales
    sql: SELECT till, avg(price) AS mean, max(price) AS most FROM sales GROUP BY till
    into: postgres.means
  kept:\n",
        1,
    );
    let sales = |till: &str, price: &str| {
        SALES.replace("\"price\":1,", &format!("\"till\":{till},\"weight\":0.5,\"price\":{price},"))
    };
    let deployed = Deployed::of(&shop, &sales("7", "1"));
    let wider = shop.replacen("till: int, weight: float,", "till: bigint, weight: double,", 1);
    deployed.change(&wider.replacen(WIDER.0, &WIDER.1.replace("(11,2)", "(12,3)"), 1));
    for function in ["income", "tills", "means", "kept"] {
        let start = deployed.start_of(function);
        let adopt = format!("millstream adopt {function}");
        assert!(start["ways"].as_array().unwrap().contains(&adopt.into()), "{start}");
        assert_eq!(json(&deployed.run(&["adopt", function, "--yes", "--json"]))["adopted"], true);
        assert_eq!(deployed.start_of(function)["would"], "go on");
    }
    deployed.produce(&sales("5000000000", "123456789.125"));
    deployed.produce(&sales("7", "2"));
    deployed.dev();
    let audit = deployed.run(&["audit"]);
    assert_eq!(audit.status.code(), Some(0), "{:?}", said(&audit));
    let tills = deployed.income("SELECT till, least FROM tills WHERE till IS NOT NULL ORDER BY till");
    assert_eq!(tills[0]["least"], "1.000", "{tills}");
    assert_eq!(tills.as_array().unwrap().len(), 2, "the till of before is the same key: {tills}");
    assert_eq!(deployed.income("SELECT max(most) AS n FROM means")[0]["n"], "123456789.125");
    let kept = deployed.income("SELECT count(*) AS n, max(price) AS most FROM sales");
    assert_eq!((&kept[0]["n"], &kept[0]["most"]), (&6.into(), &"123456789.125".into()), "{kept}");
}

/// Values are hashed with their type: those of before would be counted a second time.
#[test]
fn a_wider_type_under_an_estimate_is_rebuilt() {
    let shop = SHOP.replacen("sum(s.price) AS income", "approx_distinct(s.price) AS prices", 1);
    let deployed = Deployed::of(&shop, SALES);
    deployed.change(&shop.replacen(WIDER.0, WIDER.1, 1));
    let start = deployed.start_of("income");
    assert_eq!((&start["would"], &start["ways"]), (&"stop".into(), &REBUILD.into()), "{start}");
    let refused = deployed.run(&["adopt", "income", "--yes"]);
    assert!(refused.status.code() == Some(3) && said(&refused).1.contains("approx_distinct"), "{:?}", said(&refused));
    assert!(deployed.run(&["rebuild", "income", "--yes"]).status.success());
    assert!(deployed.run(&["adopt", "kept", "--yes"]).status.success());
    deployed.produce(SALES);
    deployed.dev();
    assert_eq!(deployed.income("SELECT max(prices) AS n FROM income")[0]["n"], 1);
    // Another change of the same function may still be adopted.
    deployed.change(&shop.replacen(WIDER.0, WIDER.1, 1).replacen("= n.shop", "= n.shop WHERE s.price > 0", 1));
    assert_eq!(deployed.start_of("income")["ways"], serde_json::json!(BOTH));
}
