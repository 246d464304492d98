use std::{fs, io::Write as _};

use millstream_codec::MAX_VALUE_BYTES;
use tempfile::TempDir;

use super::*;
use crate::testing::described;

fn topic() -> Topic {
    let schema = "{branch: string not null, amount: 'decimal(18,2) not null', note: string, count: int, open: boolean, \
                  tags: [string], sent: timestamp(ms), at: timestamp not null}";
    described(schema, "rate_per_s: 1", "{branch: {text: x}, amount: {decimal: {min: 0, max: 1}}, at: now}", "branch").0
}

/// The records of a file with this text (key, value, timestamp), or the error without the folder's name.
fn read(name: &str, text: impl AsRef<[u8]>, key: Option<&str>) -> Result<Vec<Result<[String; 3], String>>, String> {
    looked_at(name, text, key, Look::Whole)
}

fn looked_at(
    name: &str,
    text: impl AsRef<[u8]>,
    key: Option<&str>,
    look: Look,
) -> Result<Vec<Result<[String; 3], String>>, String> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    let plain = |error: Error| error.to_string().replace(&format!("{}/", folder.path().display()), "");
    let text = |bytes: Option<Vec<u8>>| bytes.map_or("-".into(), |bytes| String::from_utf8(bytes).unwrap());
    let record = |record: NewRecord| {
        [text(record.key), text(record.value), record.timestamp_ms.map_or("-".into(), |ms| ms.to_string())]
    };
    let records = from_file(&path, &topic(), key, look).map_err(plain)?;
    Ok(records.map(|item| item.map(record).map_err(plain)).collect())
}

fn ok(key: &str, value: &str, ms: &str) -> Result<[String; 3], String> {
    Ok([key.into(), value.into(), ms.into()])
}

fn bad(error: &str) -> Result<[String; 3], String> {
    Err(error.into())
}

