//! Decoding through the public interface.

mod round_trip;

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::{
        DataType, Decimal128Type, Field, Float32Type, Float64Type, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit,
        TimestampMicrosecondType,
    },
};
use millstream_core::{
    Batch, BatchBuilder, Decode, Decoded, EPOCH_METADATA, Error, META_COLUMNS, TopicPartition, timestamp_type,
};
use proptest::prelude::*;

use crate::*;

fn epoch(name: &str, unit: &str) -> Field {
    Field::new(name, timestamp_type(), true)
        .with_metadata(HashMap::from([(EPOCH_METADATA.to_owned(), unit.to_owned())]))
}

fn schema() -> SchemaRef {
    let price = vec![Field::new("value", DataType::Decimal128(9, 3), false), epoch("at", "ms")];
    let line = vec![
        Field::new("sku", DataType::Utf8, false),
        Field::new("prices", DataType::new_list(DataType::Struct(price.into()), false), true),
    ];
    Arc::new(Schema::new(vec![
        Field::new("branch", DataType::Utf8, false),
        Field::new("amount", DataType::Decimal128(18, 2), true),
        Field::new("at", timestamp_type(), true),
        Field::new("count", DataType::Int32, true),
        Field::new("big", DataType::Int64, true),
        Field::new("rate", DataType::Float64, true),
        Field::new("small", DataType::Float32, true),
        Field::new("short", DataType::Int16, true),
        Field::new("open", DataType::Boolean, true),
        Field::new("day", DataType::Date32, true),
        Field::new("blob", DataType::Binary, true),
        epoch("seconds", "s"),
        Field::new("tags", DataType::new_list(DataType::Utf8, true), true),
        Field::new("line", DataType::Struct(line.into()), true),
    ]))
}

fn options() -> JsonOptions {
    JsonOptions { schema: schema(), columns: None, event_time: None, tombstones: Tombstones::DeadLetter }
}

fn batch(values: &[Option<&[u8]>]) -> Batch {
    let mut builder = BatchBuilder::new(TopicPartition::new("t", 1, 2));
    for (offset, value) in values.iter().enumerate() {
        builder.push(offset as i64, 1_700_000_000_000 + offset as i64, None, *value, []);
    }
    builder.finish_read(0, values.len() as i64)
}

fn decode_bytes(values: &[&[u8]]) -> Decoded {
    let values: Vec<_> = values.iter().map(|value| Some(*value)).collect();
    JsonDecoder::new(options()).unwrap().decode(&batch(&values)).unwrap()
}

fn decode(values: &[&str]) -> Decoded {
    decode_bytes(&values.iter().map(|value| value.as_bytes()).collect::<Vec<_>>())
}

fn column<'a>(decoded: &'a Decoded, name: &str) -> &'a ArrayRef {
    decoded.rows.column_by_name(name).unwrap()
}

