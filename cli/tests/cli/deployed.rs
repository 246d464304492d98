//! A pipeline file that has changed since its tables were filled.

use serde_json::Value;
use tempfile::TempDir;

use super::{data, json, pipeline, run, said};

pub(super) const SHOP: &str = "
name: shop
topics:
  sales:
    partitions: 2
    schema: { shop: string, price: 'decimal(9,2) not null', at: timestamp not null, seen: timestamp not null }
    event_time: at
  returns:
    partitions: 1
    schema: { shop: string, price: 'decimal(9,2) not null', at: timestamp not null }
    event_time: at
functions:
  income:
    uses: aggregate
    from: sales
    sql: |
      SELECT tumble(s.at, INTERVAL '1 minute') AS minute, n.title AS shop, sum(s.price) AS income
      FROM sales s JOIN names n ON s.shop = n.shop GROUP BY 1, 2
    into: postgres.income
  kept:
    uses: archive
    from: sales
    into: lake.sales
references:
  names: { file: names.csv, schema: { shop: string not null, title: string not null } }
";

pub(super) const SALES: &str = r#"{"shop":"a","price":1,"at":"2026-01-01T00:00:00Z","seen":"2026-01-01T00:00:00Z"}
{"shop":"b","price":2,"at":"2026-01-01T00:00:01Z","seen":"2026-01-01T00:00:00Z"}
"#;

/// A pipeline with its data folder.
pub(super) struct Deployed {
    pub(super) data: TempDir,
    pub(super) of: [String; 2],
}

impl Deployed {
    /// Two sales have been processed by [`SHOP`].
    pub(super) fn new() -> Self {
        Self::of(SHOP, SALES)
    }

    /// These sales have been processed by this pipeline.
    pub(super) fn of(text: &str, sales: &str) -> Self {
        let data = data();
        std::fs::write(data.path().join("names.csv"), "shop,title\na,A\nb,B\n").unwrap();
        std::fs::copy(data.path().join("names.csv"), data.path().join("others.csv")).unwrap();
        let of = pipeline(&data, text);
        let deployed = Self { data, of };
        deployed.produce(sales);
        deployed.dev();
        deployed
    }

    pub(super) fn run(&self, args: &[&str]) -> std::process::Output {
        let of = self.of.each_ref().map(String::as_str);
        run(&self.data, &[args, &of[..]].concat())
    }

    pub(super) fn change(&self, text: &str) {
        pipeline(&self.data, text);
    }

    pub(super) fn produce(&self, lines: &str) {
        let file = self.data.path().join("sales.jsonl");
        std::fs::write(&file, lines).unwrap();
        let produced = self.run(&["produce", "sales", &file.display().to_string(), "--unchecked"]);
        assert!(produced.status.success(), "{produced:?}");
    }

    #[track_caller]
    pub(super) fn dev(&self) {
        let ran = self.run(&["dev", "--no-generate", "--for", "1.5"]);
        assert!(ran.status.success(), "{:?}", said(&ran));
    }

    pub(super) fn income(&self, sql: &str) -> Value {
        json(&self.run(&["query", sql, "--json"]))
    }

    pub(super) fn alter(&self, sql: &str) {
        rusqlite::Connection::open(self.data.path().join("millstream.db")).unwrap().execute_batch(sql).unwrap();
    }

    /// What `check --deployed` says a start of `income` would do.
    pub(super) fn start_of(&self, function: &str) -> Value {
        let checked = json(&self.run(&["check", "--deployed", "--json"]));
        let starts = checked["deployed"].as_array().unwrap_or_else(|| panic!("{checked}")).clone();
        starts.into_iter().find(|start| start["function"] == function).unwrap_or_else(|| panic!("{checked}"))
    }
}

