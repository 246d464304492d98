//! `produce`: the whole file is checked before anything is sent, and an interrupted run can be continued.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use super::{data, json, millstream, pipeline, run, said};

const SHOP: &str = "
name: shop
topics:
  sales:
    partitions: 1
    schema: { shop: string not null, price: 'decimal(9,2) not null', at: timestamp not null }
    event_time: at
functions:
  kept:
    uses: archive
    from: sales
    into: lake.sales
";

const GOOD: &str = r#"{"shop":"a","price":1.50,"at":"2026-01-01T00:00:00Z"}"#;
const BAD: &str = r#"{"shop":"a","price":"x","at":"2026-01-01T00:00:00Z"}"#;

/// A test's own shop: runs `produce sales FILE …` and counts the records in the topic.
struct Shop {
    data: tempfile::TempDir,
    of: [String; 2],
}

impl Shop {
    fn new() -> Self {
        let data = data();
        let of = pipeline(&data, SHOP);
        Self { data, of }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let file = self.data.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    }

    fn produce(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let of = self.of.each_ref().map(String::as_str);
        let output = run(&self.data, &[&["produce", "sales"], args, &of[..]].concat());
        let (out, err) = said(&output);
        (output.status.code(), out, err)
    }

    fn sent(&self) -> u64 {
        let of = self.of.each_ref().map(String::as_str);
        let topics = json(&run(&self.data, &[&["topics", "--json"], &of[..]].concat()));
        topics[0]["records"].as_u64().unwrap_or(0)
    }
}

#[test]
fn a_file_with_bad_lines_is_not_sent() {
    let shop = Shop::new();
    let lines: Vec<&str> = [GOOD].into_iter().chain([BAD; 12]).chain([GOOD]).collect();
    let file = shop.file("a.jsonl", &lines.join("\n"));
    let (code, _, err) = shop.produce(&[&file]);
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("a.jsonl:2: field `price`: ") && err.contains("a.jsonl:11: "), "{err}");
    assert!(!err.contains("a.jsonl:12: ") && err.contains("and 2 more"), "the first 10, then a count: {err}");
    assert!(err.contains("12 of 14 lines") && err.contains("nothing was sent"), "{err}");
    assert_eq!(shop.sent(), 0);

    let csv = shop.file("a.csv", "shop,price,at\na,1,2026-01-01T00:00:00Z\na,1.005,2026-01-01T00:00:00Z\n");
    let (code, _, err) = shop.produce(&[&csv]);
    assert!(code == Some(3) && err.contains("a.csv:3: ") && err.contains("1 of 2 lines is wrong"), "{err}");
    assert_eq!(shop.sent(), 0);

    let (code, out, err) = shop.produce(&[&file, "--skip-bad"]);
    assert!(code == Some(0) && out.contains("2 records sent") && err.contains("a.jsonl:2: "), "{out} {err}");
    assert_eq!(shop.sent(), 2);
}

#[test]
fn a_dry_run_sends_nothing() {
    let shop = Shop::new();
    let (good, bad) = (shop.file("good.jsonl", GOOD), shop.file("bad.jsonl", BAD));
    let (code, out, err) = shop.produce(&[&good, "--dry-run"]);
    assert!(code == Some(0) && out.contains("1 record"), "{out} {err}");
    let (code, out, err) = shop.produce(&[&good, "--dry-run", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(code == Some(0) && report["good"] == 1 && report["bad"] == 0 && report["sent"] == 0, "{out} {err}");
    assert_eq!(shop.produce(&[&bad, "--dry-run"]).0, Some(3));
    assert_eq!(shop.sent(), 0);
}

#[test]
fn an_interrupted_file_can_be_continued() {
    let shop = Shop::new();
    let file = shop.file("it's a.jsonl", &[GOOD; 500].join("\n"));
    let args = ["produce", "sales", &file, "--rate", "100", "-v", &shop.of[0], &shop.of[1]];
    let mut child = millstream(&shop.data, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line.contains("offset 20")), "20 records are there");
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    let (_, err) = said(&output);
    let sent = shop.sent();
    assert!((20..500).contains(&sent), "{sent}");
    assert_eq!(output.status.code(), Some(4), "{err}");
    let quoted = format!("'{}'", file.replace('\'', r"'\''"));
    let command = format!("millstream produce sales {quoted} --rate 100 --skip {sent} -p {}", shop.of[1]);
    assert!(err.contains(&format!("{sent} of 500 records")) && err.contains(&command), "{err}");

    let (code, out, err) = shop.produce(&[&file, "--skip", &sent.to_string()]);
    assert!(code == Some(0) && out.contains(&format!("{} records sent", 500 - sent)), "{out} {err}");
    assert_eq!(shop.sent(), 500);
}

#[test]
fn input_that_can_be_read_only_once_is_checked_line_by_line() {
    let shop = Shop::new();
    let pipe = shop.data.path().join("a.jsonl");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, [GOOD, BAD].join("\n"))
    });
    let (code, _, err) = shop.produce(&[&pipe.display().to_string()]);
    writer.join().unwrap().unwrap();
    assert_eq!(code, Some(3), "{err}");
    assert!(
        err.contains("a.jsonl:2: ") && err.contains("1 record was sent") && err.contains("read only once"),
        "{err}"
    );
    assert_eq!(shop.sent(), 1);
}

#[test]
fn a_wrong_header_is_reported_with_the_likely_separator() {
    let shop = Shop::new();
    let (_, _, err) = shop.produce(&[&shop.file("a.csv", "shop,prize,at\n")]);
    assert!(err.contains("`prize`") && !err.contains("separator"), "{err}");
    let (_, _, err) = shop.produce(&[&shop.file("b.csv", "shop;price;at\na;1;2026-01-01T00:00:00Z\n")]);
    assert!(err.contains("b.csv:1: ") && err.contains("separated by `;`"), "{err}");
}

#[test]
fn a_growing_file_is_followed() {
    let shop = Shop::new();
    let file = shop.file("growing.jsonl", &format!("{GOOD}\n{GOOD}\n"));
    let of = shop.of.each_ref().map(String::as_str);
    let args = [&["produce", "sales", &file, "--follow", "--skip-bad", "--skip", "1"], &of[..]].concat();
    let child = millstream(&shop.data, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = |records| {
        let mut looks = 0;
        while shop.sent() != records {
            looks += 1;
            assert!(looks < 300, "{} records of {records}", shop.sent());
            #[expect(clippy::disallowed_methods, reason = "a test waits for another process")]
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    until(1);
    let append = |text: &str| {
        use std::io::Write as _;
        std::fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(text.as_bytes()).unwrap();
    };
    // A line that is still being written is sent once it is whole.
    let (half, rest) = GOOD.split_at(20);
    append(&format!("{BAD}\n{GOOD}\n{half}"));
    until(2);
    append(&format!("{rest}\n"));
    until(3);
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let (out, err) = said(&output);
    assert!(output.status.success(), "{err}");
    assert!(out.contains("3 records sent to sales; --skip 4 goes on from there"), "{out}");
    assert!(err.contains("growing.jsonl:3:") && !err.contains("\"x\""), "{err}");
    assert_eq!(shop.sent(), 3);
}
