use std::fmt;

use arrow::datatypes::{DataType, Field};

use crate::epoch_unit;

/// Why a record is bad. The text names fields of the schema and byte positions, and never contains data of the record.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The value is not JSON from byte `at` on.
    NotJson { what: &'static str, at: usize },
    /// A limit of this crate is exceeded.
    Limit(String),
    /// A value with another JSON type than the field's. It becomes `Field` once the field is known.
    Found(&'static str),
    /// A value of the right JSON type that the field can't hold. It becomes `Field` once the field is known.
    Value(String),
    /// The field, and what is wrong.
    Field(Box<(String, String)>),
}

impl Problem {
    /// Adds a field to the path, from the inside out. `label` is the field's name, `[]` for the items of a list, or
    /// empty for the record itself.
    #[cold]
    pub(crate) fn at(self, label: &str, field: &Field) -> Self {
        let what = match self {
            Self::Found(found) => format!("expected {}, found {found}", describe(field)),
            Self::Value(what) => what,
            Self::Field(inner) => {
                let (path, what) = *inner;
                let dot = if label.is_empty() || path.starts_with('[') { "" } else { "." };
                return Self::Field(Box::new((format!("{label}{dot}{path}"), what)));
            }
            not_of_a_field => return not_of_a_field,
        };
        Self::Field(Box::new((label.to_owned(), what)))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson { what, at } => write!(f, "not JSON: {what} at byte {at}"),
            Self::Limit(what) | Self::Value(what) => f.write_str(what),
            Self::Found(found) => write!(f, "found {found}"),
            Self::Field(field) if field.0.is_empty() => f.write_str(&field.1),
            Self::Field(field) => write!(f, "field `{}`: {}", field.0, field.1),
        }
    }
}

/// A field's type in the words of the pipeline file.
pub(crate) fn describe(field: &Field) -> String {
    let name = match field.data_type() {
        DataType::Boolean => "true or false",
        DataType::Int16 => "smallint",
        DataType::Int32 => "int",
        DataType::Int64 => "bigint",
        DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Utf8 => "string",
        DataType::Binary => "base64 string",
        DataType::Date32 => "date (YYYY-MM-DD)",
        DataType::Decimal128(precision, scale) => return format!("decimal({precision},{scale})"),
        DataType::Timestamp(..) => match epoch_unit(field) {
            Some(unit) => return format!("timestamp (epoch {unit})"),
            None => "timestamp (RFC 3339 string)",
        },
        DataType::List(_) => "list",
        DataType::Struct(_) => "object",
        other => return other.to_string(),
    };
    name.to_owned()
}