/// Each way in which a pipeline file can change, with what is said of it.
#[test]
fn every_change_of_a_deployment_is_found_before_it_does_harm() {
    let shop = Deployed::new();
    for (what, from, to, why, change) in [
        ("statement", "sum(s.price)", "sum(s.price * 2)", "another plan", "the statement was"),
        ("where", "s.shop = n.shop", "s.shop = n.shop WHERE s.price > 0", "another plan", "the statement was"),
        ("window", "1 minute", "2 minutes", "another plan", "the statement was"),
        ("column", "AS income\n", "AS income, max(s.price) AS top\n", "another plan", "the statement was"),
        ("having", "BY 1, 2", "BY 1, 2 HAVING sum(s.price) > 1", "another plan", "the statement was"),
        ("topics", "from: sales\n    sql", "from: [sales, returns]\n    sql", "another plan", "`returns` is read too"),
        ("generation", "partitions: 2\n", "partitions: 2\n    generation: 2\n", "another plan", "was 1, and is 2"),
        (
            "event time",
            "event_time: at\n  returns",
            "event_time: seen\n  returns",
            "another plan",
            "was at, and is seen",
        ),
        (
            "field",
            "{ shop: string, price: 'decimal(9,2) not null', at: timestamp not null, s",
            "{ shop: string, price: 'decimal(11,2) not null', at: timestamp not null, s",
            "another plan",
            "decimal(11,2)",
        ),
        ("reference", "names.csv", "others.csv", "another plan", "comes from another place"),
        (
            "lateness",
            "into: postgres",
            "late: dead-letter\n    into: postgres",
            "another plan",
            "which events are late",
        ),
        (
            "function",
            "  income:\n",
            "  earned:\n",
            "filled by function shop.income",
            "was shop.income, and is shop.earned",
        ),
        ("pipeline", "name: shop", "name: store", "filled by function shop.income", "and is store.income"),
        ("table", "into: postgres.income", "into: postgres.earned", "has filled table income so far", ""),
    ] {
        assert!(SHOP.contains(from), "{what}");
        shop.change(&SHOP.replacen(from, to, 1));
        let function = if what == "function" { "earned" } else { "income" };
        let start = shop.start_of(function);
        assert_eq!(start["would"], "stop", "{what}: {start}");
        assert!(start["why"].as_str().unwrap().contains(why), "{what}: {start}");
        let changes = start["changes"].as_array().unwrap();
        let is_said = |change: &str| changes.iter().any(|said| said.as_str().unwrap().contains(change));
        assert!(change.is_empty() || is_said(change), "{what}: {start}");
        assert_eq!(is_said("side by side"), what == "window", "{what}: {start}");
        if change != "the statement was" {
            assert!(!is_said("the statement was"), "{what}: {start}");
        }
    }
    // Nothing of it has changed anything.
    shop.change(SHOP);
    assert_eq!(shop.start_of("income")["would"], "go on");
}

#[test]
fn other_words_are_the_same_plan() {
    let shop = Deployed::new();
    for (from, to) in [
        ("SELECT tumble", "select -- each minute\n            TUMBLE"),
        ("FROM sales s JOIN names n ON s.shop = n.shop", "FROM sales AS s INNER JOIN names AS n ON n.shop = s.shop"),
        ("partitions: 2\n", "partitions: 2\n    compression: zstd\n"),
        ("seen: timestamp not null }", "seen: timestamp not null, new: string }"),
        ("into: postgres.income", "batch: { max_records: 7 }\n    start: latest\n    into: postgres.income"),
    ] {
        assert!(SHOP.contains(from), "{from}");
        shop.change(&SHOP.replacen(from, to, 1));
        let start = shop.start_of("income");
        assert_eq!(start["would"], "go on", "{to}: {start}");
    }
    // A start takes the new words down.
    shop.produce(SALES);
    shop.dev();
    assert_eq!(shop.income("SELECT sum(income) AS n FROM income")[0]["n"], "6.00");
}

