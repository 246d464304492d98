//! `millstream topics peek`: the records of a topic as they are, and nothing else.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use super::{data, pipeline, run, said};

const POSTS: &str = "name: p
topics:
  posts: { partitions: 1, schema: { text: string, at: timestamp not null }, event_time: at }
  wide: { partitions: 3, schema: { text: string, at: timestamp not null }, event_time: at }
functions:
  kept: { uses: archive, from: [posts], into: lake.kept }
";

struct Log {
    data: TempDir,
    named: [String; 2],
}

impl Log {
    fn new() -> Self {
        let data = data();
        let named = pipeline(&data, POSTS);
        Self { data, named }
    }

    fn with(&self, args: &[&str]) -> std::process::Output {
        run(&self.data, &[args, &[&self.named[0], &self.named[1]]].concat())
    }

    fn produce(&self, topic: &str, lines: &[String]) {
        let file = self.data.path().join("lines.jsonl");
        fs::write(&file, lines.join("\n")).unwrap();
        let sent = self.with(&["produce", topic, &file.display().to_string()]);
        assert!(sent.status.success(), "{sent:?}");
    }

    fn peek(&self, args: &[&str]) -> (String, String) {
        let peeked = self.with(&[&["topics", "peek"], args].concat());
        assert!(peeked.status.success(), "{peeked:?}");
        said(&peeked)
    }

    fn offsets(&self, args: &[&str]) -> Vec<i64> {
        let (out, _) = self.peek(&[args, &["--json"]].concat());
        let record = |line: &str| serde_json::from_str::<Value>(line).unwrap()["offset"].as_i64().unwrap();
        out.lines().map(record).collect()
    }

    /// Changes what the log holds.
    fn change(&self, sql: &str, value: &[u8]) {
        let connection = rusqlite::Connection::open(self.data.path().join("millstream.db")).unwrap();
        let params: &[&dyn rusqlite::ToSql] = if sql.contains('?') { &[&value] } else { &[] };
        assert!(connection.execute(sql, params).unwrap() > 0, "{sql}");
    }
}

