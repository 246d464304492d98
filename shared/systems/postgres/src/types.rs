//! Which PostgreSQL type holds which Arrow type.

use std::fmt;

use arrow::datatypes::{DataType, TimeUnit};
use tokio_postgres::types::Type;

/// How a column is stored. Several Arrow types share one; [`Kind::carrier`] is the one that is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Boolean,
    SmallInt,
    Integer,
    BigInt,
    Real,
    Double,
    Numeric { precision: u8, scale: u8 },
    Timestamp,
    Date,
    Bytes,
    Json,
}

impl Kind {
    /// The kind that holds an Arrow type; none for a type that no column can have.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Boolean => Self::Boolean,
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => Self::SmallInt,
            DataType::Int32 | DataType::UInt16 => Self::Integer,
            DataType::Int64 | DataType::UInt32 => Self::BigInt,
            DataType::UInt64 => Self::Numeric { precision: 20, scale: 0 },
            DataType::Float32 => Self::Real,
            DataType::Float64 => Self::Double,
            DataType::Decimal128(precision, scale) => {
                Self::Numeric { precision: *precision, scale: u8::try_from(*scale).ok()? }
            }
            DataType::Timestamp(..) => Self::Timestamp,
            DataType::Date32 => Self::Date,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Bytes
            }
            DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(..)
            | DataType::Struct(_)
            | DataType::Map(..) => Self::Json,
            _ => return None,
        })
    }

    /// The kind of numbers that `format_type` spells so; none for any other.
    pub(crate) fn parse(sql_type: &str) -> Option<Self> {
        let plain = [Self::SmallInt, Self::Integer, Self::BigInt, Self::Real, Self::Double];
        let digits = || {
            let (precision, scale) = sql_type.strip_prefix("numeric(")?.strip_suffix(')')?.split_once(',')?;
            Some(Self::Numeric { precision: precision.parse().ok()?, scale: scale.parse().ok()? })
        };
        plain.into_iter().find(|kind| kind.base() == sql_type).or_else(digits)
    }

    /// The Arrow type that values of this kind travel in; JSON as its text.
    pub(crate) fn carrier(self) -> DataType {
        match self {
            Self::Text | Self::Json => DataType::Utf8,
            Self::Boolean => DataType::Boolean,
            Self::SmallInt => DataType::Int16,
            Self::Integer => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Real => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Numeric { precision, scale } => DataType::Decimal128(precision, scale as i8),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Date => DataType::Date32,
            Self::Bytes => DataType::Binary,
        }
    }

    /// The type's name without precision and scale.
    pub(crate) fn base(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Boolean => "boolean",
            Self::SmallInt => "smallint",
            Self::Integer => "integer",
            Self::BigInt => "bigint",
            Self::Real => "real",
            Self::Double => "double precision",
            Self::Numeric { .. } => "numeric",
            Self::Timestamp => "timestamp with time zone",
            Self::Date => "date",
            Self::Bytes => "bytea",
            Self::Json => "jsonb",
        }
    }

    /// The type of an array of these, as a parameter.
    pub(crate) fn array(self) -> Type {
        match self {
            Self::Text => Type::TEXT_ARRAY,
            Self::Boolean => Type::BOOL_ARRAY,
            Self::SmallInt => Type::INT2_ARRAY,
            Self::Integer => Type::INT4_ARRAY,
            Self::BigInt => Type::INT8_ARRAY,
            Self::Real => Type::FLOAT4_ARRAY,
            Self::Double => Type::FLOAT8_ARRAY,
            Self::Numeric { .. } => Type::NUMERIC_ARRAY,
            Self::Timestamp => Type::TIMESTAMPTZ_ARRAY,
            Self::Date => Type::DATE_ARRAY,
            Self::Bytes => Type::BYTEA_ARRAY,
            Self::Json => Type::JSONB_ARRAY,
        }
    }
}

/// The type as `format_type` spells it, which `CREATE TABLE` reads back.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numeric { precision, scale } => write!(f, "numeric({precision},{scale})"),
            other => f.write_str(other.base()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_spelt() {
        for kind in [Kind::SmallInt, Kind::BigInt, Kind::Double, Kind::Numeric { precision: 9, scale: 2 }] {
            assert_eq!(Kind::parse(&kind.to_string()), Some(kind));
        }
        for other in ["text", "numeric", "numeric(1000,2)", "numeric(5,-2)"] {
            assert_eq!(Kind::parse(other), None, "{other}");
        }
    }

    #[test]
    fn types_are_spelt_as_format_type_does() {
        let spelt = |data_type: DataType| Kind::of(&data_type).map(|kind| kind.to_string());
        assert_eq!(spelt(DataType::Decimal128(18, 2)).unwrap(), "numeric(18,2)");
        assert_eq!(spelt(DataType::UInt64).unwrap(), "numeric(20,0)");
        assert_eq!(
            spelt(DataType::Timestamp(TimeUnit::Nanosecond, Some("Asia/Tokyo".into()))).unwrap(),
            "timestamp with time zone"
        );
        assert_eq!(spelt(DataType::Utf8View).unwrap(), "text");
        assert_eq!(spelt(DataType::Duration(TimeUnit::Second)), None);
        assert_eq!(spelt(DataType::Decimal128(10, -2)), None);
    }
}