#[test]
fn what_has_gone_from_the_store_is_missed() {
    let shop = Deployed::new();
    shop.alter("DELETE FROM income");
    let start = shop.start_of("income");
    assert!(
        start["why"].as_str().unwrap().contains("has written 2 rows to table income, and the table is empty"),
        "{start}"
    );
    shop.alter("DROP TABLE income; DELETE FROM millstream_tables WHERE name = 'income'");
    let start = shop.start_of("income");
    assert!(start["why"].as_str().unwrap().contains("table income, and the table is gone"), "{start}");
    let ran = shop.run(&["dev", "--no-generate", "--for", "30"]);
    let (_, err) = said(&ran);
    assert_eq!(ran.status.code(), Some(3), "{err}");
    assert!(err.contains("`millstream adopt income -p ") && err.contains("`millstream rebuild income -p "), "{err}");

    let shop = Deployed::new();
    shop.alter("DELETE FROM millstream_fences WHERE function = 'shop.income'");
    let start = shop.start_of("income");
    assert!(start["why"].as_str().unwrap().contains("has rows, and `income` has no fences beside it"), "{start}");
}

#[test]
fn a_change_is_adopted() {
    let shop = Deployed::new();
    let wider = SHOP
        .replace("AS income\n", "AS income, max(s.price) AS top\n")
        .replace("s.shop = n.shop GROUP", "s.shop = n.shop WHERE s.price > 1 GROUP");
    shop.change(&wider);
    let refused = shop.run(&["adopt", "income"]);
    assert_eq!(refused.status.code(), Some(2), "there is no terminal to confirm it: {:?}", said(&refused));
    let adopted = json(&shop.run(&["adopt", "income", "--yes", "--json"]));
    assert_eq!((&adopted["adopted"], &adopted["function"]), (&true.into(), &"shop.income".into()), "{adopted}");
    assert_eq!(shop.start_of("income")["would"], "go on");
    shop.produce(SALES);
    shop.dev();
    let rows = shop.income("SELECT shop, income, top FROM income ORDER BY shop");
    let row = |at: usize| {
        [&rows[at]["shop"], &rows[at]["income"], &rows[at]["top"]]
            .map(|cell| cell.as_str().unwrap_or("null").to_owned())
    };
    assert_eq!(row(0), ["A", "1.00", "null"], "the new plan leaves A out");
    assert_eq!(row(1), ["B", "4.00", "2.00"], "2 by the old plan and 2 by the new one");
    let again = json(&shop.run(&["adopt", "income", "--yes", "--json"]));
    assert_eq!(again["adopted"], false, "{again}");
}

#[test]
fn what_readers_see_is_made_anew_when_a_view_is_adopted() {
    let shop = Deployed::new();
    let mean =
        SHOP.replace("sum(s.price) AS income", "avg(s.price) AS mean").replace("postgres.income", "postgres.means");
    shop.change(&mean.replace("  income:\n", "  means:\n"));
    shop.dev();
    assert_eq!(shop.income("SELECT count(*) AS n FROM means")[0]["n"], 2);
    shop.change(&mean.replace("  income:\n", "  means:\n").replace("BY 1, 2", "BY 1, 2 HAVING avg(s.price) > 1.5"));
    let adopted = json(&shop.run(&["adopt", "means", "--yes", "--json"]));
    assert_eq!(adopted["adopted"], true, "{adopted}");
    let rows = shop.income("SELECT shop, mean FROM means");
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["shop"]), (1, &"B".into()), "{rows}");
    shop.dev();
    assert_eq!(shop.run(&["audit", "means"]).status.code(), Some(0));
}

#[test]
fn results_are_not_adopted_as_states() {
    let shop = Deployed::new();
    shop.change(&SHOP.replace("sum(s.price) AS income", "avg(s.price) AS income"));
    let refused = shop.run(&["adopt", "income", "--yes"]);
    let (_, err) = said(&refused);
    assert!(refused.status.code() == Some(3) && err.contains("can't be computed from the results"), "{err}");
    shop.change(SHOP);
    assert_eq!(shop.start_of("income")["would"], "go on", "nothing was changed");
}

