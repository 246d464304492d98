//! Which records become rows.

use super::*;

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
        ("nope", "not JSON: an unknown word at byte 0"),
        ("tru", "not JSON: an unknown word at byte 0"),
        (r#"{"branch":tru}"#, "not JSON: an unknown word at byte 10"),
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
fn a_slice_of_a_batch_decodes_like_a_batch_of_its_records() {
    let values: Vec<Vec<u8>> = (0..10).map(|n| format!(r#"{{"branch":"é","count":{n}}}"#).into_bytes()).collect();
    let whole = batch(&values.iter().map(|value| Some(value.as_slice())).collect::<Vec<_>>());
    let part = whole.after(4).unwrap().first(3);
    let decoded = JsonDecoder::new(options()).unwrap().decode(&part).unwrap();
    assert_eq!(column(&decoded, "count").as_primitive::<Int32Type>().values(), &[4, 5, 6]);
}
