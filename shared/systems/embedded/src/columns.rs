//! Arrow columns to SQLite values and back, exactly.
//!
//! | Arrow | SQLite |
//! | --- | --- |
//! | booleans, integers | INTEGER; an unsigned one above `i64::MAX` as decimal TEXT |
//! | floats | REAL; NaN, which SQLite would store as NULL, as TEXT `NaN`; `-0.0` becomes `0.0` |
//! | decimals | TEXT in plain notation with the whole scale: `12.50` |
//! | timestamps | TEXT, RFC 3339, UTC: `2026-11-21T10:00:02Z`, with 6 digits behind the point if they are not zero (9 if even that is not exact), so equal instants have equal text |
//! | dates, times | TEXT: `2026-11-21`, `10:00:02` |
//! | strings, binaries | TEXT, BLOB |
//! | lists, structs, maps | TEXT: JSON as arrow-json writes it, NaN in them as null |

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array,
        new_empty_array,
    },
    compute::{CastOptions, cast, cast_with_options},
    datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimeUnit, UInt64Type},
    error::ArrowError,
};
use arrow_json::{
    ReaderBuilder, WriterBuilder,
    writer::{LineDelimited, Writer},
};
use chrono::{DateTime, NaiveDateTime};
use millstream_core::{Error, Result};
use rusqlite::types::Value;

const NAN: &str = "NaN";

/// How the values of a type are stored.
enum Storage {
    Integer,
    Unsigned,
    Real,
    Text,
    /// Text by way of Arrow's own casts.
    CastText,
    Timestamp(TimeUnit),
    Blob,
    Json,
}

impl Storage {
    fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Integer,
            DataType::UInt64 => Self::Unsigned,
            integer if integer.is_integer() => Self::Integer,
            DataType::Float32 | DataType::Float64 => Self::Real,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) if *scale >= 0 => Self::CastText,
            DataType::Date32 | DataType::Time32(_) | DataType::Time64(_) => Self::CastText,
            DataType::Timestamp(unit, _) => Self::Timestamp(*unit),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Blob
            }
            DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => Self::json([item])?,
            DataType::Struct(fields) => Self::json(fields)?,
            _ => return None,
        })
    }

    fn json<'a>(fields: impl IntoIterator<Item = &'a Arc<Field>>) -> Option<Self> {
        fields.into_iter().all(|field| Self::of(field.data_type()).is_some()).then_some(Self::Json)
    }
}

/// The column type to declare in SQLite; `None` for a type that can't be stored.
///
/// It decides the column's affinity (<https://www.sqlite.org/datatype3.html>). An unsigned column has none, because the
/// affinity of INTEGER would turn the large ones from text into floats.
pub(crate) fn declared_type(data_type: &DataType) -> Option<&'static str> {
    Some(match Storage::of(data_type)? {
        Storage::Integer => "INTEGER",
        Storage::Unsigned => "",
        Storage::Real => "REAL",
        Storage::Text | Storage::CastText | Storage::Timestamp(_) | Storage::Json => "TEXT",
        Storage::Blob => "BLOB",
    })
}

/// A name of [`type_name`] as the pipeline file writes the type.
pub(crate) fn type_in_words(name: &str) -> String {
    let ours = match name {
        "int8" => "tinyint",
        "int16" => "smallint",
        "int32" => "int",
        "int64" => "bigint",
        "uint64" => "bigint unsigned",
        "float32" => "float",
        "float64" => "double",
        other => other,
    };
    ours.to_owned()
}

/// A type's name for the comparison with the type that a table was made with: types that are stored and
/// read alike have one name.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Utf8 => "string".into(),
        DataType::LargeBinary | DataType::BinaryView | DataType::Binary => "binary".into(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("decimal({precision},{scale})")
        }
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Date32 => "date".into(),
        DataType::List(item) | DataType::LargeList(item) => format!("list<{}>", type_name(item.data_type())),
        DataType::Map(entries, _) => format!("map<{}>", type_name(entries.data_type())),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| format!("{}: {}", field.name(), type_name(field.data_type())));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string().to_lowercase(),
    }
}

/// The type of numbers that [`type_name`] calls so; none for any other.
pub(crate) fn number_type(name: &str) -> Option<DataType> {
    const PLAIN: [DataType; 10] = [
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float32,
        DataType::Float64,
    ];
    let decimal = || {
        let (precision, scale) = name.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
        Some(DataType::Decimal128(precision.parse().ok()?, scale.parse().ok()?))
    };
    PLAIN.into_iter().find(|plain| type_name(plain) == name).or_else(decimal)
}

