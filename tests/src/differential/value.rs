//! Types and values of generated records, as JSON, as DuckDB's SQL and as Arrow arrays. None of the codecs under test
//! is used.

use std::{fmt::Write as _, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray,
        StructArray, TimestampMicrosecondArray,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DataType, Field, Fields, TimeUnit},
};

/// A type of a field or of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    Text,
    Int,
    Big,
    Double,
    /// Precision and scale.
    Decimal(u8, u8),
    Bool,
    Time,
    Object(Vec<(String, Type)>),
    List(Box<Type>),
}

/// A value; its meaning depends on its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Double(f64),
    /// The number without its decimal point.
    Decimal(i128),
    Text(String),
    /// Microseconds since 1970.
    Time(i64),
    Object(Vec<Value>),
    List(Vec<Value>),
}

impl Type {
    /// The type in the pipeline file's words.
    pub fn declared(&self) -> String {
        match self {
            Self::Text => "string".into(),
            Self::Int => "int".into(),
            Self::Big => "bigint".into(),
            Self::Double => "double".into(),
            Self::Decimal(precision, scale) => format!("\"decimal({precision},{scale})\""),
            Self::Bool => "boolean".into(),
            Self::Time => "timestamp".into(),
            Self::Object(fields) => {
                let fields: Vec<_> = fields.iter().map(|(name, of)| format!("{name}: {}", of.declared())).collect();
                format!("{{ {} }}", fields.join(", "))
            }
            Self::List(item) => format!("[{}]", item.declared()),
        }
    }

    /// The type in DuckDB. Decimals have the maximum number of digits; a timestamp has no zone and means UTC.
    pub fn duck(&self) -> String {
        match self {
            Self::Text => "VARCHAR".into(),
            Self::Int => "INTEGER".into(),
            Self::Big => "BIGINT".into(),
            Self::Double => "DOUBLE".into(),
            Self::Decimal(_, scale) => format!("DECIMAL(38,{scale})"),
            Self::Bool => "BOOLEAN".into(),
            Self::Time => "TIMESTAMP".into(),
            Self::Object(fields) => {
                let fields: Vec<_> = fields.iter().map(|(name, of)| format!("\"{name}\" {}", of.duck())).collect();
                format!("STRUCT({})", fields.join(", "))
            }
            Self::List(item) => format!("{}[]", item.duck()),
        }
    }

    /// The type in DataFusion's SQL, for casts.
    pub fn ours(&self) -> String {
        match self {
            Self::Text => "VARCHAR".into(),
            Self::Int => "INT".into(),
            Self::Big => "BIGINT".into(),
            Self::Double => "DOUBLE".into(),
            Self::Decimal(precision, scale) => format!("DECIMAL({precision},{scale})"),
            Self::Bool => "BOOLEAN".into(),
            Self::Time => "TIMESTAMP".into(),
            Self::Object(_) | Self::List(_) => unreachable!("nothing is cast to a nested type"),
        }
    }

    pub fn arrow(&self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Int => DataType::Int32,
            Self::Big => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale as i8),
            Self::Bool => DataType::Boolean,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Object(fields) => DataType::Struct(arrow_fields(fields)),
            Self::List(item) => DataType::List(Arc::new(Field::new("item", item.arrow(), true))),
        }
    }

    pub fn is_nested(&self) -> bool {
        matches!(self, Self::Object(_) | Self::List(_))
    }
}

fn arrow_fields(fields: &[(String, Type)]) -> Fields {
    fields.iter().map(|(name, of)| Field::new(name, of.arrow(), true)).collect()
}

