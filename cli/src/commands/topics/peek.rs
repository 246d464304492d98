//! `millstream topics peek`: the records of a topic, as they are.

mod reading;

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use millstream_core::Position;
use serde_json::{Value, json};

use self::reading::{Peeked, Start, records};
use crate::{
    Failure, PeekArgs,
    commands::dead_letters::time,
    context::Context,
    numbers::{count, counted},
    since::since_ms,
};

/// How much of a value people see, in bytes.
const SHOWN_BYTES: usize = 1_000;
/// How many of the newest records are shown if nothing else is asked for.
const NEWEST: usize = 10;
/// How many records are shown from an offset or a time on.
const LIMIT: usize = 100;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    position: Position,
    /// Milliseconds since 1970; -1 where the log has none.
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    value: Option<Vec<u8>>,
}

/// `millstream topics peek TOPIC`
pub(super) async fn peek(context: &Context, args: PeekArgs) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let systems = context.open(&pipeline)?;
    let topic = args.topic.strip_prefix("topic.").unwrap_or(&args.topic);
    let generation = pipeline.topics.get(topic).map_or(1, |topic| topic.generation);
    let log = systems.source();
    let there = log.partitions(topic).await?;
    let partitions = match args.partition {
        None => 0..there,
        Some(one) if (0..there).contains(&one) => one..one + 1,
        Some(one) => {
            let partitions = counted(there.unsigned_abs().into(), "partition");
            let said = format!("topic {topic} has no partition {one}: it has {partitions}, numbered from 0");
            return Err(Failure::Usage(said));
        }
    };
    let start = match (args.from, &args.since) {
        (Some(_), _) if partitions.len() > 1 => {
            let said =
                format!("topic {topic} has {there} partitions, each with offsets of its own: --from needs --partition");
            return Err(Failure::Usage(said));
        }
        (Some(offset), _) => Start::Offset(offset),
        (None, Some(since)) => Start::Time(since_ms(since, context.clock.now_us() / 1_000)?),
        (None, None) => Start::Last(args.last.unwrap_or(NEWEST).min(args.limit.unwrap_or(usize::MAX))),
    };
    let limit = args.limit.unwrap_or(LIMIT);
    let Peeked { records, more } = records(log.as_ref(), (topic, generation), partitions, start, limit).await?;
    if more && args.from.is_none() && args.since.is_none() {
        let shown = counted(records.len() as u64, "record");
        context.tell(&format!("only the newest {shown}: no more fit into memory; `--from` shows older ones"));
    }
    if context.json {
        return records.iter().try_for_each(|record| context.say(quiet(&record.json().to_string())));
    }
    if records.is_empty() {
        return context.say("no records there");
    }
    for record in &records {
        record.lines().iter().try_for_each(|line| context.say(line))?;
    }
    if more {
        context.tell(&format!("the first {}; `--limit` shows more", counted(records.len() as u64, "record")));
    }
    Ok(())
}

impl Record {
    /// What it takes of memory, about.
    fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.as_ref().map_or(0, Vec::len) + headers + self.value.as_ref().map_or(0, Vec::len)
    }

    /// The text for people.
    fn lines(&self) -> Vec<String> {
        let key = self.key.as_deref().map_or_else(String::new, |key| format!("  key {}", shown(key)));
        let mut lines = vec![format!("{}  {}{key}", self.position, time(self.timestamp_ms))];
        let header = |(name, value): &(String, Vec<u8>)| format!("  {} = {}", escaped(name), shown(value));
        lines.extend(self.headers.iter().map(header));
        lines.push(format!("  {}", self.value.as_deref().map_or_else(|| "no value".to_owned(), shown)));
        lines
    }

    /// The record for machines, whole.
    fn json(&self) -> Value {
        let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => json!(text),
            Err(_) => json!({ "base64": BASE64_STANDARD.encode(bytes) }),
        };
        let partition = &self.position.partition;
        json!({
            "position": self.position.to_string(),
            "partition": partition.partition,
            "offset": self.position.offset,
            "timestamp_ms": self.timestamp_ms,
            "key": self.key.as_deref().map(text),
            "headers": self.headers.iter().map(|(name, value)| json!([name, text(value)])).collect::<Vec<_>>(),
            "value": self.value.as_deref().map(text),
        })
    }
}