/// What ends the text of a value when its type becomes the wider one of two: decimals are stored with the whole scale. All
/// other numbers are stored alike.
pub(crate) fn further_digits(from: &DataType, to: &DataType) -> Option<String> {
    match (from, to) {
        (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) if to > from => {
            let point = if *from == 0 { "." } else { "" };
            Some(format!("{point}{}", "0".repeat((to - from).unsigned_abs().into())))
        }
        _ => None,
    }
}

/// A column as SQLite values, one per row.
///
/// # Errors
/// `Poison` for a time beyond the year 262,000; `Stop` for a type that can't be stored.
pub(crate) fn encode(column: &ArrayRef) -> Result<Vec<Value>> {
    let data_type = column.data_type();
    let unwritable = |_| Error::poison(format!("a {} has no text, so it can't be stored", type_name(data_type)));
    let as_type = |target: DataType| cast(column, &target).map_err(unwritable);
    let storage = Storage::of(data_type).ok_or_else(|| not_storable(data_type))?;
    Ok(match storage {
        Storage::Integer => each(as_type(DataType::Int64)?.as_primitive::<Int64Type>(), Value::Integer),
        Storage::Unsigned => each(column.as_primitive::<UInt64Type>(), |value| {
            i64::try_from(value).map_or_else(|_| Value::Text(value.to_string()), Value::Integer)
        }),
        Storage::Real => each(as_type(DataType::Float64)?.as_primitive::<Float64Type>(), |value: f64| {
            if value.is_nan() { Value::Text(NAN.into()) } else { Value::Real(value + 0.0) }
        }),
        Storage::Text | Storage::CastText => {
            each(as_type(DataType::Utf8)?.as_string::<i32>(), |value: &str| Value::Text(value.into()))
        }
        Storage::Blob => each(as_type(DataType::Binary)?.as_binary::<i32>(), |value: &[u8]| Value::Blob(value.into())),
        Storage::Timestamp(unit) => {
            let text = |value: i64| {
                timestamp_text(value, &unit).map(Value::Text).ok_or_else(|| {
                    Error::poison("a timestamp lies beyond the years -262,000 to 262,000 and has no text")
                })
            };
            let values = as_type(DataType::Int64)?;
            let values = values.as_primitive::<Int64Type>().iter();
            values.map(|value| value.map_or(Ok(Value::Null), text)).collect::<Result<_>>()?
        }
        Storage::Json => to_json(column).map_err(unwritable)?,
    })
}

fn each<T>(values: impl IntoIterator<Item = Option<T>>, to_value: impl Fn(T) -> Value) -> Vec<Value> {
    values.into_iter().map(|value| value.map_or(Value::Null, &to_value)).collect()
}

/// What [`encode`] made of a column of this type, as that column.
///
/// # Errors
/// `Stop` when a value is not of the type: another program has written to the file.
pub(crate) fn decode(values: Vec<Value>, data_type: &DataType) -> Result<ArrayRef> {
    if values.is_empty() {
        return Ok(new_empty_array(data_type));
    }
    let storage = Storage::of(data_type).ok_or_else(|| not_storable(data_type))?;
    let column: ArrayRef = match storage {
        Storage::Integer => Arc::new(Int64Array::from_iter(all(values, data_type, |value| match value {
            Value::Integer(value) => Some(value),
            _ => None,
        })?)),
        Storage::Unsigned => Arc::new(UInt64Array::from_iter(all(values, data_type, |value| match value {
            Value::Integer(value) => u64::try_from(value).ok(),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        })?)),
        Storage::Real => Arc::new(Float64Array::from_iter(all(values, data_type, |value| match value {
            Value::Real(value) => Some(value),
            Value::Text(text) if text == NAN => Some(f64::NAN),
            _ => None,
        })?)),
        Storage::Text | Storage::CastText => Arc::new(StringArray::from_iter(all(values, data_type, text)?)),
        Storage::Timestamp(unit) => {
            let instant = |value| timestamp_from_text(&text(value)?, &unit);
            Arc::new(Int64Array::from_iter(all(values, data_type, instant)?))
        }
        Storage::Blob => Arc::new(BinaryArray::from_iter(all(values, data_type, |value| match value {
            Value::Blob(bytes) => Some(bytes),
            _ => None,
        })?)),
        Storage::Json => {
            return from_json(all(values, data_type, text)?, data_type).map_err(|error| unreadable(data_type, error));
        }
    };
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&column, data_type, &strict).map_err(|error| unreadable(data_type, error))
}

