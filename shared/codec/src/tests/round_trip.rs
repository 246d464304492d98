//! Encoded rows are decoded unchanged.

use arrow::{
    array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
        Int64Array, ListArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
    },
    buffer::{NullBuffer, OffsetBuffer},
};

use millstream_core::Encode as _;

use super::*;

const ROWS: usize = 4;
const RFC_3339_US: std::ops::Range<i64> = -62_135_596_800_000_000..253_402_300_800_000_000;

fn cells<T: std::fmt::Debug>(value: impl Strategy<Value = T>, count: usize) -> impl Strategy<Value = Vec<Option<T>>> {
    prop::collection::vec(prop::option::weighted(0.8, value), count)
}

fn leaf<T: std::fmt::Debug + 'static, A: Array + From<Vec<Option<T>>> + 'static>(
    value: impl Strategy<Value = T> + 'static,
    count: usize,
) -> BoxedStrategy<ArrayRef> {
    cells(value, count).prop_map(|values| Arc::new(A::from(values)) as ArrayRef).boxed()
}

fn decimals(precision: u8, scale: i8, count: usize) -> BoxedStrategy<ArrayRef> {
    let limit = 10i128.pow(precision.into()) - 1;
    cells(-limit..=limit, count)
        .prop_map(move |values| {
            Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap()) as ArrayRef
        })
        .boxed()
}

fn times(range: impl Strategy<Value = i64> + 'static, count: usize) -> BoxedStrategy<ArrayRef> {
    let utc = |values| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef;
    cells(range, count).prop_map(utc).boxed()
}

/// Columns with any values that JSON can hold: every type, then a struct with a list.
fn columns() -> impl Strategy<Value = Vec<(Field, ArrayRef)>> {
    let field = |name: &str, array: &ArrayRef| Field::new(name, array.data_type().clone(), true);
    let leaves = vec![
        leaf::<_, BooleanArray>(any::<bool>(), ROWS),
        leaf::<_, Int16Array>(any::<i16>(), ROWS),
        leaf::<_, Int32Array>(any::<i32>(), ROWS),
        leaf::<_, Int64Array>(any::<i64>(), ROWS),
        leaf::<_, Float32Array>(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL, ROWS),
        leaf::<_, Float64Array>(prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL, ROWS),
        leaf::<_, StringArray>(any::<String>(), ROWS),
        leaf::<_, Date32Array>(-719_162..2_932_897i32, ROWS),
        decimals(18, 2, ROWS),
        decimals(38, 38, ROWS),
        decimals(5, 0, ROWS),
        times(RFC_3339_US, ROWS),
        cells(prop::collection::vec(any::<u8>(), 0..9), ROWS)
            .prop_map(|values| Arc::new(values.iter().map(Option::as_deref).collect::<BinaryArray>()) as ArrayRef)
            .boxed(),
    ];
    let epochs = vec![times(RFC_3339_US, ROWS), times(RFC_3339_US, ROWS), times(RFC_3339_US, ROWS)];
    let nested =
        (decimals(9, 3, ROWS * 2), prop::collection::vec(0..3usize, ROWS), prop::collection::vec(any::<bool>(), ROWS));
    (leaves, epochs, nested).prop_map(move |(leaves, epochs, (values, lengths, valid))| {
        let mut columns: Vec<_> =
            leaves.into_iter().enumerate().map(|(at, array)| (field(&format!("f \"{at}\""), &array), array)).collect();
        columns.extend(["s", "ms", "us"].into_iter().zip(epochs).map(|(unit, array)| (epoch(unit, unit), array)));
        let offsets = OffsetBuffer::from_lengths(lengths);
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        let list: ArrayRef = Arc::new(ListArray::new(item, offsets, values, Some(NullBuffer::from(valid.clone()))));
        let nulls = Some(NullBuffer::from(valid));
        let nested: ArrayRef = Arc::new(StructArray::new(vec![field("list", &list)].into(), vec![list], nulls));
        columns.push((field("nested", &nested), nested));
        columns
    })
}

proptest! {
    #[test]
    fn encoded_rows_are_decoded_unchanged(columns in columns()) {
        let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let schema = Arc::new(Schema::new(fields));
        let rows = RecordBatch::try_new(schema.clone(), arrays).unwrap();
        let json = JsonEncoder::new(schema.clone()).unwrap().encode(&rows).unwrap();
        for object in &json {
            prop_assert!(serde_json::from_slice::<serde_json::Value>(object).is_ok(), "{}", String::from_utf8_lossy(object));
        }
        let decoder = JsonDecoder::new(JsonOptions { schema, ..options() }).unwrap();
        let decoded = decoder.decode(&batch(&json.iter().map(|value| Some(value.as_slice())).collect::<Vec<_>>())).unwrap();
        prop_assert_eq!(&decoded.bad, &[]);
        prop_assert_eq!(&decoded.rows, &rows);
    }
}

#[test]
fn the_text_is_plain() {
    let fields = vec![
        Field::new("amount", DataType::Decimal128(18, 2), true),
        Field::new("at", timestamp_type(), true),
        epoch("s", "s"),
    ];
    let schema = Arc::new(Schema::new(fields));
    let us = TimestampMicrosecondArray::from(vec![1_700_000_000_500_000]).with_timezone("UTC");
    let amount = Decimal128Array::from(vec![-5]).with_precision_and_scale(18, 2).unwrap();
    let rows =
        RecordBatch::try_new(schema.clone(), vec![Arc::new(amount), Arc::new(us.clone()), Arc::new(us)]).unwrap();
    let json = JsonEncoder::new(schema).unwrap().encode(&rows).unwrap();
    let expected = r#"{"amount":-0.05,"at":"2023-11-14T22:13:20.5Z","s":1700000000.5}"#;
    assert_eq!(String::from_utf8_lossy(&json[0]), expected);
}

#[test]
fn what_json_cannot_hold_is_poison() {
    let encode = |array: ArrayRef| {
        let schema = Arc::new(Schema::new(vec![Field::new("x", array.data_type().clone(), true)]));
        JsonEncoder::new(schema.clone()).unwrap().encode(&RecordBatch::try_new(schema, vec![array]).unwrap())
    };
    let too_late = TimestampMicrosecondArray::from(vec![i64::MAX]).with_timezone("UTC");
    for array in [Arc::new(Float64Array::from(vec![f64::NAN])) as ArrayRef, Arc::new(too_late)] {
        assert!(matches!(encode(array), Err(Error::Poison(_))));
    }
}
