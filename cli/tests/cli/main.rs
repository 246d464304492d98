//! The command as users run it: the built binary with its own data folder.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod audit;
mod deployed;
mod partitions;
mod peek;
mod polled;
mod preview;
mod produce;
mod rebuild;
mod redrive;
mod start;
mod ways;

mod new_user;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The command in the project's folder, without the environment's settings.
fn millstream(data: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.current_dir(root()).args(args).env("MILLSTREAM_DATA_DIR", data.path());
    for name in ["KAFKA_BROKERS", "KAFKA_PROFILE", "POSTGRES_URL", "LAKE_URL", "LOG", "FAULT", "CREATE"] {
        command.env_remove(format!("MILLSTREAM_{name}"));
    }
    command
}

fn run(data: &TempDir, args: &[&str]) -> Output {
    millstream(data, args).output().expect("the binary runs")
}

#[track_caller]
fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: stdout {text}\nstderr {said}"))
}

fn data() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Writes the test's own pipeline file into its data folder, and returns the arguments that name it.
fn pipeline(data: &TempDir, text: &str) -> [String; 2] {
    let file = data.path().join("pipeline.yaml");
    std::fs::write(&file, text).expect("a file in the data folder");
    ["-p".to_owned(), file.display().to_string()]
}

/// What a command wrote: stdout, stderr.
fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The number of processed records and the sum of the fences of one function in a summary.
fn flow(summary: &Value) -> (u64, i64) {
    let flow = summary["functions"].as_array().into_iter().flatten().find(|function| function["name"] == "flow");
    let flow = flow.unwrap_or_else(|| panic!("there is no flow in {summary}"));
    let fences = flow["partitions"].as_array().into_iter().flatten().map(|partition| partition["fence"].as_i64());
    (flow["records"].as_u64().unwrap_or(0), fences.flatten().sum())
}

#[test]
fn dev_processes_records_and_continues_where_it_stopped() {
    let data = data();
    let dev = ["dev", "pipelines/bank", "--rate", "500", "--for", "3", "--plain", "--json"];
    let first = run(&data, &dev);
    assert!(first.status.success(), "{first:?}");
    let said = String::from_utf8_lossy(&first.stderr);
    assert!(said.contains("| flow ") && said.contains("dead letters 0"), "a line a second: {said}");
    let first = json(&first);
    let (records, fences) = flow(&first);
    assert!(records > 500, "{first}");
    assert_eq!(fences, records as i64, "everything from offset 0: {first}");

    let second = json(&run(&data, &dev));
    let (more, both) = flow(&second);
    assert!(more > 500 && both == fences + more as i64, "no record twice, none left out: {first} {second}");

    for function in ["flow", "archive"] {
        let audit = run(&data, &["audit", function, "-p", "pipelines/bank", "--json"]);
        assert_eq!(audit.status.code(), Some(0), "{audit:?}");
        let audit = json(&audit);
        assert!(audit["clean"] == true && audit["rows"].as_u64() > Some(0), "{audit}");
        // Functions end at different offsets: on a busy machine the archive may be behind.
        let least = if function == "flow" { both } else { 1 };
        assert!(audit["records"].as_i64() >= Some(least), "{audit}");
    }
}

