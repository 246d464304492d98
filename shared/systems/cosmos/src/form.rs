//! Arrow columns to JSON values and back, exactly. The service keeps every number as a double: what a double can't hold is a text.
//!
//! | Arrow | JSON |
//! | --- | --- |
//! | booleans | `true`, `false` |
//! | integers | a number; beyond ±(2^53 − 1) a text of the digits |
//! | decimals | a text with all digits of the column's scale: `"12.50"` |
//! | floats | a number; `"NaN"`, `"Infinity"`, `"-Infinity"` and `"-0.0"` |
//! | strings | a text |
//! | binaries | a text: base64 |
//! | dates, times | a text: `"2024-05-01"`, `"12:30:00"` with as many digits as the time has |
//! | timestamps | a text: RFC 3339 in UTC, with all digits of the unit (`"2024-05-01T12:30:00.000001Z"`), so that texts are in the order of the times |
//! | lists, structs, maps | a text: JSON as arrow-json writes it, NaN in them as null |

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, UInt64Array,
        make_array, new_empty_array,
    },
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, Float64Type, Int64Type, TimeUnit, UInt64Type},
    error::ArrowError,
};
use chrono::{DateTime, NaiveDateTime};
use millstream_core::{Error, Result, type_name};
use openssl::base64;
use serde_json::{Number, Value};

use crate::json;

/// The largest integer up to which doubles leave none out, but one.
const MAX_EXACT: u64 = (1 << 53) - 1;

/// How the values of a column are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Boolean,
    Integer,
    Decimal,
    Float,
    /// A date or a time.
    Calendar,
    Timestamp(TimeUnit),
    Text,
    Bytes,
    Json,
}

impl Form {
    /// How a column is stored; `None` if its type can't be.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Boolean,
            integer if integer.is_integer() => Self::Integer,
            DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) if *scale >= 0 => Self::Decimal,
            DataType::Float32 | DataType::Float64 => Self::Float,
            DataType::Date32 | DataType::Time32(_) | DataType::Time64(_) => Self::Calendar,
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

    /// Can it be the key of a row? Floats that are equal may be written in two ways, and so may JSON.
    pub(crate) fn is_key(self) -> bool {
        !matches!(self, Self::Float | Self::Json)
    }

    /// A column as JSON values, one per row.
    ///
    /// # Errors
    /// `Poison` for a value that can't be stored.
    pub(crate) fn encode(self, name: &str, values: &ArrayRef) -> Result<Vec<Value>> {
        // Arrow's message may quote the value: it is left out.
        let refused = |_: ArrowError| Error::poison(format!("column {name}: a value is out of range"));
        let to = |target: DataType| strict_cast(values, &target).map_err(refused);
        Ok(match self {
            Self::Boolean => each(values.as_boolean(), Value::Bool),
            Self::Integer if *values.data_type() == DataType::UInt64 => {
                each(values.as_primitive::<UInt64Type>(), |value: u64| {
                    if value <= MAX_EXACT { Value::from(value) } else { Value::from(value.to_string()) }
                })
            }
            Self::Integer => each(to(DataType::Int64)?.as_primitive::<Int64Type>(), |value: i64| {
                if value.unsigned_abs() <= MAX_EXACT { Value::from(value) } else { Value::from(value.to_string()) }
            }),
            Self::Float => each(to(DataType::Float64)?.as_primitive::<Float64Type>(), float),
            Self::Decimal | Self::Calendar | Self::Text => each(to(DataType::Utf8)?.as_string::<i32>(), Value::from),
            Self::Bytes => {
                each(to(DataType::Binary)?.as_binary::<i32>(), |bytes: &[u8]| Value::from(base64::encode_block(bytes)))
            }
            Self::Timestamp(unit) => {
                let text = |value: Option<i64>| match value {
                    None => Ok(Value::Null),
                    Some(value) => timestamp_text(value, unit).map(Value::from).ok_or_else(|| {
                        Error::poison(format!("column {name}: a time beyond the years -262,000 to 262,000 has no text"))
                    }),
                };
                let numbers = retyped(values, DataType::Int64)?;
                numbers.as_primitive::<Int64Type>().iter().map(text).collect::<Result<_>>()?
            }
            Self::Json => json::encode(values).map_err(refused)?.into_iter().map(Value::from).collect(),
        })
    }

    /// What [`Form::encode`] made of a column of `data_type`, as that column.
    ///
    /// # Errors
    /// `Stop` when a value is not of the type: another program has written it.
    pub(crate) fn decode(self, name: &str, values: Vec<Value>, data_type: &DataType) -> Result<ArrayRef> {
        if values.is_empty() {
            return Ok(new_empty_array(data_type));
        }
        let foreign = || {
            Error::stop(format!(
                "column {name}: a value is no {}: another program has written it",
                type_name(data_type)
            ))
        };
        let column: ArrayRef = match self {
            Self::Boolean => Arc::new(BooleanArray::from(all(values, |value| value.as_bool()).ok_or_else(foreign)?)),
            Self::Integer if *data_type == DataType::UInt64 => {
                let read = |value| integer(&value).and_then(|value| u64::try_from(value).ok());
                Arc::new(UInt64Array::from(all(values, read).ok_or_else(foreign)?))
            }
            Self::Integer => {
                let read = |value| integer(&value).and_then(|value| i64::try_from(value).ok());
                Arc::new(Int64Array::from(all(values, read).ok_or_else(foreign)?))
            }
            Self::Float => Arc::new(Float64Array::from(all(values, |value| read_float(&value)).ok_or_else(foreign)?)),
            Self::Decimal => {
                let scale = match data_type {
                    DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => *scale,
                    _ => return Err(foreign()),
                };
                Arc::new(StringArray::from(all(values, |value| decimal_text(value, scale)).ok_or_else(foreign)?))
            }
            Self::Calendar | Self::Text => Arc::new(StringArray::from(all(values, text).ok_or_else(foreign)?)),
            Self::Bytes => {
                let read = |value| base64::decode_block(&text(value)?).ok();
                Arc::new(BinaryArray::from_iter(all(values, read).ok_or_else(foreign)?))
            }
            Self::Timestamp(unit) => {
                let read = |value| parse_timestamp(&text(value)?, unit);
                let numbers: ArrayRef = Arc::new(Int64Array::from(all(values, read).ok_or_else(foreign)?));
                return retyped(&numbers, data_type.clone());
            }
            Self::Json => {
                let texts = all(values, text).ok_or_else(foreign)?;
                return json::decode(&texts, data_type).map_err(|_| foreign());
            }
        };
        strict_cast(&column, data_type).map_err(|_| foreign())
    }
}

