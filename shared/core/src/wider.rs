use arrow::datatypes::DataType;

use crate::Role;

/// Can a column of type `from` become one of type `to`, with the rows that it has? Then every value of `from` is exactly one
/// of `to`. A key must also stay the key of the records that come, in every store and beside a process that still runs the old
/// plan: 0.1 as a float is another number than 0.1 as a double, and a store of texts spells a decimal with its scale. So a float
/// key has no wider type, and a decimal key keeps its scale.
///
/// Only numbers have wider types. A `bigint unsigned` is none of them: stores hold it in another way.
pub fn is_wider(from: &DataType, to: &DataType, role: &Role) -> bool {
    match (from, to) {
        (DataType::Float32, DataType::Float64) => *role != Role::Key,
        (DataType::Decimal128(from_precision, from_scale), DataType::Decimal128(precision, scale)) => {
            let whole = |precision: u8, scale: i8| i16::from(precision) - i16::from(scale);
            (from_precision, from_scale) != (precision, scale)
                && scale >= from_scale
                && (scale == from_scale || *role != Role::Key)
                && whole(*precision, *scale) >= whole(*from_precision, *from_scale)
        }
        _ => match (integer_range(from), integer_range(to)) {
            (Some(from), Some(to)) => from != to && to.0 <= from.0 && from.1 <= to.1,
            _ => false,
        },
    }
}

/// The smallest and the largest value of an integer type that stores hold as an integer.
fn integer_range(data_type: &DataType) -> Option<(i64, i64)> {
    Some(match data_type {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 => (i64::MIN, i64::MAX),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_type_holds_every_value() {
        let decimal = DataType::Decimal128;
        for (from, to, expected) in [
            (DataType::Int32, DataType::Int64, true),
            (DataType::Int8, DataType::Int16, true),
            (DataType::UInt8, DataType::Int16, true),
            (DataType::UInt32, DataType::Int64, true),
            (DataType::Int64, DataType::Int32, false),
            (DataType::Int32, DataType::Int32, false),
            (DataType::Int8, DataType::UInt16, false),
            (DataType::UInt32, DataType::Int32, false),
            (DataType::UInt32, DataType::UInt64, false),
            (DataType::Int32, DataType::Float64, false),
            (DataType::Float32, DataType::Float64, true),
            (DataType::Float64, DataType::Float32, false),
            (decimal(9, 2), decimal(11, 2), true),
            (decimal(9, 2), decimal(11, 4), true),
            (decimal(9, 2), decimal(10, 4), false),
            (decimal(9, 2), decimal(11, 1), false),
            (decimal(9, 2), decimal(9, 2), false),
            (DataType::Utf8, DataType::Int64, false),
        ] {
            assert_eq!(is_wider(&from, &to, &Role::Value), expected, "{from} to {to}");
        }
    }

    #[test]
    fn a_key_stays_the_same_key() {
        assert!(is_wider(&DataType::Int32, &DataType::Int64, &Role::Key));
        assert!(!is_wider(&DataType::Float32, &DataType::Float64, &Role::Key));
        let decimal = DataType::Decimal128;
        assert!(is_wider(&decimal(9, 2), &decimal(11, 2), &Role::Key));
        assert!(!is_wider(&decimal(9, 2), &decimal(11, 4), &Role::Key));
    }
}
