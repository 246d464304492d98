//! Which columns come out, and what each says.

use super::*;

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
    builder.push(12, -7, Some(b"\xFF"), Some(b"{}"), [("trace", &b"1"[..])]);
    let rows = decoder.decode(&builder.finish_read(10, 13)).unwrap().rows;
    assert_eq!(rows.column(0).as_string::<i32>().value(1), "orders");
    assert_eq!(rows.column(1).as_primitive::<Int32Type>().values(), &[7, 7]);
    assert_eq!(rows.column(2).as_primitive::<Int64Type>().values(), &[10, 12]);
    assert_eq!(rows.column(3).as_primitive::<TimestampMicrosecondType>().values(), &[5000, -7000]);
    assert_eq!(rows.column(4).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("k"), None]);
    let mut expected = 0x8000_0000_0000_1388u64.to_be_bytes().to_vec();
    expected.extend_from_slice(b"orders\0\0\0\0\x03\0\0\0\x07");
    expected.extend_from_slice(&0x8000_0000_0000_000Au64.to_be_bytes());
    let headers = rows.column(5).as_map();
    assert_eq!((headers.value_length(0), headers.value_length(1)), (0, 1));
    assert_eq!(headers.keys().as_string::<i32>().value(0), "trace");
    assert_eq!(rows.column(6).as_binary::<i32>().value(0), expected);
}