/// Bytes as text if they are UTF-8, otherwise as base64; the beginning if they are long.
fn shown(bytes: &[u8]) -> String {
    let (text, cut) = match std::str::from_utf8(bytes) {
        Ok(text) => {
            let kept = text.floor_char_boundary(SHOWN_BYTES);
            (escaped(&text[..kept]), kept < text.len())
        }
        Err(_) => {
            let kept = bytes.len().min(SHOWN_BYTES);
            (format!("base64 {}", BASE64_STANDARD.encode(&bytes[..kept])), kept < bytes.len())
        }
    };
    let note = format!("… ({} bytes; --json shows all)", count(bytes.len() as u64));
    if cut { text + &note } else { text }
}

/// Text from outside, on one line. It must not control the terminal, nor the direction in which it writes. A `\` is doubled,
/// so that what is escaped differs from what was sent like that.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if steers(letter) || letter == '\\' {
            escaped.extend(letter.escape_default());
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

/// A JSON text of the same value that doesn't control the terminal.
fn quiet(json: &str) -> String {
    let mut quiet = String::with_capacity(json.len());
    for letter in json.chars() {
        if steers(letter) {
            // All of them have four digits, and can only be in a JSON string.
            let _ = write!(quiet, "\\u{:04x}", u32::from(letter));
        } else {
            quiet.push(letter);
        }
    }
    quiet
}

/// Does it control a terminal, end a line, or turn the direction of writing?
fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{2028}' | '\u{2029}' | '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use millstream_core::TopicPartition;

    use super::*;

    fn record(value: &[u8]) -> Record {
        Record {
            position: TopicPartition::new("t", 1, 2).at(7),
            timestamp_ms: 1_700_000_000_123,
            key: Some(b"k\n1".to_vec()),
            headers: vec![("trace".into(), b"\xff\x00".to_vec())],
            value: Some(value.to_vec()),
        }
    }

    #[test]
    fn a_terminal_gets_text_that_does_not_control_it() {
        let lines = record("{\"a\":\"\u{1b}[2J\u{202e}ü\u{9b}\"}".as_bytes()).lines();
        assert_eq!(
            lines,
            [
                "t/1/2/7  2023-11-14 22:13:20.123Z  key k\\n1",
                "  trace = base64 /wA=",
                "  {\"a\":\"\\u{1b}[2J\\u{202e}ü\\u{9b}\"}",
            ]
        );
        let none = Record { key: None, headers: vec![], value: None, timestamp_ms: -1, ..record(b"") };
        assert_eq!(none.lines(), ["t/1/2/7  -", "  no value"]);
    }

    #[test]
    fn a_line_break_differs_from_a_backslash_and_an_n() {
        assert_eq!(record(b"a\n").lines()[2], r"  a\n");
        assert_eq!(record(br"a\n").lines()[2], r"  a\\n");
        assert_eq!(record(br"a\u{1b}").lines()[2], r"  a\\u{1b}");
    }

    #[test]
    fn json_is_the_same_value_and_does_not_control_a_terminal() {
        let odd = "\u{1b}[2J\u{7f}\u{85}\u{9b}31m\u{2028}\u{2029}\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}\\ü\"\n😀";
        let headers = vec![(odd.to_owned(), odd.as_bytes().to_vec())];
        let record = Record { key: Some(odd.into()), headers, ..record(odd.as_bytes()) };
        let text = quiet(&record.json().to_string());
        assert!(!text.chars().any(steers) && text.contains(r"\u009b31m\u2028") && text.contains("ü"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), record.json());
    }

    #[test]
    fn long_values_are_cut_for_people_only() {
        let long = "ü".repeat(SHOWN_BYTES);
        let lines = record(long.as_bytes()).lines();
        assert!(lines[2].ends_with("üü… (2,000 bytes; --json shows all)") && lines[2].len() < 1_100, "{}", lines[2]);
        assert_eq!(record(long.as_bytes()).json()["value"], long.as_str());
        let bytes = vec![0xff; SHOWN_BYTES + 1];
        assert!(record(&bytes).lines()[2].ends_with("… (1,001 bytes; --json shows all)"));
        assert_eq!(record(&bytes).json()["value"]["base64"], BASE64_STANDARD.encode(&bytes));
    }
}