fn all<T>(values: Vec<Value>, data_type: &DataType, read: impl Fn(Value) -> Option<T>) -> Result<Vec<Option<T>>> {
    let one = |value| match value {
        Value::Null => Ok(None),
        value => read(value).map(Some).ok_or_else(|| foreign(data_type)),
    };
    values.into_iter().map(one).collect()
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// The text of an instant; `None` beyond chrono's years.
pub(crate) fn timestamp_text(value: i64, unit: &TimeUnit) -> Option<String> {
    let per_second = per_second(unit);
    let nanos = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
    let instant = DateTime::from_timestamp(value.div_euclid(per_second), nanos as u32)?;
    let format = match nanos {
        0 => "%Y-%m-%dT%H:%M:%SZ",
        _ if nanos % 1_000 == 0 => "%Y-%m-%dT%H:%M:%S%.6fZ",
        _ => "%Y-%m-%dT%H:%M:%S%.9fZ",
    };
    Some(instant.format(format).to_string())
}

fn timestamp_from_text(text: &str, unit: &TimeUnit) -> Option<i64> {
    let instant = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.fZ").ok()?.and_utc();
    let per_second = per_second(unit);
    let below = i64::from(instant.timestamp_subsec_nanos()) / (1_000_000_000 / per_second);
    i64::try_from(i128::from(instant.timestamp()) * i128::from(per_second) + i128::from(below)).ok()
}

fn per_second(unit: &TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Around one value on a line of its own, for arrow-json knows only records.
const BEFORE: &str = r#"{"v":"#;
const AFTER: &str = "}";

fn to_json(column: &ArrayRef) -> Result<Vec<Value>, ArrowError> {
    let rows = RecordBatch::try_from_iter_with_nullable([("v", column.clone(), true)])?;
    let mut writer: Writer<_, LineDelimited> = WriterBuilder::new().with_explicit_nulls(true).build(Vec::new());
    writer.write(&rows)?;
    writer.finish()?;
    let lines = String::from_utf8(writer.into_inner()).map_err(|error| ArrowError::JsonError(error.to_string()))?;
    // JSON has no line break inside a string: one line is one row.
    let value = |(row, line): (usize, &str)| match line.strip_prefix(BEFORE).and_then(|line| line.strip_suffix(AFTER)) {
        Some(json) if column.is_valid(row) => Value::Text(json.to_owned()),
        _ => Value::Null,
    };
    Ok(lines.lines().enumerate().map(value).collect())
}

fn from_json(values: Vec<Option<String>>, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    let schema = Arc::new(Schema::new(vec![Field::new("v", data_type.clone(), true)]));
    let mut decoder = ReaderBuilder::new(schema).with_batch_size(values.len()).build_decoder()?;
    for value in &values {
        decoder.decode(format!("{BEFORE}{}{AFTER}\n", value.as_deref().unwrap_or("null")).as_bytes())?;
    }
    let rows = decoder.flush()?.filter(|rows| rows.num_rows() == values.len());
    rows.map(|rows| rows.column(0).clone()).ok_or_else(|| ArrowError::JsonError("a value is cut short".into()))
}

fn foreign(data_type: &DataType) -> Error {
    Error::stop(format!(
        "a value is not of type {}: another program has written to this table; remove the file, or the row",
        type_name(data_type)
    ))
}

fn unreadable(data_type: &DataType, error: ArrowError) -> Error {
    foreign(data_type).caused_by(error)
}

fn not_storable(data_type: &DataType) -> Error {
    Error::stop(format!("the embedded store has no column type for {}: cast it in the SQL", type_name(data_type)))
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{
            BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array, Int8Array, ListArray,
            StringViewArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray, TimestampNanosecondArray,
            TimestampSecondArray,
        },
        datatypes::{Decimal256Type, Int32Type, i256},
    };

    use super::*;

    fn arrays() -> Vec<ArrayRef> {
        let decimal = |values: Vec<Option<i128>>, precision, scale| {
            Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap()
        };
        let big = Decimal256Type::default_type(i256::MAX.wrapping_div(i256::from(10)));
        let amounts: ArrayRef = Arc::new(decimal(vec![Some(-5), Some(1_000_000_000_000_000_001), None], 38, 2));
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a\n\"b\""), None, Some("")]));
        let fields = vec![
            (Arc::new(Field::new("amount", amounts.data_type().clone(), true)), amounts),
            (Arc::new(Field::new("name", DataType::Utf8, true)), names),
        ];
        vec![
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
            Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(i8::MAX)])),
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)])),
            Arc::new(UInt64Array::from(vec![Some(0), None, Some(u64::MAX), Some(i64::MAX as u64 + 1)])),
            Arc::new(Float32Array::from(vec![Some(0.1), None, Some(f32::MAX), Some(f32::NEG_INFINITY)])),
            Arc::new(Float64Array::from(vec![
                Some(0.1),
                None,
                Some(f64::MIN_POSITIVE),
                Some(f64::INFINITY),
                Some(3.0),
            ])),
            Arc::new(StringArray::from(vec![Some("1.0"), None, Some(""), Some("a\0b"), Some("NaN")])),
            Arc::new(StringViewArray::from(vec![Some("longer than twelve bytes"), None])),
            Arc::new(BinaryArray::from(vec![Some(&b"\0\xff"[..]), None, Some(b"")])),
            Arc::new(FixedSizeBinaryArray::try_from_iter([b"ab", b"\0\0"].iter()).unwrap()),
            Arc::new(decimal(vec![Some(1250), None, Some(-5), Some(0), Some(10_i128.pow(38) - 1)], 38, 2)),
            Arc::new(decimal(vec![Some(7), None], 10, 0)),
            big,
            Arc::new(Date32Array::from(vec![Some(0), None, Some(20_778), Some(-800_000)])),
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

    trait OneValue {
        fn default_type(value: i256) -> ArrayRef;
    }
    impl OneValue for Decimal256Type {
        fn default_type(value: i256) -> ArrayRef {
            let column = arrow::array::Decimal256Array::from(vec![Some(value), None]);
            Arc::new(column.with_precision_and_scale(76, 4).unwrap())
        }
    }

    /// By way of a real column of the declared type: affinity must not change a value.
    fn through_sqlite(values: Vec<Value>, data_type: &DataType) -> Vec<Value> {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch(&format!("CREATE TABLE t (v {})", declared_type(data_type).unwrap())).unwrap();
        for value in values {
            connection.execute("INSERT INTO t VALUES (?1)", [value]).unwrap();
        }
        let mut select = connection.prepare("SELECT v FROM t ORDER BY rowid").unwrap();
        let rows = select.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn every_type_comes_back_as_it_was() {
        for column in arrays() {
            let values = through_sqlite(encode(&column).unwrap(), column.data_type());
            assert_eq!(&decode(values, column.data_type()).unwrap(), &column, "{}", column.data_type());
            assert_eq!(decode(vec![], column.data_type()).unwrap().len(), 0);
        }
    }

    #[test]
    fn texts_are_the_documented_ones() {
        let text = |column: ArrayRef| match encode(&column).unwrap().swap_remove(0) {
            Value::Text(text) => text,
            other => panic!("{other:?}"),
        };
        let at = |us: i64| text(Arc::new(TimestampMicrosecondArray::from(vec![us])));
        assert_eq!(at(1_795_255_202_000_000), "2026-11-21T10:00:02Z");
        assert_eq!(at(1_795_255_202_500_000), "2026-11-21T10:00:02.500000Z");
        let amount = Decimal128Array::from(vec![1250]).with_precision_and_scale(18, 2).unwrap();
        assert_eq!(text(Arc::new(amount)), "12.50");
        let nan: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN]));
        let stored = through_sqlite(encode(&nan).unwrap(), nan.data_type());
        assert_eq!(stored, [Value::Text(NAN.into())]);
        assert!(decode(stored, nan.data_type()).unwrap().as_primitive::<Float64Type>().value(0).is_nan());
    }

    #[test]
    fn what_cannot_be_stored_says_so() {
        let far: ArrayRef = Arc::new(TimestampSecondArray::from(vec![i64::MAX]));
        assert!(matches!(encode(&far), Err(Error::Poison(_))));
        assert_eq!(declared_type(&DataType::Null), None);
        assert!(matches!(decode(vec![Value::Text("x".into())], &DataType::Int64), Err(Error::Stop(_))));
    }
}
