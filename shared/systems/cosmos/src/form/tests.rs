use arrow::{
    array::{
        Date32Array, Decimal128Array, Float32Array, Int8Array, Int16Array, ListArray, StringViewArray, StructArray,
        Time32SecondArray, Time64MicrosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray,
        TimestampNanosecondArray, UInt8Array, UInt16Array, UInt32Array,
    },
    buffer::OffsetBuffer,
};

use super::*;

fn round_trip(values: ArrayRef) {
    let data_type = values.data_type().clone();
    let form = Form::of(&data_type).unwrap();
    let stored = form.encode("c", &values).unwrap();
    // As the service gives it back: every number is a double.
    let stored: Vec<Value> = serde_json::from_str(&serde_json::to_string(&stored).unwrap()).unwrap();
    let stored: Vec<_> = stored.into_iter().map(as_double).collect();
    assert_eq!(
        stored.iter().map(Value::is_null).collect::<Vec<_>>(),
        (0..values.len()).map(|at| values.is_null(at)).collect::<Vec<_>>()
    );
    assert_eq!(&form.decode("c", stored, &data_type).unwrap(), &values, "{data_type}");
    assert_eq!(form.decode("c", Vec::new(), &data_type).unwrap().len(), 0);
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
        Arc::new(Date32Array::from(vec![-719_162, -1, 0, 2_932_896])),
        Arc::new(Time32SecondArray::from(vec![0, 86_399])),
        Arc::new(Time64MicrosecondArray::from(vec![0, 86_399_999_999])),
        Arc::new(TimestampMicrosecondArray::from(vec![-8_000_000_000_000_000_000, -1, 8_000_000_000_000_000_000])),
        Arc::new(TimestampMicrosecondArray::from(vec![-1, 1]).with_timezone("Europe/Zurich")),
        Arc::new(TimestampMillisecondArray::from(vec![-62_135_596_800_001, 253_402_300_800_000])),
        Arc::new(TimestampNanosecondArray::from(vec![i64::MIN, i64::MAX])),
        Arc::new(list),
        Arc::new(StructArray::from(vec![(item, Arc::new(Int64Array::from(vec![Some(7), None])) as ArrayRef)])),
    ];
    all.into_iter().for_each(round_trip);
    let nan: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN]));
    let stored = Form::Float.encode("c", &nan).unwrap();
    let back = Form::Float.decode("c", stored, &DataType::Float64).unwrap();
    assert!(back.as_primitive::<Float64Type>().value(0).is_nan());
}

fn as_double(value: Value) -> Value {
    match value.as_f64() {
        Some(double) => Value::from(double),
        None => value,
    }
}

#[test]
fn values_are_what_the_docs_say() {
    let of = |values: ArrayRef| Form::of(values.data_type()).unwrap().encode("c", &values).unwrap();
    let (exact, beyond) = (9_007_199_254_740_991_i64, 9_007_199_254_740_992_i64);
    let integers = of(Arc::new(Int64Array::from(vec![1, exact, beyond, -beyond])));
    assert_eq!(serde_json::to_string(&integers).unwrap(), format!("[1,{exact},\"{beyond}\",\"-{beyond}\"]"));
    let decimals = Decimal128Array::from(vec![1_250]).with_precision_and_scale(9, 2).unwrap();
    assert_eq!(of(Arc::new(decimals)), ["12.50"]);
    let floats = of(Arc::new(Float64Array::from(vec![1.5, f64::NAN, f64::NEG_INFINITY, -0.0])));
    assert_eq!(serde_json::to_string(&floats).unwrap(), r#"[1.5,"NaN","-Infinity","-0.0"]"#);
    let times = TimestampMicrosecondArray::from(vec![1_714_566_600_000_001, -1]).with_timezone("UTC");
    assert_eq!(of(Arc::new(times)), ["2024-05-01T12:30:00.000001Z", "1969-12-31T23:59:59.999999Z"]);
    assert_eq!(of(Arc::new(BinaryArray::from_vec(vec![b"\0\xff"]))), ["AP8="]);
    assert_eq!(of(Arc::new(Date32Array::from(vec![0]))), ["1970-01-01"]);
}

#[test]
fn another_programs_value_stops() {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    for (value, data_type) in [
        (Value::from("seven"), DataType::Int64),
        (Value::from(300), DataType::UInt8),
        (Value::from(1.5), DataType::Int32),
        (Value::from(-1), DataType::UInt64),
        (Value::from("1.501"), DataType::Decimal128(9, 2)),
        (Value::from("1e2"), DataType::Decimal128(9, 2)),
        (Value::from("100"), DataType::Decimal128(4, 2)),
        (Value::from("1.5"), DataType::Float64),
        (Value::from(1), DataType::Utf8),
        (Value::from(1), DataType::Boolean),
        (Value::from("!"), DataType::Binary),
        (Value::from("2024-13-01"), DataType::Date32),
        (Value::from("1970-01-01T00:00:00.0001Z"), time),
        (Value::from("{"), DataType::new_list(DataType::Int64, true)),
    ] {
        let odd = Form::of(&data_type).unwrap().decode("c", vec![value], &data_type).unwrap_err();
        assert!(matches!(&odd, Error::Stop(_)) && odd.to_string().contains("another program"), "{data_type}: {odd}");
    }
    let late: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX]));
    assert!(matches!(Form::Timestamp(TimeUnit::Microsecond).encode("c", &late), Err(Error::Poison(_))));
}
