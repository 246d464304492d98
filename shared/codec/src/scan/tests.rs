use proptest::prelude::*;

use super::{text::plain, *};

fn accepts(text: &str) -> bool {
    let mut json = Scanner::new(text);
    json.skip().and_then(|()| json.end()).is_ok()
}

#[test]
fn only_valid_json_is_accepted() {
    for good in [
        "null",
        " true ",
        "false",
        "0",
        "-0",
        "12",
        "-1.50",
        "1e5",
        "1E+5",
        "2.5e-7",
        "\"\"",
        "\"a\"",
        "[]",
        "[1, 2]",
        "{}",
        "{\"a\":1, \"b\":[{}]}",
        "\t[\r\n1 ]",
        r#""\u00e9\ud83d\ude00\n\/""#,
        "\"längst mehr als acht Zeichen 😀\"",
    ] {
        assert!(accepts(good), "{good}");
        assert!(serde_json::from_str::<serde_json::Value>(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        " ",
        "nul",
        "nulll",
        "True",
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "NaN",
        "Infinity",
        "-inf",
        "\"",
        "\"a",
        "'a'",
        r#""\x""#,
        r#""\u12"#,
        r#""\u12g4""#,
        r#""\ud800""#,
        r#""\ud800\u0041""#,
        r#""\udc00""#,
        "\"tab\there\"",
        "\"a line\nbreak in a string\"",
        "\"\\",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,}",
        "{,\"a\":1}",
        "{a:1}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "1 2",
        "{}{}",
        "{\"a\":1}}",
        "/* c */ 1",
        "\u{feff}1",
    ] {
        assert!(!accepts(bad), "{bad}");
    }
}

#[test]
fn escapes_are_read() {
    let read = |text| Scanner::new(text).string().unwrap().into_owned();
    assert_eq!(read(r#""a\"b\\c\/d\b\f\n\r\te\u00e9\ud83d\ude00f""#), "a\"b\\c/d\u{8}\u{c}\n\r\teé😀f");
    assert_eq!(read("\"0123456789 plain\""), "0123456789 plain");
}

#[test]
fn the_end_of_plain_text_is_found_at_any_position() {
    for length in 0..40 {
        for stop in [b'"', b'\\', 0, 9, 0x1f] {
            let mut text = "é~ \u{7f}😀!#[]".repeat(8).into_bytes()[..length].to_vec();
            assert_eq!(plain(&text), length);
            text.push(stop);
            text.extend_from_slice(b"\"\\\0rest");
            assert_eq!(plain(&text), length, "{stop}");
        }
    }
}

#[test]
fn depth_and_items_are_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(accepts(&nested(MAX_DEPTH)));
    assert!(!accepts(&nested(MAX_DEPTH + 1)));
    assert!(!accepts(&"{\"a\":".repeat(100_000)));
    let items = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
    assert!(accepts(&items(MAX_LIST_ITEMS)));
    assert!(!accepts(&items(MAX_LIST_ITEMS + 1)));
}

proptest! {
    #[test]
    fn the_scanner_agrees_with_serde_json(text in r#"([\[\]{}",:0-9.eEu+ -]|\\|\\u[d0][8c0]00|"[a\\"]*"|true|null|[é"]){0,20}"#) {
        match serde_json::from_str::<serde_json::Value>(&text) {
            // Only serde_json's number type is too small; the text is valid.
            Err(error) if error.to_string().contains("number out of range") => {}
            answer => prop_assert_eq!(accepts(&text), answer.is_ok(), "{}: {:?}", text, answer),
        }
    }
}