#[test]
fn csv_cells_are_typed_by_the_schema() {
    let text = "\u{feff}at, amount,branch,note,count,open,tags,sent\r\n\
                2023-11-14T22:13:20.5Z,12.50,\"Oslo, \"\"S\"\"\",7,7,true,\"[\"\"a\"\"]\",1700000000000\r\n\
                2023-11-14T23:13:20+01:00,-3,,,,,,\r\n";
    assert_eq!(
        read("a.csv", text, Some("branch")).unwrap(),
        [
            ok(
                "Oslo, \"S\"",
                r#"{"at":"2023-11-14T22:13:20.5Z","amount":12.50,"branch":"Oslo, \"S\"","note":"7","count":7,"open":true,"tags":["a"],"sent":1700000000000}"#,
                "1700000000500"
            ),
            ok("", r#"{"at":"2023-11-14T23:13:20+01:00","amount":-3,"branch":""}"#, "1700000000000"),
        ]
    );
}

#[test]
fn bad_csv_lines_are_told_by_number_and_the_others_go_on() {
    let text = "branch,amount,at,count\n\
                \"Os\nlo\",1,2023-11-14T22:13:20Z,1\n\
                Oslo,1.005,2023-11-14T22:13:20Z,1\n\
                Oslo,\"1,\"\"x\"\":2\",2023-11-14T22:13:20Z,1\n\
                Oslo,1,2023-11-14T22:13:20Z\n\
                Oslo,1,yesterday,1\n\
                Oslo,1,,1\n\
                Oslo,1,2023-11-14T22:13:20Z,secret\n\
                Oslo,2,2023-11-14T22:13:20Z,1";
    let value = |branch: &str, amount: u8| {
        format!(r#"{{"branch":"{branch}","amount":{amount},"at":"2023-11-14T22:13:20Z","count":1}}"#)
    };
    assert_eq!(
        read("a.csv", text, Some("amount")).unwrap(),
        [
            ok("1.00", &value("Os\\nlo", 1), "1700000000000"),
            bad("a.csv:4: field `amount`: more than 2 decimals"),
            bad("a.csv:5: field `amount`: expected decimal(18,2), found a string that is not a number"),
            bad("a.csv:6: 3 cells, but the header names 4 columns"),
            bad(
                "a.csv:7: field `at`: expected timestamp (RFC 3339 string), found a string that is no RFC 3339 time (without a zone, it is UTC)"
            ),
            bad("a.csv:8: field `at`: is missing"),
            bad("a.csv:9: field `count`: expected int, found a string"),
            ok("2.00", &value("Oslo", 2), "1700000000000"),
        ]
    );
    let latin =
        [b"branch,amount,at\nOslo,1,2023-11-14T22:13:20Z\n\xe9,1,x\n".as_slice(), b"Oslo,1,1970-01-01T00:00:00Z"];
    let read = read("a.csv", latin.concat(), None).unwrap();
    assert_eq!(read[1], bad("a.csv:3: it is not UTF-8"));
    assert_eq!(read[2], ok("-", r#"{"branch":"Oslo","amount":1,"at":"1970-01-01T00:00:00Z"}"#, "0"));
}

#[test]
fn headers_have_to_fit() {
    let error = |text: &str| read("a.csv", text, None).unwrap_err();
    let names = "branch, amount, note, count, open, tags, sent, at";
    assert_eq!(error(""), format!("a.csv:1: no header; the first line names the columns, of {names}"));
    assert_eq!(
        error("branch,price\n"),
        format!("a.csv:1: the header's column `price` is not a field of the topic; it has {names}")
    );
    for (header, separator) in [("branch;amount;at", ";"), ("\"branch\"\t\"amount\"\tat", "tab"), ("at | branch", "|")]
    {
        let expected = format!("a.csv:1: the columns are separated by `{separator}`; a CSV file has commas");
        assert_eq!(error(&format!("{header}\n")), expected);
    }
    assert_eq!(error("branch,at,branch\n"), "a.csv:1: the header names `branch` twice");
    assert_eq!(error("branch,at\n"), "a.csv:1: the header has no column `amount`, which the topic says is not null");
    assert_eq!(read("a.csv", "branch,amount,at\n", None).unwrap(), []);
}

#[test]
fn jsonl_lines_are_sent_as_they_are_when_they_fit() {
    let rest = r#""amount":1.50,"at":"2023-11-14T22:13:20Z""#;
    let text = format!(
        "\u{feff}{{\"branch\" : \"Oslo\", \"more\":[1], {rest}}}\r\n\n  \n{{{rest}}}\noops\n{{\"branch\":\"Oslo\",\"amount\":1}}\n{{\"branch\":\"Wien\",\"count\":\"1\",{rest}}}"
    );
    let first = ok("Oslo", &format!("{{\"branch\" : \"Oslo\", \"more\":[1], {rest}}}"), "1700000000000");
    let bad_ones = [
        bad("a.jsonl:4: field `branch`: is missing"),
        bad("a.jsonl:5: not JSON: a value is missing at byte 0"),
        bad("a.jsonl:6: field `at`: is missing"),
    ];
    let wrong_count = bad("a.jsonl:7: field `count`: expected int, found a string");
    let expected = [std::slice::from_ref(&first), &bad_ones[..], &[wrong_count]].concat();
    assert_eq!(read("a.jsonl", &text, Some("branch")).unwrap(), expected);

    let unlooked = ok("Wien", &format!("{{\"branch\":\"Wien\",\"count\":\"1\",{rest}}}"), "1700000000000");
    let expected = [&[first], &bad_ones[..], &[unlooked]].concat();
    assert_eq!(looked_at("a.jsonl", &text, Some("branch"), Look::KeyAndTime).unwrap(), expected);
    let unkeyed = looked_at("a.NDJSON", &text, None, Look::KeyAndTime).unwrap();
    assert_eq!(unkeyed[1], ok("-", &format!("{{{rest}}}"), "1700000000000"));
    assert_eq!(read("a.jsonl", "", None).unwrap(), []);
}

#[test]
fn a_check_counts_and_keeps_the_first_bad_lines() {
    let record = |number: u64| match number % 2 {
        0 => Ok(NewRecord::default()),
        _ => Err(bad_line(Path::new("a.jsonl"), number, "wrong")),
    };
    let checked = Checked::of((0..41).map(record), || false, |_| ()).unwrap();
    assert_eq!((checked.good, checked.bad, checked.first_bad.len()), (21, 20, TOLD_BAD));
    assert_eq!(checked.first_bad[9].to_string(), "a.jsonl:19: wrong");
    let unreadable = [Err(Error::stop("unreadable"))].into_iter();
    assert!(matches!(Checked::of(unreadable, || false, |_| ()), Err(Error::Stop(_))));
    let stopped = Checked::of((0..10_000).map(|_| Ok(NewRecord::default())), || true, |_| ()).unwrap();
    assert_eq!(stopped.good, 1_000, "it was told to stop");
}

#[test]
fn other_files_and_keys_are_refused() {
    let error = read("a.txt", "", None).unwrap_err();
    assert_eq!(error, "a.txt: records are read from files that end in .csv, .jsonl or .ndjson");
    let error = read("a.jsonl", "", Some("shop")).unwrap_err();
    assert!(error.starts_with("the key `shop` is not a field of the topic; it has branch, "), "{error}");
    let missing = from_file("/nowhere/a.csv", &topic(), None, Look::Whole).err().unwrap();
    assert!(missing.to_string().starts_with("/nowhere/a.csv: it can't be opened: No such file"), "{missing}");
}

#[test]
fn a_line_without_an_end_is_not_taken_into_memory() {
    let good = r#"{"branch":"b","amount":1,"at":"2023-11-14T22:13:20Z"}"#;
    let long = "x".repeat(MAX_VALUE_BYTES + 5);
    let lines = read("a.jsonl", format!("{good}\n{long}\n{good}\n"), None).unwrap();
    assert_eq!(lines[1], bad("a.jsonl:2: longer than 8388608 bytes"));
    assert_eq!((lines.len(), &lines[2]), (3, &ok("-", good, "1700000000000")));

    let row = "Oslo,1,2023-11-14T22:13:20Z\n";
    let open = format!("branch,amount,at\n{row}\"{}", row.repeat(2 * MAX_VALUE_BYTES / row.len()));
    let lines = read("a.csv", open, None).unwrap();
    assert_eq!(lines.len(), 2, "it ends there");
    let error = lines[1].as_ref().unwrap_err();
    assert!(error.starts_with("a.csv:") && error.ends_with("is a quote left open?"), "{error}");
}

#[test]
fn long_files_are_read_in_portions() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("long.csv");
    let mut file = std::io::BufWriter::new(File::create(&path).unwrap());
    writeln!(file, "count,branch,amount,at").unwrap();
    for count in 0..10_500 {
        let amount = if count % 1_000 == 999 { "x" } else { "1" };
        writeln!(file, "{count},Oslo,{amount},2023-11-14T22:13:20Z").unwrap();
    }
    drop(file);
    for (count, item) in from_file(&path, &topic(), Some("count"), Look::Whole).unwrap().enumerate() {
        match item {
            Ok(record) => assert_eq!(record.key, Some(count.to_string().into_bytes())),
            Err(error) => {
                assert_eq!(count % 1_000, 999);
                assert!(error.to_string().contains(&format!("long.csv:{}: field `amount`", count + 2)), "{error}");
            }
        }
    }
}