fn each<T>(values: impl IntoIterator<Item = Option<T>>, to_json: impl Fn(T) -> Value) -> Vec<Value> {
    values.into_iter().map(|value| value.map_or(Value::Null, &to_json)).collect()
}

/// Nulls stay; `None` if a value can't be read.
fn all<T>(values: Vec<Value>, read: impl Fn(Value) -> Option<T>) -> Option<Vec<Option<T>>> {
    values.into_iter().map(|value| if value.is_null() { Some(None) } else { read(value).map(Some) }).collect()
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// A number, or the text of one. A number that the service gives back as `1.0` is 1.
fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => Some(value.into()),
            (_, Some(value), _) => Some(value.into()),
            (.., Some(value)) if value.fract() == 0.0 && value.abs() <= MAX_EXACT as f64 => Some(value as i128),
            _ => None,
        },
        _ => None,
    }
}

/// `-0` is a text: a service that writes numbers anew may lose its sign.
fn float(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) if value != 0.0 || value.is_sign_positive() => Value::Number(number),
        _ if value.is_nan() => Value::from("NaN"),
        _ if value == 0.0 => Value::from("-0.0"),
        _ if value > 0.0 => Value::from("Infinity"),
        _ => Value::from("-Infinity"),
    }
}

fn read_float(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            "-0.0" => Some(-0.0),
            _ => None,
        },
        _ => None,
    }
}

/// The digits of a decimal; none if it has more behind the point than the column, which Arrow would round.
fn decimal_text(value: Value, scale: i8) -> Option<String> {
    let text = match value {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let is_plain = whole.trim_start_matches('-').bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit());
    let fits = part.trim_end_matches('0').len() <= usize::from(scale.unsigned_abs());
    (is_plain && fits && !whole.trim_start_matches('-').is_empty()).then_some(text)
}

/// `None` beyond chrono's years.
fn timestamp_text(value: i64, unit: TimeUnit) -> Option<String> {
    let per_second = per_second(unit);
    let nanoseconds = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
    let instant = DateTime::from_timestamp(value.div_euclid(per_second), u32::try_from(nanoseconds).ok()?)?;
    let format = match unit {
        TimeUnit::Second => "%Y-%m-%dT%H:%M:%SZ",
        TimeUnit::Millisecond => "%Y-%m-%dT%H:%M:%S%.3fZ",
        TimeUnit::Microsecond => "%Y-%m-%dT%H:%M:%S%.6fZ",
        TimeUnit::Nanosecond => "%Y-%m-%dT%H:%M:%S%.9fZ",
    };
    Some(instant.format(format).to_string())
}

fn parse_timestamp(text: &str, unit: TimeUnit) -> Option<i64> {
    let instant = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.fZ").ok()?.and_utc();
    let (per_second, nanoseconds) = (per_second(unit), i64::from(instant.timestamp_subsec_nanos()));
    let step = 1_000_000_000 / per_second;
    if nanoseconds % step != 0 {
        return None;
    }
    i64::try_from(i128::from(instant.timestamp()) * i128::from(per_second) + i128::from(nanoseconds / step)).ok()
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// The same 64 bits under another type: a timestamp's zone is only a label.
fn retyped(values: &ArrayRef, data_type: DataType) -> Result<ArrayRef> {
    let data = values.to_data().into_builder().data_type(data_type).build();
    Ok(make_array(data.map_err(|error| Error::stop("internal: a time is no 64-bit number").caused_by(error))?))
}

fn strict_cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(values, to, &CastOptions { safe: false, ..CastOptions::default() })
}

#[cfg(test)]
mod tests;
