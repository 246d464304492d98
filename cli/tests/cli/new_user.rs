//! The first steps of a new user: a new pipeline, queries over its tables, a reset.

use std::{fs, path::Path, sync::Arc};

use millstream_core::SystemClock;
use millstream_embedded::Embedded;
use tempfile::TempDir;

use super::{data, json, millstream, run};

/// The arguments with `FOLDER` in the data folder.
fn in_folder(data: &TempDir, args: &[&str]) -> Vec<String> {
    let folder = data.path().display().to_string();
    args.iter().map(|arg| arg.replace("FOLDER", &folder)).collect()
}

/// The stdout of a command that succeeds.
#[track_caller]
fn ok(data: &TempDir, args: &[&str]) -> String {
    let args = in_folder(data, args);
    let output = run(data, &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The stderr of a command with a usage error.
#[track_caller]
fn usage(data: &TempDir, args: &[&str]) -> String {
    let args = in_folder(data, args);
    let output = run(data, &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The exit code and the stderr of a command.
fn code(data: &TempDir, args: &[&str]) -> (Option<i32>, String) {
    let args = in_folder(data, args);
    let output = run(data, &args.iter().map(String::as_str).collect::<Vec<_>>());
    (output.status.code(), super::said(&output).1)
}

fn write(data: &TempDir, name: &str, text: &str) {
    fs::write(data.path().join(name), text).expect("a file in the data folder");
}

#[test]
fn a_new_pipeline_runs_at_once_and_can_be_queried_and_reset() {
    let data = data();
    let made = ok(&data, &["new", "FOLDER/my-shop"]);
    assert!(made.contains("millstream dev ") && made.contains("millstream test "), "{made}");
    let told = usage(&data, &["new", "FOLDER/my-shop"]);
    assert!(told.contains("already exists"), "{told}");
    ok(&data, &["check", "FOLDER/my-shop"]);
    assert!(ok(&data, &["test", "FOLDER/my-shop"]).contains("1 passed, 0 failed"));

    ok(&data, &["dev", "FOLDER/my-shop", "--rate", "200", "--for", "1.5", "--plain"]);
    let query = |sql: &str| ok(&data, &["query", sql, "-p", "FOLDER/my-shop", "--json"]);
    let sums: serde_json::Value = serde_json::from_str(&query(
        "SELECT count(*) AS n, sum(revenue) AS revenue, bool_and(revenue < 1000000) AS small FROM sales WHERE revenue > 9",
    ))
    .expect("JSON");
    let revenue = sums[0]["revenue"].as_str().unwrap_or_default();
    assert!(sums[0]["n"].as_u64() > Some(0) && sums[0]["small"] == true, "{sums}");
    assert!(revenue.split_once('.').is_some_and(|(_, cents)| cents.len() == 2), "exact, as text: {sums}");
    let table = ok(&data, &["query", "SELECT minute, product FROM sales ORDER BY 2", "-p", "FOLDER/my-shop"]);
    assert!(table.starts_with("minute") && table.contains("Z  cocoa"), "{table}");
    let told = usage(&data, &["query", "SELECT * FROM sale", "-p", "FOLDER/my-shop"]);
    assert!(told.contains("no table `sale`; the functions of my_shop write sales"), "{told}");
    for sql in ["DELETE FROM sales", "SELECT * FORM sales", "SELECT nothing FROM sales"] {
        usage(&data, &["query", sql, "-p", "FOLDER/my-shop"]);
    }

    let told = usage(&data, &["reset", "FOLDER/my-shop", "sales"]);
    assert!(told.contains("--yes"), "there is no terminal: {told}");
    assert_ne!(query("SELECT * FROM sales").trim(), "[]", "nothing was removed");
    let told = ok(&data, &["reset", "FOLDER/my-shop", "sales", "--yes"]);
    assert!(told.contains("my_shop.sales") && !told.contains("topics"), "{told}");
    let again = json(&run(
        &data,
        &in_folder(&data, &["dev", "FOLDER/my-shop", "--no-generate", "--for", "1.5", "--json"])
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    ));
    let sales = again["functions"].as_array().into_iter().flatten().find(|function| function["name"] == "sales");
    assert!(sales.is_some_and(|sales| sales["records"].as_u64() > Some(50)), "the log is read again: {again}");
    ok(&data, &["audit", "sales", "-p", "FOLDER/my-shop"]);

    ok(&data, &["reset", "FOLDER/my-shop", "--yes"]);
    let topics = ok(&data, &["topics", "-p", "FOLDER/my-shop", "--json"]);
    assert!(topics.contains("\"missing\": true"), "{topics}");
}

#[test]
fn a_pipeline_is_guessed_from_records() {
    let data = data();
    write(
        &data,
        "Web Events.jsonl",
        concat!(
            r#"{"user":"ann","Order Id":1,"total":12.5,"at":"2026-11-21T10:00:00Z","items":[{"sku":"a"}],"odd":1}"#,
            "\n",
            r#"{"user":"bob","Order Id":2,"total":7,"at":"2026-11-21T10:00:30Z","items":[],"odd":"b"}"#,
            "\n",
            r#"{"user":"ann","Order Id":3,"total":null,"at":"2026-11-21T10:01:00Z","items":[{"sku":"b"}],"odd":2}"#,
            "\n",
        ),
    );
    let told = ok(&data, &["new", "FOLDER/web", "--from", "FOLDER/Web Events.jsonl"]);
    assert!(told.contains("from 3 records") && told.contains("event time: `at`"), "{told}");
    assert!(told.contains("`odd`: its values are of several types"), "{told}");
    let text = fs::read_to_string(data.path().join("web/pipeline.yaml")).expect("the file");
    for line in
        ["total: decimal(18,2)\n", "\"Order Id\": bigint not null\n", "at: timestamp not null\n", "event_time: at"]
    {
        assert!(text.contains(line), "{line:?}: {text}");
    }
    ok(&data, &["check", "FOLDER/web"]);
    assert!(ok(&data, &["test", "FOLDER/web"]).contains("1 passed, 0 failed"));
    ok(&data, &["produce", "web_events", "FOLDER/Web Events.jsonl", "-p", "FOLDER/web"]);
    ok(&data, &["dev", "FOLDER/web", "--for", "1.5"]);
    let rows =
        ok(&data, &["query", "SELECT sum(records) AS n FROM web_events_by_minute", "-p", "FOLDER/web", "--json"]);
    assert!(rows.contains("\"n\": 3"), "{rows}");

    // Names that are SQL keywords, empty cells, and no time field.
    write(&data, "order.csv", "n,order\n1,tea\n2,\"say \"\"x\"\"\"\n3,\n4,tea\n");
    ok(&data, &["new", "FOLDER/words", "--from", "FOLDER/order.csv"]);
    ok(&data, &["check", "FOLDER/words"]);
    assert!(ok(&data, &["test", "FOLDER/words"]).contains("1 passed, 0 failed"));

    write(&data, "broken.jsonl", "{\"a\":1}\n{\"a\":\n");
    let told = usage(&data, &["new", "FOLDER/broken", "--from", "FOLDER/broken.jsonl"]);
    assert!(told.contains("line 2"), "{told}");
    assert!(!Path::new(&data.path().join("broken")).exists(), "nothing is left behind");
}

/// Names from outside are data: they must not change the file's meaning, nor control the terminal.
#[test]
fn names_from_outside_are_quoted_or_left_out() {
    let data = data();
    let line = r#"{"ok":1,"line\nbreak":1,"esc\u001b[31m":2,"in":{"x\ty":1,"z":1},"true":3,"a: b # c":4,"at":"2026-11-21T10:00:01Z"}"#;
    for name in ["true", "null"] {
        write(&data, &format!("{name}.jsonl"), &format!("{line}\n"));
        let told = ok(&data, &["new", &format!("FOLDER/of-{name}"), "--from", &format!("FOLDER/{name}.jsonl")]);
        assert!(!told.contains('\u{1b}') && told.contains("`line\u{fffd}break`: the name has"), "{told}");
        assert!(told.contains("`in.x\u{fffd}y`: the name has"), "{told}");
        ok(&data, &["check", &format!("FOLDER/of-{name}")]);
        assert!(ok(&data, &["test", &format!("FOLDER/of-{name}")]).contains("1 passed, 0 failed"));
    }
    let many: Vec<String> = (0..5_000).map(|at| format!("\"f{at}\":{at}")).collect();
    write(&data, "many.jsonl", &format!("{{{}}}\n", many.join(",")));
    let told = usage(&data, &["new", "FOLDER/many", "--from", "FOLDER/many.jsonl"]);
    assert!(told.contains("1,000 fields"), "{told}");
}

#[test]
fn a_test_reports_dead_letters() {
    let data = data();
    ok(&data, &["new", "FOLDER/shop"]);
    let file = data.path().join("shop/pipeline.yaml");
    let text = fs::read_to_string(&file).expect("the file");
    let expected = "      dead_letters: { orders: [pieces] }";
    let (before, after) = text.split_once(expected).expect("the example expects one");
    fs::write(&file, format!("{before}{}", after.split_once('\n').map_or("", |(_, rest)| rest))).expect("written");
    let folder = data.path().join("shop").display().to_string();
    let test = run(&data, &["test", &folder]);
    let text = String::from_utf8_lossy(&test.stdout);
    assert_eq!(test.status.code(), Some(1), "{text}");
    assert!(text.contains("FAILED") && text.contains("dead letters of orders: not expected: orders/1/"), "{text}");
    assert!(text.contains(" of shop.sales: field `pieces`"), "{text}");

    // A line that doesn't even have a time reaches the functions, and is reported.
    let lines = "{\"product\":\"tea\",\"pieces\":1,\"price\":\"1\"}\nno JSON\n";
    fs::write(data.path().join("shop/fixtures/orders.jsonl"), lines).expect("written");
    let text = run(&data, &["test", &folder]).stdout;
    assert_eq!(String::from_utf8_lossy(&text).matches("not expected: orders/1/").count(), 2);
}

#[test]
fn external_systems_are_never_reset() {
    let data = data();
    let reset = |variable: &str, value: &str| {
        let mut reset = millstream(&data, &["reset", "pipelines/bank", "--yes", "--json"]);
        json(&reset.env(variable, value).output().expect("the binary runs"))
    };
    let words = |plan: &serde_json::Value, part: &str| plan[part].to_string();
    // Port 9 (discard) of this machine: nothing listens there, and no connection is needed.
    let plan = reset("MILLSTREAM_POSTGRES_URL", "postgres://me@127.0.0.1:9/x");
    assert!(words(&plan, "kept").contains("DELETE FROM millstream_fences WHERE function = 'bank.flow'"), "{plan}");
    assert!(words(&plan, "kept").contains("the topics transaction"), "its fences refer to them: {plan}");
    assert!(!words(&plan, "removed").contains("transaction_flow"), "{plan}");
    let plan = reset("MILLSTREAM_KAFKA_BROKERS", "127.0.0.1:9");
    assert!(
        words(&plan, "kept").contains("in Kafka") && words(&plan, "removed").contains("transaction_flow"),
        "{plan}"
    );
}

/// A table doesn't tell its pipeline: another pipeline's tables in the same file might be removed too.
#[test]
fn a_folder_of_several_pipelines_is_not_reset() {
    let data = data();
    for (name, column) in [("one", "name: one"), ("two", "name: two")] {
        ok(&data, &["new", &format!("FOLDER/{name}")]);
        let text = fs::read_to_string(data.path().join(name).join("pipeline.yaml")).expect("the file");
        assert!(text.contains(column), "{text}");
        // Two pipelines may not fill one table.
        let own = text
            .replace("postgres.sales", &format!("postgres.sales_{name}"))
            .replace("lake.", &format!("lake.{name}_"));
        fs::write(data.path().join(name).join("pipeline.yaml"), own).expect("the file");
        ok(&data, &["dev", &format!("FOLDER/{name}"), "--rate", "100", "--for", "1.5"]);
    }
    for args in [&["reset", "FOLDER/one", "-y"][..], &["reset", "FOLDER/one", "sales", "-y"]] {
        let (code, told) = code(&data, args);
        assert!(code == Some(3) && told.contains("pipeline two") && told.contains("MILLSTREAM_DATA_DIR"), "{told}");
    }
    assert!(ok(&data, &["query", "SELECT count(*) AS n FROM sales_two", "-p", "FOLDER/two"]).contains('n'));
}

/// Words of SQL are quoted in the statement, and ids beyond 64 bits stay exact.
#[test]
fn a_guessed_pipeline_passes_its_own_test_with_any_names() {
    let data = data();
    let file = data.path().join("lateral.jsonl");
    let record = |n: u32| {
        let id = "123456789012345678901";
        format!(
            r#"{{"returning":"2026-11-21T10:00:0{n}Z","distinct":1.{n},"exists":"x{}","trim":"2026-02-30","id":{id}}}"#,
            n % 2
        )
    };
    fs::write(&file, (0..6).map(record).collect::<Vec<_>>().join("\n")).expect("written");
    ok(&data, &["new", "FOLDER/words", "--from", &file.display().to_string()]);
    let text = fs::read_to_string(data.path().join("words/pipeline.yaml")).expect("the file");
    for line in ["trim: string not null", "id: decimal(38,0) not null", "\"distinct\"", "FROM \"lateral\""] {
        assert!(text.contains(line), "{line}: {text}");
    }
    ok(&data, &["test", "FOLDER/words"]);
}

/// What can't be guessed is told about the file that was given, and nothing is made.
#[test]
fn a_file_that_gives_no_pipeline_is_named() {
    let data = data();
    let file = data.path().join("twice.csv");
    for text in ["a,a\n1,2\n", "a,_offset\n1,2\n"] {
        fs::write(&file, text).expect("written");
        let (exit, told) = code(&data, &["new", "FOLDER/twice", "--from", &file.display().to_string()]);
        assert!(exit == Some(2) && told.contains("twice.csv: line 1"), "{told}");
        assert!(!data.path().join("twice").exists());
    }
}

/// A pipeline that only sends records has no fences.
#[test]
fn the_records_of_another_pipeline_are_not_reset() {
    let data = data();
    for name in ["one", "two"] {
        ok(&data, &["new", &format!("FOLDER/{name}")]);
    }
    ok(&data, &["produce", "orders", "FOLDER/two/fixtures/orders.jsonl", "--skip-bad", "-p", "FOLDER/two"]);
    let (exit, told) = code(&data, &["reset", "FOLDER/one", "-y"]);
    assert!(exit == Some(3) && told.contains("pipeline two"), "{told}");
    assert!(ok(&data, &["reset", "FOLDER/two", "-y"]).contains("orders"));
    ok(&data, &["produce", "orders", "FOLDER/one/fixtures/orders.jsonl", "--skip-bad", "-p", "FOLDER/one"]);
    assert!(ok(&data, &["reset", "FOLDER/one", "-y"]).contains("orders"));
}

#[test]
fn a_reset_does_not_wait_and_does_not_guess() {
    let data = data();
    ok(&data, &["new", "FOLDER/shop"]);
    ok(&data, &["dev", "FOLDER/shop", "--rate", "100", "--for", "1.5"]);

    // Another process has the file open, like a running `dev`.
    let open = Embedded::open(&data.path().join("millstream.db"), Arc::new(SystemClock)).expect("the file");
    let (exit, told) = code(&data, &["reset", "FOLDER/shop", "-y"]);
    assert!(exit == Some(3) && told.contains("another process has"), "{told}");
    drop(open);

    // A name that is both a function and a folder.
    let shop = data.path().join("shop");
    let both = shop.join("sales");
    fs::create_dir(&both).expect("a folder");
    let in_it = |args: &[&str]| {
        let mut command = millstream(&data, args);
        let output = command.current_dir(&shop).output().expect("the binary runs");
        (output.status.code(), super::said(&output))
    };
    let (exit, (_, told)) = in_it(&["reset", "sales", "-y"]);
    assert!(exit == Some(2) && told.contains("a function") && told.contains("./sales"), "{told}");
    let (exit, (told, err)) = in_it(&["reset", "sales", "-p", ".", "-y"]);
    assert!(exit == Some(0) && told.contains("of shop.sales"), "{told} {err}");

    // SQL that can't be planned doesn't tell which tables belong to the function.
    let file = data.path().join("shop/pipeline.yaml");
    let text = fs::read_to_string(&file).expect("the file");
    assert!(text.contains("sum("), "{text}");
    fs::write(&file, text.replace("sum(", "summ(")).expect("written");
    let (exit, told) = code(&data, &["reset", "FOLDER/shop", "-y"]);
    assert!(exit == Some(3) && told.contains("which tables"), "{told}");
}

#[test]
fn the_lake_can_be_queried_and_reset() {
    let data = data();
    let file = super::root().join("pipelines/bank/fixtures/transactions.jsonl").display().to_string();
    ok(&data, &["produce", "transaction", &file, "-p", "pipelines/bank"]);
    ok(&data, &["dev", "pipelines/bank", "--no-generate", "--for", "1.5"]);
    let rows =
        ok(&data, &["query", "SELECT count(*) AS n, sum(amount) AS sum FROM transactions", "-p", "pipelines/bank"]);
    assert!(rows.contains("10021.35"), "{rows}");
    let lake = data.path().join("lake/transactions");
    assert!(lake.is_dir());
    ok(&data, &["reset", "archive", "-p", "pipelines/bank", "-y"]);
    assert!(!lake.exists());
}
