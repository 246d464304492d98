use arrow::{
    array::{
        BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Int8Array, ListArray, StringViewArray,
        StructArray, Time64MicrosecondArray, TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray,
        UInt64Array,
    },
    datatypes::Int32Type,
};

use super::*;

fn decimals(values: Vec<Option<i128>>, precision: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
}

fn arrays() -> Vec<ArrayRef> {
    let amounts = decimals(vec![Some(-5), Some(1_000_000_000_000_000_001), None], 38, 2);
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a\n\"b\""), None, Some("")]));
    let fields = vec![
        (Arc::new(Field::new("amount", amounts.data_type().clone(), true)), amounts),
        (Arc::new(Field::new("name", DataType::Utf8, true)), names),
    ];
    vec![
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(i8::MAX)])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)])),
        Arc::new(UInt64Array::from(vec![Some(0), None, Some(u64::MAX)])),
        Arc::new(Float32Array::from(vec![Some(0.1), None, Some(f32::MAX), Some(f32::NEG_INFINITY), Some(-0.0)])),
        Arc::new(Float64Array::from(vec![
            Some(0.1),
            None,
            Some(f64::MIN_POSITIVE),
            Some(f64::INFINITY),
            Some(f64::NEG_INFINITY),
            Some(-0.0),
            Some(1e300),
        ])),
        Arc::new(StringArray::from(vec![Some("1.0"), None, Some(""), Some("NaN"), Some("Zürich")])),
        Arc::new(StringViewArray::from(vec![Some("longer than twelve bytes"), None])),
        Arc::new(BinaryArray::from(vec![Some(&b"\0\xff"[..]), None, Some(b"")])),
        Arc::new(FixedSizeBinaryArray::try_from_iter([b"ab", b"\0\0"].iter()).unwrap()),
        decimals(vec![Some(1250), None, Some(-5), Some(0), Some(10_i128.pow(38) - 1)], 38, 2),
        decimals(vec![Some(7), None], 10, 0),
        Arc::new(Date32Array::from(vec![Some(0), None, Some(20_778), Some(-719_162)])),
        Arc::new(Time64MicrosecondArray::from(vec![Some(1), None, Some(86_399_000_000)])),
        Arc::new(TimestampSecondArray::from(vec![Some(-1), None, Some(1_800_000_000)])),
        Arc::new(
            TimestampMicrosecondArray::from(vec![Some(1), None, Some(-1), Some(300_000_000_000_000_000)])
                .with_timezone("UTC"),
        ),
        Arc::new(TimestampNanosecondArray::from(vec![Some(1), None, Some(1_000), Some(i64::MAX)])),
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
        ])),
        Arc::new(StructArray::from(fields)),
    ]
}

#[test]
fn every_type_comes_back_as_it_was() {
    for column in arrays() {
        let (again, odd) = decode(&encode(&column).unwrap(), column.data_type()).unwrap();
        assert_eq!((&again, odd), (&column, vec![]), "{}", column.data_type());
        assert_eq!(decode(&[], column.data_type()).unwrap().0.len(), 0);
    }
    let nan: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN]));
    let (again, odd) = decode(&encode(&nan).unwrap(), nan.data_type()).unwrap();
    assert!(again.as_primitive::<Float64Type>().value(0).is_nan() && odd.is_empty());
}

#[test]
fn texts_are_the_documented_ones() {
    let text = |column: ArrayRef| {
        let text = encode(&column).unwrap().swap_remove(0).unwrap();
        (String::from_utf8(text.clone()).unwrap(), to_json(&text, column.data_type()))
    };
    let is = |column: ArrayRef, expected: &str, json: &str| assert_eq!(text(column), (expected.into(), json.into()));
    let at = "2026-11-21T10:00:02.500000Z";
    is(Arc::new(TimestampMicrosecondArray::from(vec![1_795_255_202_500_000])), at, &format!("\"{at}\""));
    is(decimals(vec![Some(1250)], 18, 2), "12.50", "12.50");
    is(Arc::new(Float64Array::from(vec![1e21])), "1e21", "1e21");
    is(Arc::new(Float64Array::from(vec![f64::NEG_INFINITY])), "-Infinity", "\"-Infinity\"");
    is(Arc::new(BooleanArray::from(vec![true])), "true", "true");
    is(Arc::new(Date32Array::from(vec![0])), "1970-01-01", "\"1970-01-01\"");
    is(Arc::new(StringArray::from(vec!["a\"b"])), "a\"b", "\"a\\\"b\"");
    is(Arc::new(BinaryArray::from(vec![&b"a\n"[..]])), "a\n", "\"610a\"");
    is(Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])])), "[1,null]", "[1,null]");
}

#[test]
fn what_no_function_writes_is_odd() {
    let odd = |texts: &[&[u8]], data_type: &DataType| {
        let texts: Vec<Text> = texts.iter().map(|text| Some(text.to_vec())).collect();
        let (column, odd) = decode(&texts, data_type).unwrap();
        assert_eq!(column.len(), texts.len());
        assert!(odd.iter().all(|row| column.is_null(*row)));
        odd
    };
    assert_eq!(odd(&[b"1", b"x", b" 2", b"+3", b"4.0", b""], &DataType::Int64), [1, 2, 3, 4, 5]);
    assert_eq!(odd(&[b"1.50", b"1.5", b"1.505", b"1000.00"], &DataType::Decimal128(5, 2)), [1, 2, 3]);
    assert_eq!(odd(&[b"ok", b"\xff"], &DataType::Utf8), [1]);
    assert_eq!(odd(&[b"0.1", b"0.10", b"inf", b"Infinity"], &DataType::Float64), [1, 2]);
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int32, true)));
    assert_eq!(odd(&[b"[1]", b"[1", b"[ 1 ]", b"[\"x\"]"], &list), [1, 2, 3]);
    assert_eq!(odd(&[b"2026-11-21T10:00:02Z", b"2026-11-21"], &DataType::Timestamp(TimeUnit::Second, None)), [1]);
}

#[test]
fn what_has_no_text_says_so() {
    let far: ArrayRef = Arc::new(TimestampSecondArray::from(vec![i64::MAX]));
    assert!(matches!(encode(&far), Err(Error::Poison(_))));
    assert!(!has_text(&DataType::Null));
}