fn post(number: usize) -> String {
    format!(r#"{{"text":"post {number}","at":"2026-01-01T10:{:02}:{:02}Z"}}"#, number / 60, number % 60)
}

#[test]
fn records_are_shown_from_where_one_asks() {
    let log = Log::new();
    log.produce("posts", &(0..250).map(post).collect::<Vec<_>>());
    assert_eq!(log.offsets(&["posts"]), (240..250).collect::<Vec<_>>());
    assert_eq!(log.offsets(&["topic.posts", "--last", "3"]), [247, 248, 249]);
    assert_eq!(log.offsets(&["posts", "--from", "5", "--limit", "2"]), [5, 6]);
    assert_eq!(log.offsets(&["posts", "--from", "249", "--partition", "0"]), [249]);
    assert_eq!(log.offsets(&["posts", "--from", "1000"]), [0_i64; 0]);
    assert_eq!(log.offsets(&["posts", "--from", "0"]).len(), 100);
    assert_eq!(log.offsets(&["posts", "--since", "2026-01-01T10:04:07Z"]), [247, 248, 249]);
    assert_eq!(log.offsets(&["posts", "--since", "2026-01-02"]), [0_i64; 0]);

    let (out, told) = log.peek(&["posts", "--from", "1", "--limit", "2"]);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..2], ["posts/1/0/1  2026-01-01 10:00:01Z", r#"  {"text":"post 1","at":"2026-01-01T10:00:01Z"}"#]);
    assert!(lines.len() == 4 && told.contains("the first 2 records; `--limit` shows more"), "{told}");
    assert_eq!(log.peek(&["posts", "--from", "1000"]).0, "no records there\n");

    // Holes, as compaction makes them.
    log.change("DELETE FROM millstream_records WHERE offset BETWEEN 100 AND 248", b"");
    assert_eq!(log.offsets(&["posts", "--last", "3"]), [98, 99, 249]);
    assert_eq!(log.offsets(&["posts", "--from", "99"]), [99, 249]);
    assert_eq!(log.offsets(&["posts", "--last", "1000"]).len(), 101);
}

#[test]
fn several_partitions_are_shown_by_time() {
    let log = Log::new();
    log.produce("wide", &(0..30).map(post).collect::<Vec<_>>());
    let texts = |args: &[&str]| {
        let (out, _) = log.peek(&[args, &["--json"]].concat());
        let text = |line: &str| {
            let record: Value = serde_json::from_str(line).unwrap();
            let value: Value = serde_json::from_str(record["value"].as_str().unwrap()).unwrap();
            value["text"].as_str().unwrap().to_owned()
        };
        out.lines().map(text).collect::<Vec<_>>()
    };
    let posts = |numbers: std::ops::Range<usize>| numbers.map(|number| format!("post {number}")).collect::<Vec<_>>();
    assert_eq!(texts(&["wide", "--last", "4"]), posts(26..30));
    assert_eq!(texts(&["wide", "--since", "2026-01-01T10:00:08Z", "--limit", "5"]), posts(8..13));
    assert!(!texts(&["wide", "--partition", "1"]).is_empty());
    for (args, says) in [
        (
            &["wide", "--from", "3"][..],
            "topic wide has 3 partitions, each with offsets of its own: --from needs --partition",
        ),
        (&["wide", "--partition", "3"], "topic wide has no partition 3: it has 3 partitions, numbered from 0"),
        (&["wide", "--all"], "unexpected argument '--all'"),
        (&["wide", "--last", "0"], "a number from 1 to 100000"),
        (&["wide", "--last", "3", "--since", "1h"], "cannot be used with"),
    ] {
        let wrong = log.with(&[&["topics", "peek"], args].concat());
        assert!(wrong.status.code() == Some(2) && said(&wrong).1.contains(says), "{wrong:?}");
    }
    let all = log.with(&["topics", "--all", "peek", "wide"]);
    assert!(all.status.code() == Some(2) && said(&all).1.contains("--all is for the list of topics"), "{all:?}");
    let missing = log.with(&["topics", "peek", "nothing"]);
    assert!(!missing.status.success() && said(&missing).1.contains("nothing"), "{missing:?}");
}

#[test]
fn odd_bytes_do_not_steer_a_terminal_and_nothing_is_written() {
    let log = Log::new();
    let long = "x".repeat(5_000);
    log.produce("posts", &(0..3).map(post).collect::<Vec<_>>());
    let becomes = |offset: i64| format!("UPDATE millstream_records SET value = ? WHERE offset = {offset}");
    log.change(&becomes(0), "\u{1b}[2J \u{202e}not json\t\u{7}".as_bytes());
    log.change(&becomes(1), long.as_bytes());
    log.change(&becomes(2), b"\xff\x00");
    let (out, _) = log.peek(&["posts"]);
    let steers = out.chars().any(|letter| (letter.is_control() && letter != '\n') || letter == '\u{202e}');
    assert!(!steers && out.contains(r"\u{1b}[2J \u{202e}not json\t\u{7}"), "{out}");
    assert!(out.contains("x… (5,000 bytes; --json shows all)") && out.contains("  base64 /wA="), "{out}");
    let (json, _) = log.peek(&["posts", "--json"]);
    assert!(json.contains(&long) && json.contains(r#"{"base64":"/wA="}"#) && json.lines().count() == 3, "{json}");
    assert!(json.contains(r"[2J \u202enot json\t") && !json.contains('\u{202e}'), "{json}");
    let topics: Value = serde_json::from_slice(&log.with(&["topics", "--json"]).stdout).unwrap();
    assert_eq!(topics[0]["partitions"][0]["committed"]["p.kept"], Value::Null, "no group has read: {topics}");
}