/// `value` × 10^-`scale` in plain notation.
pub fn decimal_text(value: i128, scale: u8) -> String {
    let digits = value.unsigned_abs().to_string();
    let digits = format!("{digits:0>width$}", width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if value < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// RFC 3339.
pub fn time_text(us: i64) -> String {
    let instant = chrono::DateTime::from_timestamp_micros(us).expect("a generated time is within chrono's years");
    instant.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

fn double_text(value: f64) -> String {
    format!("{value:?}")
}

impl Value {
    /// The absolute value of the largest number in it.
    pub fn magnitude(&self, of: &Type) -> f64 {
        match (self, of) {
            (Self::Integer(number), _) => (*number as f64).abs(),
            (Self::Double(number), _) => number.abs(),
            (Self::Decimal(units), Type::Decimal(_, scale)) => (*units as f64).abs() / 10_f64.powi(i32::from(*scale)),
            (Self::Object(values), Type::Object(fields)) => {
                values.iter().zip(fields).map(|(value, (_, of))| value.magnitude(of)).fold(0.0, f64::max)
            }
            (Self::List(values), Type::List(of)) => values.iter().map(|value| value.magnitude(of)).fold(0.0, f64::max),
            _ => 0.0,
        }
    }

    pub fn json(&self, of: &Type) -> String {
        match (self, of) {
            (Self::Null, _) => "null".into(),
            (Self::Bool(value), _) => value.to_string(),
            (Self::Integer(value), _) => value.to_string(),
            (Self::Double(value), _) => double_text(*value),
            (Self::Decimal(value), Type::Decimal(_, scale)) => decimal_text(*value, *scale),
            (Self::Text(text), _) => serde_json::Value::from(text.as_str()).to_string(),
            (Self::Time(us), _) => format!("\"{}\"", time_text(*us)),
            (Self::Object(values), Type::Object(fields)) => {
                let fields: Vec<_> = fields.iter().map(|(name, of)| (name.as_str(), of)).collect();
                object_json(&fields, values)
            }
            (Self::List(values), Type::List(item)) => {
                let items: Vec<_> = values.iter().map(|value| value.json(item)).collect();
                format!("[{}]", items.join(","))
            }
            other => unreachable!("a value that is not of its type: {other:?}"),
        }
    }

    pub fn duck(&self, of: &Type) -> String {
        match (self, of) {
            (Self::Null, _) => format!("CAST(NULL AS {})", of.duck()),
            (Self::Bool(value), _) => value.to_string(),
            // The smallest number has no literal: without the sign, its digits are out of range.
            (Self::Integer(value), _) => format!("CAST('{value}' AS {})", of.duck()),
            (Self::Double(value), _) => format!("CAST('{}' AS DOUBLE)", double_text(*value)),
            (Self::Decimal(value), Type::Decimal(_, scale)) => {
                format!("CAST('{}' AS {})", decimal_text(*value, *scale), of.duck())
            }
            (Self::Text(text), _) => format!("'{}'", text.replace('\'', "''")),
            (Self::Time(us), _) => format!("make_timestamp(CAST({us} AS BIGINT))"),
            (Self::Object(values), Type::Object(fields)) => {
                let fields = fields.iter().zip(values);
                let fields: Vec<_> =
                    fields.map(|((name, of), value)| format!("'{name}': {}", value.duck(of))).collect();
                format!("{{{}}}", fields.join(", "))
            }
            (Self::List(values), Type::List(item)) => {
                let items: Vec<_> = values.iter().map(|value| value.duck(item)).collect();
                format!("CAST([{}] AS {})", items.join(", "), of.duck())
            }
            other => unreachable!("a value that is not of its type: {other:?}"),
        }
    }
}

/// An object as JSON.
pub fn object_json(fields: &[(&str, &Type)], values: &[Value]) -> String {
    let mut json = String::from("{");
    for (index, ((name, of), value)) in fields.iter().zip(values).enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(json, "{comma}\"{name}\":{}", value.json(of));
    }
    json + "}"
}

/// Values of one type as an array.
pub fn array<'a>(of: &Type, values: &[&'a Value]) -> ArrayRef {
    macro_rules! each {
        ($array:ty, $variant:ident, $convert:expr) => {
            <$array>::from_iter(values.iter().map(|value| match value {
                Value::$variant(value) => Some($convert(value)),
                _ => None,
            }))
        };
    }
    match of {
        Type::Text => Arc::new(each!(StringArray, Text, String::clone)),
        Type::Int => Arc::new(each!(Int32Array, Integer, |value: &i64| *value as i32)),
        Type::Big => Arc::new(each!(Int64Array, Integer, |value: &i64| *value)),
        Type::Double => Arc::new(each!(Float64Array, Double, |value: &f64| *value)),
        Type::Bool => Arc::new(each!(BooleanArray, Bool, |value: &bool| *value)),
        Type::Time => Arc::new(each!(TimestampMicrosecondArray, Time, |value: &i64| *value).with_timezone("UTC")),
        Type::Decimal(precision, scale) => {
            let array = each!(Decimal128Array, Decimal, |value: &i128| *value);
            Arc::new(array.with_precision_and_scale(*precision, *scale as i8).unwrap())
        }
        Type::Object(fields) => {
            let column = |index: usize| -> Vec<&Value> {
                let of = |value: &&'a Value| match value {
                    Value::Object(values) => &values[index],
                    _ => &Value::Null,
                };
                values.iter().map(of).collect()
            };
            let columns = fields.iter().enumerate().map(|(index, (_, of))| array(of, &column(index))).collect();
            Arc::new(StructArray::new(arrow_fields(fields), columns, Some(valid(values))))
        }
        Type::List(item) => {
            let lengths = values.iter().map(|value| if let Value::List(items) = value { items.len() } else { 0 });
            let offsets = OffsetBuffer::from_lengths(lengths);
            let items: Vec<&Value> = values
                .iter()
                .filter_map(|value| if let Value::List(items) = value { Some(items) } else { None })
                .flatten()
                .collect();
            let field = Arc::new(Field::new("item", item.arrow(), true));
            Arc::new(ListArray::new(field, offsets, array(item, &items), Some(valid(values))))
        }
    }
}

fn valid(values: &[&Value]) -> NullBuffer {
    values.iter().map(|value| **value != Value::Null).collect()
}
