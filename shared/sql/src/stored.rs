use arrow::datatypes::DataType;
use millstream_core::timestamp_type;

use crate::{
    error::{Result, SqlError},
    finite, types,
};

/// The type that a column is stored with.
pub(crate) fn stored(data_type: &DataType, name: &str) -> Result<DataType> {
    Ok(match data_type {
        DataType::Null => {
            return Err(SqlError::new(format!(
                "column `{name}` is always null and has no type: write CAST(NULL AS type)"
            )));
        }
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Timestamp(..) => timestamp_type(),
        DataType::Dictionary(_, value) => stored(value, name)?,
        DataType::Decimal256(..) => {
            return Err(SqlError::new(format!("column `{name}` has more than 38 digits: cast it to decimal(38, s)")));
        }
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Interval(_) | DataType::Duration(_) | DataType::Time32(_) | DataType::Time64(_) => {
            return Err(SqlError::new(format!(
                "column `{name}` is an interval or a time of day, which tables can't hold: write extract(epoch FROM …) \
                 of each time and subtract them, which gives seconds, or show the times themselves"
            )));
        }
        other => match types::unstorable(other) {
            None => finite::type_of(other),
            Some(part) => {
                return Err(SqlError::new(format!(
                    "column `{name}` has the type {part}, which tables can't hold: cast it to another type, as in \
                     CAST(x AS double)"
                )));
            }
        },
    })
}
