use arrow::{
    array::{
        Int8Array, Int16Array, ListArray, StringViewArray, StructArray, Time32SecondArray, Time64MicrosecondArray,
        TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt8Array, UInt16Array,
        UInt32Array,
    },
    buffer::OffsetBuffer,
};
use millstream_core::Role;

use super::*;

fn round_trip(values: ArrayRef) {
    let data_type = values.data_type().clone();
    let kind = Kind::of(&data_type).unwrap();
    let cells = kind.encode("c", &values).unwrap();
    assert_eq!(
        cells.iter().map(Option::is_none).collect::<Vec<_>>(),
        (0..values.len()).map(|at| values.is_null(at)).collect::<Vec<_>>()
    );
    assert_eq!(&kind.decode("c", cells, &data_type).unwrap(), &values, "{data_type}");
    assert_eq!(kind.decode("c", Vec::new(), &data_type).unwrap().len(), 0);
}

#[test]
fn every_value_comes_back() {
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    let list = ListArray::new(
        item.clone(),
        OffsetBuffer::from_lengths([2, 0]),
        Arc::new(Int64Array::from(vec![Some(1), None])),
        None,
    );
    let all: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(Int8Array::from(vec![i8::MIN, i8::MAX])),
        Arc::new(Int16Array::from(vec![i16::MIN, i16::MAX])),
        Arc::new(UInt8Array::from(vec![0, u8::MAX])),
        Arc::new(UInt16Array::from(vec![0, u16::MAX])),
        Arc::new(UInt32Array::from(vec![0, u32::MAX])),
        Arc::new(UInt64Array::from(vec![Some(0), None, Some(255), Some(u64::MAX)])),
        Arc::new(Float32Array::from(vec![f32::MIN, f32::MIN_POSITIVE, -0.0, f32::INFINITY])),
        Arc::new(Float64Array::from(vec![f64::MIN, f64::MIN_POSITIVE, -0.0, f64::INFINITY, f64::NEG_INFINITY])),
        Arc::new(
            Decimal128Array::from(vec![Some(i128::MAX / 2), Some(-1), None, Some(128)])
                .with_precision_and_scale(38, 3)
                .unwrap(),
        ),
        Arc::new(StringViewArray::from(vec![Some(""), None, Some("Zürich")])),
        Arc::new(BinaryArray::from_opt_vec(vec![Some(b""), None, Some(b"\0\xff")])),
        Arc::new(Date32Array::from(vec![i32::MIN, -1, 0, i32::MAX])),
        Arc::new(Time32SecondArray::from(vec![0, 86_399])),
        Arc::new(Time64MicrosecondArray::from(vec![0, 86_399_999_999])),
        Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN, -1, i64::MAX])),
        Arc::new(TimestampMicrosecondArray::from(vec![-1, 1]).with_timezone("Europe/Zurich")),
        Arc::new(TimestampMillisecondArray::from(vec![i64::MIN, i64::MAX])),
        Arc::new(TimestampNanosecondArray::from(vec![i64::MIN, i64::MAX])),
        Arc::new(list),
        Arc::new(StructArray::from(vec![(item, Arc::new(Int64Array::from(vec![Some(7), None])) as ArrayRef)])),
    ];
    all.into_iter().for_each(round_trip);
    let nan: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN]));
    let cells = Kind::Double.encode("c", &nan).unwrap();
    let back = Kind::Double.decode("c", cells, &DataType::Float64).unwrap();
    assert!(back.as_primitive::<Float64Type>().value(0).is_nan());
}

#[test]
fn kafkas_time_is_a_timestamp() {
    let column = |name: &str| Column {
        name: name.into(),
        data_type: DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        nullable: false,
        role: Role::Value,
    };
    assert_eq!(Kind::of_column(&column("at")), Some(Kind::Instant));
    let (kind, column) = (Kind::of_column(&column(meta::TIMESTAMP)).unwrap(), column(meta::TIMESTAMP));
    assert_eq!(kind, Kind::Milliseconds);
    let whole: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(-1_000), None]).with_timezone("UTC"));
    let cells = kind.encode("c", &whole).unwrap();
    assert_eq!(cells, [Some(CqlValue::Timestamp(CqlTimestamp(-1))), None]);
    assert_eq!(&kind.decode("c", cells, &column.data_type).unwrap(), &whole);
    let part: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC"));
    assert!(matches!(kind.encode("c", &part), Err(Error::Poison(_))));
}

#[test]
fn numbers_have_the_fewest_bytes() {
    for (value, bytes) in
        [(0, &[0][..]), (127, &[127]), (128, &[0, 128]), (-1, &[255]), (-128, &[128]), (-129, &[255, 127])]
    {
        assert_eq!(shortest(value), bytes, "{value}");
        assert_eq!(wide(bytes), Some(value));
        assert_eq!(wide(&[&[if value < 0 { 255 } else { 0 }; 20], bytes].concat()), Some(value), "with spare bytes");
    }
    for value in [i128::MIN, i128::MAX] {
        assert_eq!(wide(&shortest(value)), Some(value));
    }
    assert_eq!(wide(&[&[1][..], &[0; 16]].concat()), None);
    assert_eq!(wide(&[&[0, 255][..], &[0; 15]].concat()), None, "too large for its sign");
}

#[test]
fn a_decimal_of_another_scale_is_the_same_number_or_refused() {
    let cell = |value, scale| CqlValue::Decimal(CqlDecimal::from_signed_be_bytes_and_exponent(shortest(value), scale));
    assert_eq!(decimal(&cell(15, 1), 9, 2), Some(150));
    assert_eq!(decimal(&cell(1500, 3), 9, 2), Some(150));
    assert_eq!(decimal(&cell(15, -1), 9, 2), Some(15_000));
    assert_eq!(decimal(&cell(1501, 3), 9, 2), None);
    assert_eq!(decimal(&cell(100, 0), 4, 2), None);
    assert_eq!(decimal(&cell(1, i32::MIN), 9, 2), None);
}

#[test]
fn another_programs_value_stops() {
    let odd = Kind::BigInt.decode("c", vec![Some(CqlValue::Text("7".into()))], &DataType::Int64).unwrap_err();
    assert!(matches!(&odd, Error::Stop(_)) && odd.to_string().contains("another program"), "{odd}");
    assert!(Kind::Int.decode("c", vec![Some(CqlValue::Int(300))], &DataType::UInt8).is_err());
    assert!(Kind::Boolean.decode("c", vec![Some(CqlValue::Empty)], &DataType::Boolean).is_err());
}
