//! A table is filled anew by a changed pipeline file, and takes the place of the old one.

use std::process::{Child, Stdio};

use serde_json::Value;

use super::{
    deployed::{Deployed, SALES, SHOP},
    json, millstream, said,
};

const SUM: &str = "sum(s.price) AS income";

impl Deployed {
    #[track_caller]
    fn rebuild(&self, function: &str, args: &[&str]) -> Value {
        json(&self.run(&[&["rebuild", function, "--yes", "--json"], args].concat()))
    }

    /// A start goes on, and the audit finds no difference.
    #[track_caller]
    fn assert_exact(&self, function: &str) {
        assert_eq!(self.start_of(function)["would"], "go on");
        let audit = self.run(&["audit", function]);
        assert_eq!(audit.status.code(), Some(0), "{:?}", said(&audit));
    }

    /// The numbers of fences, records of owners and tables of rebuilds.
    fn left(&self) -> (i64, i64, i64) {
        let count = |sql: &str| {
            let file = rusqlite::Connection::open(self.data.path().join("millstream.db")).unwrap();
            file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        (
            count("SELECT count(*) FROM millstream_fences WHERE function LIKE '%.rebuild'"),
            count("SELECT count(*) FROM millstream_owners WHERE function LIKE '%.rebuild'"),
            count(
                "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name LIKE '%\\_\\_rebuild%' ESCAPE '\\'",
            ),
        )
    }

    /// A rebuild that has filled a part of its table, and was killed.
    fn killed(&self) {
        let of = self.of.each_ref().map(String::as_str);
        // It pauses for a minute after its first batch.
        let args = [&["rebuild", "income", "--yes", "--rate", "0.001"], &of[..]].concat();
        let mut command = millstream(&self.data, &args);
        let mut child: Child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let moved = "SELECT count(*) FROM millstream_fences WHERE function = 'shop.income.rebuild' AND next_offset > start_offset";
        let file = rusqlite::Connection::open(self.data.path().join("millstream.db")).unwrap();
        let mut looks = 0;
        while file.query_row(moved, [], |row| row.get::<_, i64>(0)).unwrap() == 0 {
            looks += 1;
            assert!(looks < 600 && child.try_wait().unwrap().is_none(), "it has not begun to fill");
            #[expect(clippy::disallowed_methods, reason = "a test waits for another process")]
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_changed_statement_is_computed_again() {
    let shop = Deployed::new();
    for (what, from, to, sql, sum) in [
        ("statement", SUM, "sum(s.price * 2) AS income", "sum(income)", "6.00"),
        ("groups", "tumble(s.at, INTERVAL '1 minute') AS minute", "s.price AS minute", "sum(income)", "3.00"),
        ("states", SUM, "avg(s.price) AS mean", "max(mean)", "2.000000"),
        ("a HAVING", SUM, "sum(s.price) AS income, avg(s.price) AS mean", "sum(income)", "3.00"),
        ("results", SUM, "max(s.price) AS top", "max(top)", "2.00"),
    ] {
        assert!(SHOP.contains(from), "{what}");
        shop.change(&SHOP.replacen(from, to, 1));
        assert_eq!(shop.start_of("income")["would"], "stop", "{what}");
        let rebuilt = shop.rebuild("income", &[]);
        assert_eq!(
            (&rebuilt["rebuilt"], &rebuilt["function"]),
            (&true.into(), &"shop.income".into()),
            "{what}: {rebuilt}"
        );
        assert_eq!(shop.income(&format!("SELECT {sql} AS n FROM income"))[0]["n"], sum, "{what}");
        shop.assert_exact("income");
        assert_eq!(shop.left(), (0, 0, 0), "{what}");
    }
    shop.produce(SALES);
    shop.dev();
    shop.assert_exact("income");
}

#[test]
fn whatever_stops_a_start_can_be_rebuilt() {
    let tables = "DELETE FROM millstream_tables WHERE name = 'income'";
    for (what, change, sql) in [
        ("emptied", None, "DELETE FROM income".to_owned()),
        ("dropped", None, format!("DROP TABLE income; {tables}")),
        ("dropped by hand", None, "DROP TABLE income".to_owned()),
        ("fences", None, "DELETE FROM millstream_fences WHERE function = 'shop.income'".to_owned()),
        ("table", Some(("postgres.income", "postgres.earned")), String::new()),
        ("function", Some(("  income:\n", "  earned:\n")), String::new()),
        ("nothing", None, String::new()),
    ] {
        let shop = Deployed::new();
        if let Some((from, to)) = change {
            shop.change(&SHOP.replacen(from, to, 1));
        }
        shop.alter(&sql);
        let function = if what == "function" { "earned" } else { "income" };
        assert_eq!(shop.rebuild(function, &[])["rebuilt"], true, "{what}");
        let table = if what == "table" { "earned" } else { "income" };
        assert_eq!(shop.income(&format!("SELECT sum(income) AS n FROM {table}"))[0]["n"], "3.00", "{what}");
        shop.produce(SALES);
        shop.dev();
        assert_eq!(shop.income(&format!("SELECT sum(income) AS n FROM {table}"))[0]["n"], "6.00", "{what}");
        shop.assert_exact(function);
    }
}

#[test]
fn letters_are_those_of_the_new_plan() {
    let shop = Deployed::new();
    // The archive keeps the schema of its files.
    let (start, archive) = SHOP.split_once("  kept:").unwrap();
    let without = format!("{start}{}", &archive[archive.find("references:").unwrap()..]);
    let narrow = without.replacen("decimal(9,2)", "decimal(5,2)", 1);
    let list = || {
        let listed = said(&shop.run(&["dead-letters", "list", "-f", "income", "--json"])).0;
        listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    // Of two shops, so that both partitions may get one.
    let dear = SALES.replace("\"price\":1,", "\"price\":1234567,").replace("\"price\":2,", "\"price\":\"x\",");
    let file = shop.data.path().join("dear.jsonl");
    std::fs::write(&file, dear).unwrap();
    shop.change(&narrow);
    assert_eq!(shop.rebuild("income", &[])["rebuilt"], true);
    assert_eq!(list().len(), 0);
    assert!(shop.run(&["produce", "sales", &file.display().to_string(), "--unchecked"]).status.success());
    shop.dev();
    assert_eq!(list().len(), 2, "a price that doesn't fit, and one that is none");
    shop.assert_exact("income");

    shop.change(&without);
    assert_eq!(shop.rebuild("income", &[])["rebuilt"], true);
    let letters = list();
    assert_eq!(letters.len(), 1, "the new plan accepts one of them: {letters:?}");
    assert_eq!(letters[0]["function"], "shop.income", "{letters:?}");
    assert_eq!(shop.income("SELECT sum(income) AS n FROM income")[0]["n"], "1234570.00");
    shop.assert_exact("income");

    shop.change(&narrow);
    assert_eq!(shop.rebuild("income", &[])["rebuilt"], true);
    assert_eq!(list().len(), 2, "the new plan refuses both");
    shop.assert_exact("income");
}

#[test]
fn a_log_that_no_longer_reaches_back_is_told_first() {
    let shop = Deployed::new();
    shop.produce(SALES);
    shop.dev();
    let low = r#"(SELECT min("offset") + 1 FROM millstream_records WHERE "offset" >= low AND partition = p.partition)"#;
    shop.alter(&format!(
        r#"UPDATE millstream_partitions AS p SET low = coalesce({low}, low)
           WHERE topic_id = (SELECT id FROM millstream_topics WHERE name = 'sales');
           DELETE FROM millstream_records WHERE "offset" = 0;
           INSERT INTO millstream_dead_letters (function, topic, generation, partition, "offset", timestamp_ms, value_bytes,
               reason, created_at) VALUES ('shop.income', 'sales', 1, 0, 0, 0, 0, 'the only copy', '2026-01-01')"#
    ));
    shop.change(&SHOP.replace("= n.shop", "= n.shop WHERE s.price > 0"));
    for args in [&["rebuild", "income", "--yes"][..], &["rebuild", "income", "--dry-run"]] {
        let refused = shop.run(args);
        let (_, err) = said(&refused);
        assert_eq!(refused.status.code(), Some(3), "{err}");
        assert!(err.contains("offsets 0..1") && err.contains("--partial") && err.contains("millstream adopt"), "{err}");
    }
    assert_eq!(shop.left(), (0, 0, 0));
    assert_eq!(shop.income("SELECT sum(income) AS n FROM income")[0]["n"], "6.00", "nothing was changed");
    assert_eq!(shop.rebuild("income", &["--partial"])["rebuilt"], true);
    let rows = shop.income("SELECT sum(income) AS n FROM income");
    assert!(rows[0]["n"].as_str().unwrap() < "6.00", "{rows}");
    shop.assert_exact("income");
    let letters = said(&shop.run(&["dead-letters", "list", "-f", "income", "--json"])).0;
    assert!(letters.contains("the only copy"), "the new plan knows nothing of a record before its table: {letters}");
}

#[test]
fn a_rebuild_that_retention_has_passed_begins_anew() {
    let shop = Deployed::new();
    shop.change(&SHOP.replace(SUM, "sum(s.price * 2) AS income"));
    shop.killed();
    shop.produce(SALES);
    shop.produce(SALES);
    // Only the last record of each partition is left.
    let high = r#"(SELECT max("offset") FROM millstream_records AS r WHERE r.topic_id = p.topic_id AND r.partition = p.partition)"#;
    shop.alter(&format!(
        r#"UPDATE millstream_partitions AS p SET low = coalesce({high}, low)
           WHERE topic_id = (SELECT id FROM millstream_topics WHERE name = 'sales');
           DELETE FROM millstream_records AS r WHERE "offset" < (SELECT low FROM millstream_partitions AS p
               WHERE r.topic_id = p.topic_id AND r.partition = p.partition);
           INSERT INTO millstream_dead_letters (function, topic, generation, partition, "offset", timestamp_ms, value_bytes,
               reason, created_at) SELECT 'shop.income', 'sales', 1, p.partition, 1, 0, 0, 'the only copy', '2026-01-01'
               FROM millstream_partitions AS p WHERE p.low > 1"#
    ));
    let refused = shop.run(&["rebuild", "income", "--yes"]);
    assert!(refused.status.code() == Some(3) && said(&refused).1.contains("--partial"), "{:?}", said(&refused));
    let output = shop.run(&["rebuild", "income", "--yes", "--partial"]);
    let (_, err) = said(&output);
    assert!(output.status.success() && err.contains("starts over"), "{err}");
    shop.assert_exact("income");
    let letters = said(&shop.run(&["dead-letters", "list", "-f", "income", "--json"])).0;
    assert!(letters.contains("the only copy"), "the new plan has not seen its record: {letters}");
}

#[test]
fn what_came_from_a_topic_before_it_was_re_created_is_told_first() {
    let shop = Deployed::new();
    shop.change(&SHOP.replacen("partitions: 2\n", "partitions: 2\n    generation: 2\n", 1));
    let refused = shop.run(&["rebuild", "income", "--yes"]);
    let (_, err) = said(&refused);
    assert!(refused.status.code() == Some(3) && err.contains("an earlier generation"), "{err}");
    assert_eq!(shop.rebuild("income", &["--partial"])["rebuilt"], true);
    shop.assert_exact("income");
}

#[test]
fn a_rebuild_goes_on_where_it_was_killed() {
    let shop = Deployed::new();
    shop.change(&SHOP.replace(SUM, "sum(s.price * 2) AS income"));
    shop.killed();
    assert_ne!(shop.left(), (0, 0, 0));
    assert_eq!(shop.income("SELECT sum(income) AS n FROM income")[0]["n"], "3.00", "the old table is there");
    let output = shop.run(&["rebuild", "income", "--yes"]);
    let (out, err) = said(&output);
    assert!(output.status.success() && err.contains("goes on where") && out.contains("rebuilt"), "{out} {err}");
    assert_eq!(shop.income("SELECT sum(income) AS n FROM income")[0]["n"], "6.00");
    shop.assert_exact("income");
    assert_eq!(shop.left(), (0, 0, 0));
}

#[test]
fn a_rebuild_of_another_statement_starts_over() {
    let shop = Deployed::new();
    shop.change(&SHOP.replace(SUM, "count(*) AS income"));
    shop.killed();
    // With hidden states, so that the table beside is another one too.
    shop.change(&SHOP.replace(SUM, "avg(s.price) AS mean"));
    let output = shop.run(&["rebuild", "income", "--yes"]);
    let (_, err) = said(&output);
    assert!(output.status.success() && err.contains("starts over"), "{err}");
    assert_eq!(shop.income("SELECT max(mean) AS n FROM income")[0]["n"], "2.000000");
    shop.assert_exact("income");
    assert_eq!(shop.left(), (0, 0, 0));
}

#[test]
fn a_reset_removes_what_a_rebuild_has_left() {
    let shop = Deployed::new();
    shop.change(&SHOP.replace(SUM, "count(*) AS income"));
    shop.killed();
    let reset = shop.run(&["reset", "income", "--yes"]);
    assert!(reset.status.success(), "{:?}", said(&reset));
    assert_eq!(shop.left(), (0, 0, 0));
}

#[test]
fn a_reset_leaves_a_table_that_only_sounds_like_a_rebuild() {
    let shop = Deployed::new();
    let other =
        "CREATE TABLE income__rebuild_state (a); INSERT INTO millstream_tables VALUES ('income__rebuild_state', '[]')";
    shop.alter(other);
    shop.change(&SHOP.replace(SUM, "count(*) AS income"));
    shop.alter("CREATE TABLE income__rebuild (a); INSERT INTO millstream_tables VALUES ('income__rebuild', '[]')");
    let reset = shop.run(&["reset", "income", "--yes"]);
    assert!(reset.status.success(), "{:?}", said(&reset));
    assert_eq!(shop.left(), (0, 0, 2), "nobody says whose these are");
}

#[test]
fn a_dry_run_changes_nothing() {
    let shop = Deployed::new();
    shop.change(&SHOP.replace(SUM, "count(*) AS income"));
    let dry = shop.run(&["rebuild", "income", "--dry-run"]);
    let (out, _) = said(&dry);
    assert!(out.contains("reads 2 records") && out.contains("Nothing was changed"), "{out}");
    let dry = json(&shop.run(&["rebuild", "income", "--dry-run", "--json"]));
    assert!(dry["records"] == 2 && dry["at_least_ms"].is_i64(), "{dry}");
    assert_eq!(shop.left(), (0, 0, 0));
    assert_eq!(shop.start_of("income")["would"], "stop");
}

#[test]
fn what_cannot_be_rebuilt_says_why() {
    let shop = Deployed::new();
    let refused = |args: &[&str], why: &str, code: i32| {
        let output = shop.run(args);
        let (_, err) = said(&output);
        assert!(output.status.code() == Some(code) && err.contains(why), "{args:?}: {err}");
    };
    refused(&["rebuild", "kept", "--yes"], "By hand: give `kept` and its table new names", 3);
    refused(&["rebuild", "income"], "there is no terminal to confirm it", 2);
    refused(&["rebuild", "nothing"], "has no function `nothing`", 2);
    shop.alter("CREATE TABLE income__rebuild (a)");
    refused(&["rebuild", "income", "--yes"], "income__rebuild", 3);
    shop.alter("DROP TABLE income__rebuild; CREATE INDEX mine ON income (shop)");
    // An index that still fits is kept.
    assert_eq!(shop.rebuild("income", &[])["rebuilt"], true);
    let index = "SELECT count(*) FROM sqlite_master WHERE name = 'mine' AND tbl_name = 'income'";
    let file = rusqlite::Connection::open(shop.data.path().join("millstream.db")).unwrap();
    assert_eq!(file.query_row(index, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    shop.change(&SHOP.replace(" AS shop, sum", " AS seller, sum"));
    refused(&["rebuild", "income", "--yes"], "index mine", 3);
    assert_eq!(shop.left(), (0, 0, 0));
    assert_eq!(shop.rebuild("income", &["--drop-dependents"])["rebuilt"], true);
    let long = "n".repeat(50);
    shop.change(&SHOP.replace("postgres.income", &format!("postgres.{long}")));
    refused(&["rebuild", "income", "--yes"], "too long for a rebuild", 3);
}