/// The reason why `value` is bad, between two good neighbours, which must be decoded.
fn reason(value: &[u8]) -> String {
    let decoded = decode_bytes(&[br#"{"branch":"before"}"#, value, br#"{"branch":"behind"}"#]);
    assert_eq!(decoded.index, [0, 2], "{}", String::from_utf8_lossy(value));
    let branches: Vec<_> = column(&decoded, "branch").as_string::<i32>().iter().flatten().collect();
    assert_eq!(branches, ["before", "behind"]);
    assert_eq!(decoded.bad.len(), 1);
    assert_eq!(decoded.bad[0].index, 1);
    decoded.bad[0].reason.clone()
}

#[test]
fn good_records_become_rows() {
    let decoded = decode(&[
        r#"{"branch":"Oslo","amount":12.5,"at":"2023-11-14T22:13:20Z","count":7,"big":-9,"rate":1.5e3,"small":0.5,"short":3,
            "open":true,"day":"2023-11-14","blob":"AQI=","seconds":1700000000.5,"tags":["a",null],
            "line":{"sku":"x","prices":[{"value":"1.250","at":1700000000123}]}}"#,
        r#" {"unknown":{"a":[1,{}]},"branch":"Bergen","line":null} "#,
    ]);
    assert_eq!(decoded.bad, []);
    assert_eq!(decoded.index, [0, 1]);
    assert_eq!(
        column(&decoded, "amount").as_primitive::<Decimal128Type>().iter().collect::<Vec<_>>(),
        [Some(1250), None]
    );
    assert_eq!(column(&decoded, "at").as_primitive::<TimestampMicrosecondType>().value(0), 1_700_000_000_000_000);
    assert_eq!(column(&decoded, "seconds").as_primitive::<TimestampMicrosecondType>().value(0), 1_700_000_000_500_000);
    assert_eq!(column(&decoded, "rate").as_primitive::<Float64Type>().value(0), 1500.0);
    assert_eq!(column(&decoded, "blob").as_binary::<i32>().value(0), [1, 2]);
    let prices = column(&decoded, "line").as_struct().column_by_name("prices").unwrap().as_list::<i32>().value(0);
    assert_eq!(prices.as_struct().column(0).as_primitive::<Decimal128Type>().value(0), 1250);
    assert_eq!(prices.as_struct().column(1).as_primitive::<TimestampMicrosecondType>().value(0), 1_700_000_000_123_000);
    assert!(column(&decoded, "line").is_null(1));
    assert_eq!(decoded.event_time.values(), &[1_700_000_000_000_000, 1_700_000_000_001_000]);
}

#[test]
fn values_that_are_not_objects_are_bad() {
    for (value, expected) in [
        ("", "empty value, expected a JSON object"),
        ("  \n", "empty value, expected a JSON object"),
        ("[]", "expected a JSON object, found a list"),
        ("5", "expected a JSON object, found a number"),
        ("null", "expected a JSON object, found null"),
        ("NaN", "not JSON: a value is missing at byte 0"),
        ("}", "not JSON: a value is missing at byte 0"),
        (r#"{"branch":"a""#, "not JSON: it ends too early at byte 13"),
        (r#"{"branch":"a"}{"branch":"b"}"#, "not JSON: something follows the value at byte 14"),
        ("{\"branch\":\"a\"}\n{\"branch\":\"b\"}", "not JSON: something follows the value at byte 15"),
        (r#"{"branch":"a","rate":NaN}"#, "not JSON: a value is missing at byte 21"),
        (r#"{"branch":"a",}"#, "not JSON: a field's name is missing at byte 14"),
        (r#"{"branch":"a","x":[1,]}"#, "not JSON: a value is missing at byte 21"),
        (r#"{"branch":"a","x":nil}"#, "not JSON: an unknown word at byte 18"),
    ] {
        assert_eq!(reason(value.as_bytes()), expected, "{value}");
    }
}

#[test]
fn a_record_never_continues_in_the_next_value() {
    let halves: [&[u8]; 3] = [br#"{"branch":"a""#, b"}", br#"{"branch":"b"}"#];
    let decoded = decode_bytes(&halves);
    assert_eq!((decoded.index.as_slice(), decoded.bad.len()), (&[2][..], 2));
    // A character that is cut in two by the border between two values is in neither of them, although all bytes
    // together are UTF-8.
    let decoded = decode_bytes(&[b"{\"branch\":\"\xC3", b"\xA9\"}", br#"{"branch":"b"}"#]);
    assert_eq!((decoded.index.as_slice(), decoded.bad.len()), (&[2][..], 2));
}

#[test]
fn text_that_is_not_utf8_is_bad_at_any_position() {
    assert_eq!(reason(b"{\"branch\":\"\xFF\"}"), "not JSON: it is not UTF-8");
    assert_eq!(reason(b"{\"branch\":\"a\",\"unknown\":\"\xC3\x28\"}"), "not JSON: it is not UTF-8");
    assert_eq!(reason(br#"{"branch":"\ud800"}"#), "not JSON: half a surrogate pair at byte 11");
}

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
            "field `at`: expected timestamp (RFC 3339 string), found a string that is not such a time",
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

#[test]
fn limits_are_enforced() {
    let nested = |depth: usize| format!(r#"{{"branch":"a","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(reason(nested(100_000).as_bytes()), "nested deeper than 128 levels");
    assert_eq!(reason("[".repeat(100_000).as_bytes()), "expected a JSON object, found a list");
    assert_eq!(decode(&[&nested(MAX_DEPTH - 1)]).bad, []);
    assert_eq!(reason(nested(MAX_DEPTH).as_bytes()), "nested deeper than 128 levels");

    let padded = |bytes: usize| format!(r#"{{"branch":"{}"}}"#, "x".repeat(bytes - 13));
    assert_eq!(decode(&[&padded(MAX_VALUE_BYTES)]).bad, []);
    assert_eq!(reason(padded(MAX_VALUE_BYTES + 1).as_bytes()), "a value of 8388609 bytes; the limit is 8388608");
    assert_eq!(reason(padded(20_000_000).as_bytes()), "a value of 20000000 bytes; the limit is 8388608");

    let items = format!(r#"{{"branch":"a","tags":[{}null]}}"#, "null,".repeat(MAX_LIST_ITEMS));
    assert_eq!(reason(items.as_bytes()), "more than 1000000 items in its lists");
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

/// `{},` is three bytes, but in memory a row in every column of the list's struct.
#[test]
fn the_list_items_of_a_batch_are_bounded_too() {
    let schema = Arc::new(Schema::new(vec![Field::new("tags", DataType::new_list(DataType::Boolean, true), true)]));
    let decoder = |columns: &[&str]| {
        let columns = Some(columns.iter().map(|column| (*column).to_owned()).collect());
        JsonDecoder::new(JsonOptions { schema: schema.clone(), columns, ..options() }).unwrap()
    };
    let most = format!(r#"{{"tags":[{}null]}}"#, "null,".repeat(MAX_LIST_ITEMS - 1));
    let values = [Some(most.as_bytes()), Some(most.as_bytes()), Some(br#"{"tags":[null]}"#)];
    assert_eq!(decoder(&["tags"]).decode(&batch(&values[..2])).unwrap().index, [0, 1]);
    let all = batch(&values);
    match decoder(&["tags"]).decode(&all) {
        Err(Error::TooLarge(_)) => {}
        other => panic!("expected TooLarge, got {:?}", other.map(|decoded| decoded.index)),
    }
    assert_eq!(decoder(&["tags"]).decode(&all.first(1)).unwrap().index, [0]);
    // Skipped fields take no memory.
    assert_eq!(decoder(&["_offset"]).decode(&all).unwrap().index, [0, 1, 2]);
}

#[test]
fn of_equal_names_the_last_counts_and_all_must_be_valid() {
    let decoded = decode(&[
        r#"{"branch":"a","branch":"b","tags":["x"],"tags":["y","z"],"count":1,"count":null,"\u0062ranch":"c"}"#,
        r#"{"branch":"d","count":"x","count":1}"#,
    ]);
    assert_eq!(decoded.rows.num_rows(), 1);
    assert_eq!(column(&decoded, "branch").as_string::<i32>().value(0), "c");
    assert_eq!(
        column(&decoded, "tags").as_list::<i32>().value(0).as_string::<i32>().iter().flatten().collect::<String>(),
        "yz"
    );
    assert!(column(&decoded, "count").is_null(0));
    assert_eq!(decoded.bad[0].index, 1);
}

#[test]
fn tombstones_are_treated_as_the_topic_declares() {
    let values = [Some(&br#"{"branch":"a"}"#[..]), None];
    let decoded = JsonDecoder::new(options()).unwrap().decode(&batch(&values)).unwrap();
    assert_eq!(decoded.bad[0].reason, "no value (a tombstone)");
    let skip = JsonOptions { tombstones: Tombstones::Skip, ..options() };
    let decoded = JsonDecoder::new(skip).unwrap().decode(&batch(&values)).unwrap();
    assert_eq!((decoded.index.as_slice(), decoded.bad.as_slice()), (&[0][..], &[][..]));
}

#[test]
fn only_the_wanted_columns_are_read_in_the_schemas_order() {
    let columns = ["_offset", "count", "_key", "branch"].map(str::to_owned).to_vec();
    let decoder = JsonDecoder::new(JsonOptions { columns: Some(columns), ..options() }).unwrap();
    let names = |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    assert_eq!(names(&decoder.output_schema()), ["branch", "count", "_offset", "_key"]);
    // The type of a field that isn't read is not checked.
    let decoded = decoder.decode(&batch(&[Some(br#"{"branch":"a","amount":"no","count":1}"#)])).unwrap();
    assert_eq!(decoded.rows.schema(), decoder.output_schema());
    assert_eq!(decoded.rows.column(1).as_primitive::<Int32Type>().value(0), 1);

    let none = JsonDecoder::new(JsonOptions { columns: Some(Vec::new()), ..options() }).unwrap();
    assert_eq!(none.decode(&batch(&[Some(b"{}"), Some(b"x"), Some(b"{}")])).unwrap().rows.num_rows(), 2);
}

#[test]
fn the_event_time_is_required_even_if_it_is_not_a_wanted_column() {
    let event_time = JsonOptions { columns: Some(vec!["count".into()]), event_time: Some("at".into()), ..options() };
    let decoder = JsonDecoder::new(event_time).unwrap();
    let values =
        [r#"{"at":"2023-11-14T22:13:20Z","count":1}"#, r#"{"count":2}"#, r#"{"at":null}"#].map(|v| Some(v.as_bytes()));
    let decoded = decoder.decode(&batch(&values)).unwrap();
    assert_eq!(decoded.rows.num_columns(), 1);
    assert_eq!(decoded.event_time.values(), &[1_700_000_000_000_000]);
    let reasons: Vec<_> = decoded.bad.iter().map(|bad| bad.reason.as_str()).collect();
    assert_eq!(reasons, ["field `at`: is missing", "field `at`: is null, but must not be"]);
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

#[test]
fn invalid_options_are_refused() {
    let stops = |options: JsonOptions| match JsonDecoder::new(options) {
        Err(Error::Stop(cause)) => cause.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(stops(JsonOptions { columns: Some(vec!["nope".into()]), ..options() }).contains("`nope`"));
    assert!(stops(JsonOptions { event_time: Some("nope".into()), ..options() }).contains("`nope`"));
    assert!(stops(JsonOptions { event_time: Some("branch".into()), ..options() }).contains("not a timestamp"));
    let with = |field: Field| JsonOptions { schema: Arc::new(Schema::new(vec![field])), ..options() };
    assert!(stops(with(Field::new("_offset", DataType::Int64, true))).contains("`_offset`"));
    assert!(stops(with(epoch("at", "minutes"))).contains("`minutes`"));
    let unsupported = Field::new("x", DataType::new_list(DataType::Duration(TimeUnit::Second), true), true);
    assert!(stops(with(unsupported)).contains("field `x`"));
}

#[test]
fn meta_columns_tell_where_a_row_comes_from() {
    let columns = Some(META_COLUMNS.map(str::to_owned).to_vec());
    let decoder = JsonDecoder::new(JsonOptions { columns, ..options() }).unwrap();
    let all = full_schema(&schema());
    assert_eq!(&all.fields()[schema().fields().len()..], &decoder.output_schema().fields()[..]);
    let mut builder = BatchBuilder::new(TopicPartition::new("orders", 3, 7));
    builder.push(10, 5, Some(b"k"), Some(b"{}"), []);
    builder.push(11, 5, None, Some(b"bad"), []);
    builder.push(12, -7, Some(b"\xFF"), Some(b"{}"), []);
    let rows = decoder.decode(&builder.finish_read(10, 13)).unwrap().rows;
    assert_eq!(rows.column(0).as_string::<i32>().value(1), "orders");
    assert_eq!(rows.column(1).as_primitive::<Int32Type>().values(), &[7, 7]);
    assert_eq!(rows.column(2).as_primitive::<Int64Type>().values(), &[10, 12]);
    assert_eq!(rows.column(3).as_primitive::<TimestampMicrosecondType>().values(), &[5000, -7000]);
    assert_eq!(rows.column(4).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("k"), None]);
    let mut expected = 0x8000_0000_0000_1388u64.to_be_bytes().to_vec();
    expected.extend_from_slice(b"orders\0\0\0\0\x03\0\0\0\x07");
    expected.extend_from_slice(&0x8000_0000_0000_000Au64.to_be_bytes());
    assert_eq!(rows.column(5).as_binary::<i32>().value(0), expected);
}

#[test]
fn a_slice_of_a_batch_decodes_like_a_batch_of_its_records() {
    let values: Vec<Vec<u8>> = (0..10).map(|n| format!(r#"{{"branch":"é","count":{n}}}"#).into_bytes()).collect();
    let whole = batch(&values.iter().map(|value| Some(value.as_slice())).collect::<Vec<_>>());
    let part = whole.after(4).unwrap().first(3);
    let decoded = JsonDecoder::new(options()).unwrap().decode(&part).unwrap();
    assert_eq!(column(&decoded, "count").as_primitive::<Int32Type>().values(), &[4, 5, 6]);
}

/// Records of every kind: good, bad, and broken at any position.
fn record() -> impl Strategy<Value = Option<Vec<u8>>> {
    let good = (any::<i32>(), "[a-zé\"\\\\]{0,6}", prop::option::of(0..100i32), prop::collection::vec("[a-z]{0,3}", 0..4)).prop_map(
        |(count, branch, amount, tags)| {
            let line = serde_json::json!({"sku": branch, "prices": [{"value": "1.5", "at": count}, {"value": count % 1000}]});
            serde_json::json!({"count": count, "branch": branch, "amount": amount, "tags": tags, "line": line, "x": [tags]})
                .to_string()
                .into_bytes()
        },
    );
    let broken = (good.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut value, at, byte)| {
        let at = at.index(value.len());
        value[at] = byte;
        value
    });
    let cut =
        (good.clone(), any::<prop::sample::Index>()).prop_map(|(value, at)| value[..at.index(value.len())].to_vec());
    let fixed = prop::sample::select(vec![
        "",
        "}",
        "{}",
        "null",
        r#"{"branch":null}"#,
        r#"{"branch":"a","count":1e400}"#,
        r#"{"branch":"a"}{"branch":"b"}"#,
        r#"{"branch":"a","tags":["x",1]}"#,
        r#"{"branch":"a","line":{"sku":"x","prices":[{"value":1},{}]}}"#,
        r#"{"branch":"a","line""#,
    ]);
    prop_oneof![
        4 => good.prop_map(Some),
        2 => broken.prop_map(Some),
        1 => cut.prop_map(Some),
        1 => fixed.prop_map(|value| Some(value.as_bytes().to_vec())),
        1 => prop::collection::vec(any::<u8>(), 0..30).prop_map(Some),
        1 => Just(None),
    ]
}

proptest! {
    #[test]
    fn any_split_of_a_batch_decodes_like_its_records_one_by_one(
        records in prop::collection::vec(record(), 0..25), at in any::<prop::sample::Index>(), skip: bool,
    ) {
        let tombstones = if skip { Tombstones::Skip } else { Tombstones::DeadLetter };
        let columns = full_schema(&schema()).fields().iter().map(|field| field.name().clone()).collect();
        let decoder = JsonDecoder::new(JsonOptions { columns: Some(columns), tombstones, ..options() }).unwrap();
        let whole = batch(&records.iter().map(Option::as_deref).collect::<Vec<_>>());
        let expected = parts(&decoder, &whole, &(0..=records.len()).collect::<Vec<_>>());
        let at = at.index(records.len() + 1);
        prop_assert_eq!(&parts(&decoder, &whole, &[0, at, records.len()]), &expected);
        prop_assert_eq!(&parts(&decoder, &whole, &[0, records.len()]), &expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..5)) {
        decode_bytes(&values.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
}

/// The combined result of decoding the parts of a batch.
#[derive(Debug, PartialEq)]
struct Parts {
    rows: RecordBatch,
    index: Vec<usize>,
    bad: Vec<(usize, String)>,
    event_us: Vec<i64>,
}

/// Decodes each part between two of `cuts` separately.
fn parts(decoder: &JsonDecoder, whole: &Batch, cuts: &[usize]) -> Parts {
    let (mut rows, mut index, mut bad, mut event_us) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for cut in cuts.windows(2) {
        let Some(part) = whole.after(cut[0] as i64) else { continue };
        let decoded = decoder.decode(&part.first(cut[1] - cut[0])).unwrap();
        index.extend(decoded.index.iter().map(|index| index + cut[0]));
        bad.extend(decoded.bad.into_iter().map(|bad| (bad.index + cut[0], bad.reason)));
        event_us.extend_from_slice(decoded.event_time.values());
        rows.push(decoded.rows);
    }
    Parts { rows: concat_batches(&decoder.output_schema(), &rows).unwrap(), index, bad, event_us }
}