#[test]
fn a_renamed_function_takes_its_table_and_its_fences_along() {
    let shop = Deployed::new();
    let renamed = SHOP.replace("name: shop", "name: store").replace("  income:\n", "  earned:\n");
    shop.change(&renamed);
    for function in ["earned", "kept"] {
        let adopted = json(&shop.run(&["adopt", function, "--yes", "--json"]));
        assert_eq!(
            (&adopted["adopted"], adopted["function"].as_str()),
            (&true.into(), Some(&*format!("store.{function}")))
        );
    }
    shop.produce(SALES);
    shop.dev();
    let audit = shop.run(&["audit"]);
    assert_eq!(audit.status.code(), Some(0), "{:?}", said(&audit));
    assert_eq!(shop.income("SELECT sum(income) AS n FROM income")[0]["n"], "6.00");
    assert_eq!(shop.income("SELECT count(*) AS n FROM sales")[0]["n"], 4);
}

/// What a message names as a way out is one.
#[test]
fn whatever_stops_a_start_can_be_adopted() {
    const FRESH: &str = "partitions: 2\n    generation: 2\n";
    let tables = "DELETE FROM millstream_tables WHERE name = 'income'";
    for (what, change, sql, sum) in [
        ("emptied", None, "DELETE FROM income".to_owned(), "3.00"),
        ("dropped", None, format!("DROP TABLE income; {tables}"), "3.00"),
        ("dropped by hand", None, "DROP TABLE income".to_owned(), "3.00"),
        ("fences", None, "DELETE FROM millstream_fences WHERE function = 'shop.income'".to_owned(), "9.00"),
        ("table", Some(("postgres.income", "postgres.earned")), String::new(), "3.00"),
        ("fresh", Some(("partitions: 2\n", FRESH)), "DELETE FROM income".to_owned(), "6.00"),
    ] {
        let shop = Deployed::new();
        if let Some((from, to)) = change {
            shop.change(&SHOP.replacen(from, to, 1));
        }
        shop.alter(&sql);
        assert_eq!(shop.start_of("income")["would"], "stop", "{what}");
        // The archive may have to be adopted too.
        for function in ["income", "kept"] {
            let adopted = shop.run(&["adopt", function, "--yes"]);
            assert!(adopted.status.success(), "{what}: {:?}", said(&adopted));
        }
        shop.produce(SALES);
        shop.dev();
        let table = if what == "table" { "earned" } else { "income" };
        assert_eq!(shop.income(&format!("SELECT sum(income) AS n FROM {table}"))[0]["n"], sum, "{what}");
        assert_eq!(shop.start_of("income")["would"], "go on", "{what}");
    }
}

#[test]
fn nothing_is_left_of_a_plan_without_rows_and_fences() {
    let shop = Deployed::new();
    shop.alter("DELETE FROM income; DELETE FROM millstream_fences WHERE function = 'shop.income'");
    shop.change(&SHOP.replace("sum(s.price)", "max(s.price)"));
    assert_eq!(shop.start_of("income")["would"], "begin");
}

#[test]
fn a_way_to_states_and_back_loses_no_rows() {
    let shop = Deployed::new();
    let mean =
        SHOP.replace("sum(s.price) AS income", "avg(s.price) AS mean").replace("postgres.income", "postgres.means");
    let mean = mean.replace("  income:\n", "  means:\n");
    shop.change(&mean);
    shop.dev();
    let rows = mean.replace(
        "SELECT tumble(s.at, INTERVAL '1 minute') AS minute, n.title AS shop, avg(s.price) AS mean",
        "SELECT s.at AS minute, n.title AS shop, s.price AS mean",
    );
    shop.change(&rows.replace(" GROUP BY 1, 2", ""));
    let refused = shop.run(&["adopt", "means", "--yes"]);
    let (_, err) = said(&refused);
    assert!(refused.status.code() == Some(3) && err.contains("`means_state`"), "{err}");
}
