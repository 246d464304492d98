//! Arrow columns to the texts that are stored, and back, exactly: see the crate's docs.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, Float32Array, Float64Array, Int64Array, StringArray},
    compute::{CastOptions, cast, cast_with_options, nullif},
    datatypes::{DataType, Field, Float32Type, Float64Type, Int64Type, TimeUnit},
    error::ArrowError,
};
use chrono::{DateTime, NaiveDateTime};
use millstream_core::{Error, Result, type_name};

use crate::nested;

/// A value as it is stored; `None` for null.
pub(crate) type Text = Option<Vec<u8>>;

/// How the values of a type become text.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// By Arrow's own cast: a JSON number, or `true` and `false`.
    Number,
    Float,
    /// By Arrow's own cast: a JSON string.
    Time,
    Timestamp(TimeUnit),
    Text,
    Bytes,
    Json,
}

impl Form {
    fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Number,
            integer if integer.is_integer() => Self::Number,
            DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) if *scale >= 0 => Self::Number,
            DataType::Float32 | DataType::Float64 => Self::Float,
            DataType::Date32 | DataType::Time32(_) | DataType::Time64(_) => Self::Time,
            DataType::Timestamp(unit, _) => Self::Timestamp(*unit),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Bytes
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

/// Can values of this type be stored?
pub(crate) fn has_text(data_type: &DataType) -> bool {
    Form::of(data_type).is_some()
}

/// A column as texts, one per row.
///
/// # Errors
/// `Poison` for a time beyond the year 262,000; `Stop` for a type that can't be stored.
pub(crate) fn encode(column: &ArrayRef) -> Result<Vec<Text>> {
    let data_type = column.data_type();
    let unwritable = |_| Error::poison(format!("a {} has no text, so it can't be stored", type_name(data_type)));
    let as_type = |target: DataType| cast(column, &target).map_err(unwritable);
    let form = Form::of(data_type)
        .ok_or_else(|| Error::stop(format!("internal: redis: a column has the type {}", type_name(data_type))))?;
    Ok(match form {
        Form::Number | Form::Time | Form::Text => {
            each(as_type(DataType::Utf8)?.as_string::<i32>(), |text: &str| text.into())
        }
        Form::Float if *data_type == DataType::Float32 => {
            each(column.as_primitive::<Float32Type>(), |value| float_text(value.into(), format!("{value:?}")))
        }
        Form::Float => each(column.as_primitive::<Float64Type>(), |value| float_text(value, format!("{value:?}"))),
        Form::Bytes => each(as_type(DataType::Binary)?.as_binary::<i32>(), |bytes: &[u8]| bytes.into()),
        Form::Timestamp(unit) => {
            let text = |value| {
                timestamp_text(value, &unit).map(|text| Some(text.into_bytes())).ok_or_else(|| {
                    Error::poison("a timestamp lies beyond the years -262,000 to 262,000 and has no text")
                })
            };
            let values = as_type(DataType::Int64)?;
            let values = values.as_primitive::<Int64Type>().iter();
            values.map(|value| value.map_or(Ok(None), text)).collect::<Result<_>>()?
        }
        Form::Json => nested::encode(column).map_err(unwritable)?,
    })
}

fn each<T>(values: impl IntoIterator<Item = Option<T>>, to_text: impl Fn(T) -> Vec<u8>) -> Vec<Text> {
    values.into_iter().map(|value| value.map(&to_text)).collect()
}

/// What [`encode`] made of a column of this type, as that column. A text that [`encode`] doesn't write is null there, and its
/// row is in the second part.
///
/// # Errors
/// `Stop` for a type that can't be stored.
pub(crate) fn decode(texts: &[Text], data_type: &DataType) -> Result<(ArrayRef, Vec<usize>)> {
    let unreadable =
        |error| Error::stop(format!("internal: redis: texts are no {}", type_name(data_type))).caused_by(error);
    let column = parse(texts, data_type).map_err(unreadable)?;
    // What reads back as another text isn't what a function has written.
    let again = encode(&column)?;
    let is_odd: Vec<bool> = texts.iter().zip(&again).map(|(text, again)| text != again).collect();
    let odd = is_odd.iter().enumerate().filter_map(|(row, is_odd)| is_odd.then_some(row)).collect();
    Ok((nullif(&column, &is_odd.into()).map_err(unreadable)?, odd))
}

/// Null where a text can't be read.
fn parse(texts: &[Text], data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    let form = Form::of(data_type).ok_or_else(|| ArrowError::CastError("a type without texts".into()))?;
    let strings = || texts.iter().map(|text| std::str::from_utf8(text.as_deref()?).ok());
    let column: ArrayRef = match form {
        Form::Number | Form::Time | Form::Text => Arc::new(StringArray::from_iter(strings())),
        Form::Float if *data_type == DataType::Float32 => {
            return Ok(Arc::new(Float32Array::from_iter(strings().map(|text| text?.parse().ok()))));
        }
        Form::Float => Arc::new(Float64Array::from_iter(strings().map(|text| text?.parse().ok()))),
        Form::Bytes => Arc::new(BinaryArray::from_iter(texts.iter().map(Option::as_deref))),
        Form::Timestamp(unit) => {
            Arc::new(Int64Array::from_iter(strings().map(|text| timestamp_from_text(text?, &unit))))
        }
        Form::Json => return nested::decode(&strings().collect::<Vec<_>>(), data_type),
    };
    cast_with_options(&column, data_type, &CastOptions { safe: true, ..CastOptions::default() })
}

/// A value of [`encode`] as JSON. Bytes are hexadecimal, and a number that JSON doesn't have is a string.
pub(crate) fn to_json(text: &[u8], data_type: &DataType) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let utf8 = || String::from_utf8_lossy(text);
    match Form::of(data_type) {
        Some(Form::Number | Form::Json) => utf8().into_owned(),
        Some(Form::Float) if text.iter().any(|letter| matches!(letter, b'N' | b'I')) => quoted(&utf8()),
        Some(Form::Float) => utf8().into_owned(),
        Some(Form::Bytes) => quoted(&text.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        _ => quoted(&utf8()),
    }
}

/// The shortest text that reads back as the same number, which JSON takes too; or PostgreSQL's words for what is none.
fn float_text(value: f64, shortest: String) -> Vec<u8> {
    match value {
        value if value.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        _ => shortest.into(),
    }
}

/// The text of an instant, RFC 3339 in UTC; `None` beyond chrono's years.
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

#[cfg(test)]
mod tests;
