//! What a field can hold.

use super::*;

#[test]
fn a_value_that_its_field_cannot_hold_is_reported_with_the_field() {
    for (member, expected) in [
        (r#""amount":12.345"#, "field `amount`: more than 2 decimals"),
        (r#""amount":1e400"#, "field `amount`: expected decimal(18,2), found a number out of its range"),
        (r#""amount":"""#, "field `amount`: expected decimal(18,2), found a string that is not a number"),
        (r#""amount":true"#, "field `amount`: expected decimal(18,2), found true or false"),
        (r#""count":"7""#, "field `count`: expected int, found a string"),
        (r#""count":2147483648"#, "field `count`: expected int, found a number out of its range"),
        (r#""count":1.0"#, "field `count`: expected int, found a number with a fraction or an exponent"),
        (r#""short":40000"#, "field `short`: expected smallint, found a number out of its range"),
        (r#""big":9223372036854775808"#, "field `big`: expected bigint, found a number out of its range"),
        (r#""rate":1e400"#, "field `rate`: expected double, found a number out of its range"),
        (r#""rate":"NaN""#, "field `rate`: expected double, found a string"),
        (r#""small":1e39"#, "field `small`: expected float, found a number out of its range"),
        (r#""open":"true""#, "field `open`: expected true or false, found a string"),
        (r#""at":1700000000"#, "field `at`: expected timestamp (RFC 3339 string), found a number"),
        (
            r#""at":"yesterday""#,
            "field `at`: expected timestamp (RFC 3339 string), found a string that is no RFC 3339 time (without a zone, it is UTC)",
        ),
        (r#""seconds":"2023""#, "field `seconds`: expected timestamp (epoch s), found a string"),
        (r#""seconds":9e18"#, "field `seconds`: a time outside the years 0001 to 9999"),
        (r#""day":"2023-02-29""#, "field `day`: expected date (YYYY-MM-DD), found a string that is not such a date"),
        (r#""blob":"?""#, "field `blob`: expected base64 string, found a string that is not base64"),
        (r#""tags":"a""#, "field `tags`: expected list, found a string"),
        (r#""tags":["a",5]"#, "field `tags[]`: expected string, found a number"),
        (r#""line":[]"#, "field `line`: expected object, found a list"),
        (r#""line":{}"#, "field `line.sku`: is missing"),
        (r#""line":{"sku":null}"#, "field `line.sku`: is null, but must not be"),
        (r#""line":{"sku":"x","prices":[null]}"#, "field `line.prices[]`: is null, but must not be"),
        (
            r#""line":{"sku":"x","prices":[{"value":1},{"value":1.0001}]}"#,
            "field `line.prices[].value`: more than 3 decimals",
        ),
        (
            r#""line":{"sku":"x","prices":[{"value":1,"at":1e30}]}"#,
            "field `line.prices[].at`: a time outside the years 0001 to 9999",
        ),
    ] {
        assert_eq!(reason(format!(r#"{{"branch":"a",{member}}}"#).as_bytes()), expected);
    }
    assert_eq!(reason(b"{}"), "field `branch`: is missing");
    assert_eq!(reason(br#"{"branch":null}"#), "field `branch`: is null, but must not be");
}

#[test]
fn a_reason_never_holds_the_value() {
    for value in [
        r#"{"branch":"a","count":"s3cret"}"#,
        r#"{"branch":"a","amount":"s3cret"}"#,
        r#"{"branch":"a","at":"s3cret"}"#,
        r#"{"branch":"a","day":"s3cret"}"#,
        r#"{"branch":"a","blob":"s3cret"}"#,
        r#"{"s3cret":1}"#,
        "s3cret",
        r#"{"branch":"a","s3cret":s3cret}"#,
        r#"{"branch":"s3cret\u"#,
        r#"{"branch":"a","line":"s3cret"}"#,
    ] {
        let reason = reason(value.as_bytes());
        assert!(!reason.contains("s3"), "{reason}");
    }
}

/// Every store and every window can hold these years. A time in another unit than the declared one is usually outside
/// them.
#[test]
fn times_are_within_the_years_that_every_store_can_hold() {
    let (first_us, last_us) = (-62_135_596_800_000_000_i64, 253_402_300_799_999_999_i64);
    let timed = |name: &str, value: String| format!(r#"{{"branch":"a","{name}":{value}}}"#);
    let quoted = |text: &str| format!("\"{text}\"");
    let good = [
        timed("seconds", (first_us / 1_000_000).to_string()),
        timed("seconds", (last_us / 1_000_000).to_string()),
        timed("at", quoted("0001-01-01T00:00:00Z")),
        timed("at", quoted("9999-12-31T23:59:59.999999Z")),
        timed("day", quoted("0001-01-01")),
        timed("day", quoted("9999-12-31")),
    ];
    let decoded = decode(&good.each_ref().map(String::as_str));
    assert_eq!(decoded.bad, []);
    for (name, value) in [
        ("seconds", (first_us / 1_000_000 - 1).to_string()),
        ("seconds", (last_us / 1_000_000 + 1).to_string()),
        ("seconds", "1.7e12".to_owned()),
        ("seconds", "-9223372036854".to_owned()),
        ("at", quoted("0000-12-31T23:59:59Z")),
        ("at", quoted("9999-12-31T23:59:59-01:00")),
        ("at", quoted("9999-12-31T23:59:60Z")),
        ("at", quoted("0001-01-01T00:00:00+00:01")),
        ("day", quoted("0000-12-31")),
    ] {
        assert_eq!(reason(timed(name, value.clone()).as_bytes()), format!("field `{name}`: {OUTSIDE}"), "{value}");
    }
    let line = |at: i64| format!(r#"{{"branch":"a","line":{{"sku":"x","prices":[{{"value":1,"at":{at}}}]}}}}"#);
    assert_eq!(decode(&[&line(first_us / 1_000), &line(last_us / 1_000)]).bad, []);
    for at in [first_us / 1_000 - 1, last_us / 1_000 + 1, -9_223_372_036_854_775, i64::MIN, i64::MAX] {
        assert_eq!(reason(line(at).as_bytes()), format!("field `line.prices[].at`: {OUTSIDE}"), "{at}");
    }
    // Kafka's own timestamp.
    let mut builder = BatchBuilder::new(TopicPartition::new("t", 1, 0));
    for (offset, timestamp_ms) in [-1, 0, last_us / 1_000, last_us / 1_000 + 1, i64::MAX].into_iter().enumerate() {
        builder.push(offset as i64, timestamp_ms, None, Some(br#"{"branch":"a","at":"2026-01-01T00:00:00Z"}"#), []);
    }
    let decoder = JsonDecoder::new(JsonOptions { event_time: Some("at".into()), ..options() }).unwrap();
    assert_eq!(decoder.decode(&builder.finish_read(0, 5)).unwrap().index, [0, 1, 2]);
}

const OUTSIDE: &str = "a time outside the years 0001 to 9999";

/// Stores don't tell -0 from 0, so the decoder doesn't either.
#[test]
fn negative_zero_becomes_zero() {
    let decoded =
        decode(&[r#"{"branch":"a","rate":-0.0,"small":-0}"#, r#"{"branch":"a","rate":-1e-999,"small":-0e9}"#]);
    for value in column(&decoded, "rate").as_primitive::<Float64Type>().values() {
        assert_eq!(value.to_bits(), 0.0_f64.to_bits());
    }
    for value in column(&decoded, "small").as_primitive::<Float32Type>().values() {
        assert_eq!(value.to_bits(), 0.0_f32.to_bits());
    }
}

#[test]
fn kafkas_timestamp_must_be_valid_if_it_is_the_event_time() {
    let mut builder = BatchBuilder::new(TopicPartition::new("t", 1, 0));
    builder.push(0, -1, None, Some(br#"{"branch":"a"}"#), []);
    builder.push(1, i64::MAX, None, Some(br#"{"branch":"a"}"#), []);
    builder.push(2, 5, None, Some(br#"{"branch":"a"}"#), []);
    let decoded = JsonDecoder::new(options()).unwrap().decode(&builder.finish_read(0, 3)).unwrap();
    assert_eq!((decoded.index.as_slice(), decoded.bad.len()), (&[2][..], 2));
    assert_eq!(decoded.event_time.values(), &[5000]);
}