#[test]
fn dev_drains_on_a_signal() {
    for signal in ["INT", "TERM"] {
        let data = data();
        let mut command = millstream(&data, &["dev", "pipelines/stocks", "--rate", "200", "--plain"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        // The first line with records shows that it runs.
        let mut said = BufReader::new(child.stderr.take().expect("stderr is piped")).lines().map_while(Result::ok);
        assert!(said.any(|line| line.contains("records") && !line.contains(" 0 records")), "no record came");
        let killed = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().expect("kill runs");
        assert!(killed.success());
        said.by_ref().for_each(drop);
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("`millstream dev pipelines/stocks` continues"), "{text}");
        assert!(text.contains("extremes: "), "{text}");
    }
}

#[test]
fn up_topics_produce_run_and_dead_letters_work_together() {
    let data = data();
    let bank = |args: &[&str]| run(&data, &[&["-p", "pipelines/bank"], args].concat());
    let before = json(&bank(&["topics", "--json"]));
    assert_eq!(before[0]["missing"], true, "{before}");
    assert!(bank(&["up"]).status.success());

    let file = data.path().join("records.jsonl");
    let line = |branch: &str, amount: &str| {
        format!(r#"{{"branch":"{branch}","currency":"EUR","amount":{amount},"at":"2026-01-01T00:00:00Z"}}"#)
    };
    // Broken records are sent on request, for the functions to refuse.
    std::fs::write(&file, [line("Oslo", "1.50"), line("Oslo", "\"x\""), line("Vienna", "2")].join("\n")).unwrap();
    let produced = bank(&["produce", "transaction", &file.display().to_string(), "-v", "--unchecked"]);
    let text = String::from_utf8_lossy(&produced.stdout);
    assert!(produced.status.success(), "{produced:?}");
    assert_eq!(text.matches("transaction partition ").count(), 3, "{text}");
    assert!(text.contains("3 records sent to transaction in "), "{text}");

    let ran = run(&data, &["dev", "pipelines/bank", "--no-generate", "--for", "1.5", "--json"]);
    assert_eq!(flow(&json(&ran)).0, 3, "{ran:?}");
    let topics = json(&bank(&["topics", "--json"]));
    assert_eq!((&topics[0]["records"], &topics[0]["lag"]["bank.flow"]), (&3.into(), &0.into()), "{topics}");

    let letters = String::from_utf8(bank(&["dead-letters", "list", "-f", "flow", "--json"]).stdout).unwrap();
    let letter: Value = serde_json::from_str(letters.trim()).unwrap_or_else(|error| panic!("{error}: {letters}"));
    let position = letter["position"].as_str().unwrap();
    let shown = bank(&["dead-letters", "show", position, "-f", "flow"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(r#""amount":"x""#), "{shown:?}");
    assert_eq!(bank(&["dead-letters", "show", "transaction/1/0/999"]).status.code(), Some(2));
    assert_eq!(bank(&["audit", "flow"]).status.code(), Some(0));

    // The fence says how far the function has come, whatever its group has committed.
    let store = rusqlite::Connection::open(data.path().join("millstream.db")).unwrap();
    store.execute("UPDATE millstream_fences SET next_offset = 0 WHERE function = 'bank.flow'", []).unwrap();
    let topics = json(&bank(&["topics", "--json"]));
    assert_eq!(topics[0]["lag"]["bank.flow"], 3, "{topics}");
    assert_eq!(topics[0]["partitions"][0]["fence"]["bank.flow"], 0, "{topics}");
    // A rebuild that was stopped has letters under its own name.
    store.execute("UPDATE millstream_dead_letters SET function = function || '.rebuild'", []).unwrap();
    for args in [&["dead-letters", "list", "-f", "flow"][..], &["dead-letters", "list"]] {
        let listed = said(&bank(args)).0;
        assert!(listed.contains("bank.flow.rebuild") && listed.contains(position), "{listed}");
    }
}

/// For several functions too, and independent of the records' times.
#[test]
fn the_letter_that_was_stored_last_is_listed_first() {
    let data = data();
    let bank = |args: &[&str]| run(&data, &[&["-p", "pipelines/bank"], args].concat());
    let file = data.path().join("records.jsonl");
    for time in ["2026-01-02", "2026-01-01"] {
        let line = format!(r#"{{"branch":"Oslo","currency":"EUR","amount":"x","at":"{time}T00:00:00Z"}}"#);
        std::fs::write(&file, line).unwrap();
        assert!(bank(&["produce", "transaction", &file.display().to_string(), "--unchecked"]).status.success());
        assert!(run(&data, &["dev", "pipelines/bank", "--no-generate", "--for", "1.5"]).status.success());
    }
    let listed = said(&bank(&["dead-letters", "list", "--json"])).0;
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let older: Vec<bool> = listed.iter().map(|letter| letter.to_string().contains("2026-01-01")).collect();
    assert_eq!(older, [true, true, false, false], "{listed:?}");
    let newest = said(&bank(&["dead-letters", "list", "--json", "--limit", "1"])).0;
    assert_eq!(serde_json::from_str::<Value>(newest.trim()).unwrap(), listed[0]);
}

#[test]
fn an_audit_finds_what_was_tampered_with() {
    let data = data();
    let file = root().join("pipelines/bank/fixtures/transactions.jsonl").display().to_string();
    let bank = |args: &[&str]| run(&data, &[&["-p", "pipelines/bank"], args].concat());
    assert!(bank(&["produce", "transaction", &file]).status.success());
    assert!(run(&data, &["dev", "pipelines/bank", "--no-generate", "--for", "1.5"]).status.success());
    assert_eq!(bank(&["audit", "archive"]).status.code(), Some(0));
    let rows = std::fs::read_dir(data.path().join("lake/transactions")).unwrap().flatten();
    let date = rows.map(|entry| entry.path()).find(|path| path.is_dir() && path.to_string_lossy().contains("date="));
    let date = date.unwrap();
    let stolen = std::fs::read_dir(&date).unwrap().flatten().next().unwrap().path();
    std::fs::remove_file(stolen).unwrap();
    assert_ne!(bank(&["audit", "archive"]).status.code(), Some(0));
}

#[test]
fn generate_prints_the_position_of_each_record() {
    let data = data();
    let output = run(&data, &["generate", "quotes", "-p", "pipelines/stocks", "--rate", "60", "--for", "1"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.lines().count() >= 30, "{text}");
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(matches!(words[..], ["price", "partition", _, "offset", _]), "{line}");
    }
}

#[test]
fn run_makes_records_until_it_is_asked_to_end() {
    let data = data();
    let mut command = millstream(&data, &["run", "quotes", "-p", "pipelines/stocks"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let has_records = || {
        let topics = json(&run(&data, &["topics", "-p", "pipelines/stocks", "--json"]));
        topics[0]["records"].as_i64() > Some(0)
    };
    assert!((0..200).any(|_| has_records()), "no record came");
    let killed = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let output = child.wait_with_output().expect("it ends");
    let (out, err) = said(&output);
    assert_eq!(output.status.code(), Some(0), "{out} {err}");
    assert!(out.contains("  quotes: ") && out.contains(" records sent to topic.price"), "{out}");
    assert!(out.contains("`millstream run quotes` continues from here"), "{out}");
}

#[test]
fn the_shipped_pipelines_pass_their_checks_and_tests() {
    let data = data();
    for pipeline in ["pipelines/bank", "pipelines/iss", "pipelines/stocks", "pipelines/tweets"] {
        let check = run(&data, &["check", pipeline, "--json"]);
        assert_eq!((check.status.code(), &json(&check)["ok"]), (Some(0), &true.into()), "{check:?}");
        let test = run(&data, &["test", pipeline]);
        let text = String::from_utf8_lossy(&test.stdout);
        assert!(
            test.status.success() && text.contains(" 0 failed"),
            "{text} {}",
            String::from_utf8_lossy(&test.stderr)
        );
    }
}

#[test]
fn mistakes_have_a_place_and_an_exit_code() {
    let data = data();
    let file = data.path().join("pipeline.yaml");
    let text = std::fs::read_to_string(root().join("pipelines/stocks/pipeline.yaml")).unwrap();
    let text = text.split("tests:").next().unwrap();
    std::fs::write(&file, text.replace("from: price", "form: price")).unwrap();
    let folder = data.path().display().to_string();
    let place = format!("{}:29:5: ", file.display());
    let number = text.lines().position(|line| line.contains("from: price")).unwrap() + 1;
    let place = place.replace(":29:", &format!(":{number}:"));

    let check = run(&data, &["check", &folder]);
    assert_eq!(check.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&check.stdout).contains(&place), "{check:?}");
    let dev = run(&data, &["dev", &folder]);
    assert_eq!(dev.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&dev.stderr).contains(&place), "{dev:?}");

    std::fs::write(&file, text.replace("max(price)", "max(prize)")).unwrap();
    let check = json(&run(&data, &["check", &folder, "--json"]));
    assert_eq!((&check["ok"], check["mistakes"].as_array().map(Vec::len)), (&false.into(), Some(1)), "{check}");

    for usage in [&["frobnicate"][..], &["dev", "--rate", "0"], &["audit", "nothing"], &["produce", "x", "y.csv"]] {
        assert_eq!(run(&data, usage).status.code(), Some(2), "{usage:?}");
    }
    let mut down = millstream(&data, &["topics", "-p", "pipelines/bank"]);
    down.env("MILLSTREAM_POSTGRES_URL", "mysql://me:hunter2@db/x");
    let wrong = down.output().unwrap();
    assert_eq!(wrong.status.code(), Some(3), "{wrong:?}");
    assert!(!String::from_utf8_lossy(&wrong.stderr).contains("hunter2"));
}

#[test]
fn a_broker_that_is_down_is_transient_trouble() {
    let data = data();
    // Port 9 (discard) of this machine: nothing listens there.
    let mut down = millstream(&data, &["topics", "-p", "pipelines/bank"]);
    let output = down.env("MILLSTREAM_KAFKA_BROKERS", "127.0.0.1:9").output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}

/// Commands for production embed stores only on request.
#[test]
fn run_and_up_with_a_kafka_require_their_stores_to_be_set() {
    let data = data();
    for args in [&["run", "flow"][..], &["up"]] {
        let mut beside = millstream(&data, &[args, &["-p", "pipelines/bank"]].concat());
        let output = beside.env("MILLSTREAM_KAFKA_BROKERS", "127.0.0.1:9").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("_URL is not set") && said.contains("`embedded`"), "{said}");
    }
    let of = pipeline(
        &data,
        "name: p\ntopics: { t: { partitions: 1, schema: { a: string } } }\n\
         references: { r: { from: postgres.r, schema: { a: string, b: string } } }\n\
         functions:\n  f: { uses: archive, from: t, sql: 'SELECT t.a, r.b FROM t JOIN r ON t.a = r.a', into: lake.f }\n",
    );
    let run_f = [&["run", "f"][..], &of.each_ref().map(String::as_str)].concat();
    let mut beside = millstream(&data, &run_f);
    let output = beside.env("MILLSTREAM_KAFKA_BROKERS", "127.0.0.1:9").env("MILLSTREAM_LAKE_URL", "embedded");
    let said = said(&output.output().unwrap()).1;
    assert!(said.contains("MILLSTREAM_POSTGRES_URL is not set") && said.contains("the reference `r`"), "{said}");
    let empty = millstream(&data, &["check", "pipelines/bank"]).env("MILLSTREAM_POSTGRES_URL", "").output().unwrap();
    assert!(String::from_utf8_lossy(&empty.stderr).contains("MILLSTREAM_POSTGRES_URL is set and empty"), "{empty:?}");
}

/// `dev` reads production topics, and writes production tables only on request.
#[test]
fn dev_with_a_kafka_does_not_write_the_functions_tables() {
    let data = data();
    let dev = |more: &[&str]| {
        let mut dev = millstream(&data, &[&["dev", "pipelines/bank", "--plain", "--for", "1"], more].concat());
        dev.env("MILLSTREAM_KAFKA_BROKERS", "127.0.0.1:9")
            .env("MILLSTREAM_POSTGRES_URL", "postgres://me@127.0.0.1:9/x");
        let output = dev.output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        said(&output).1
    };
    let tables = |said: &str| said.lines().find(|line| line.starts_with("tables: ")).unwrap_or_default().to_owned();
    let text = dev(&[]);
    assert!(tables(&text).contains("millstream.db") && tables(&text).contains("--into-postgres"), "{text}");
    assert!(text.contains("no records are made up") && text.contains("--generate"), "{text}");
    let text = dev(&["--into-postgres", "--generate"]);
    assert!(tables(&text) == "tables: PostgreSQL" && !text.contains("no records are made up"), "{text}");
}

/// The text of a panic may quote a record. (An unknown fault point causes one.)
#[test]
fn a_panic_reports_its_place_and_not_its_text() {
    let data = data();
    let output = millstream(&data, &["check", "pipelines/bank"]).env("MILLSTREAM_FAULT", "hunter2").output().unwrap();
    let (_, err) = said(&output);
    assert!(!output.status.success() && err.contains("fault.rs:") && err.contains("a bug in millstream"), "{err}");
    assert!(!err.contains("hunter2"), "{err}");
}

#[test]
fn machines_get_json_and_completions() {
    let data = data();
    let schema = json(&run(&data, &["schema"]));
    assert!(schema["properties"]["topics"].is_object(), "{schema}");
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&data, &["completions", shell]);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("dead-letters"));
    }
    let version = run(&data, &["--version"]);
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("millstream 0."));
}
