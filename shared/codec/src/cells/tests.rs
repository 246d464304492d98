use std::{collections::HashMap, sync::Arc};

use arrow::{array::AsArray, compute::cast, datatypes::TimeUnit};
use millstream_core::EPOCH_METADATA;

use super::*;

/// The first value as Arrow shows it.
fn value(field: &FieldRef, cell: &str) -> Result<String, String> {
    let values = decode_cells(field, [Some(cell)].into_iter()).map_err(|(_, why)| why)?;
    let values = if field.data_type() == &DataType::Binary { cast(&values, &DataType::Utf8).unwrap() } else { values };
    Ok(cast(&values, &DataType::Utf8).unwrap().as_string::<i32>().value(0).to_owned())
}

#[test]
fn cells_are_spelled_as_in_json() {
    let at = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    for (of, cell, expected) in [
        (DataType::Boolean, "true", Ok("true")),
        (DataType::Boolean, "TRUE", Err("true or false")),
        (DataType::Boolean, "1", Err("true or false")),
        (DataType::Boolean, "yes", Err("true or false")),
        (DataType::Binary, "aGk=", Ok("hi")),
        (DataType::Binary, "hi", Err("base64 string")),
        (DataType::Int32, " 7 ", Ok("7")),
        (DataType::Int32, "+7", Err("int")),
        (DataType::Int32, "7.0", Err("a fraction")),
        (DataType::Decimal128(9, 2), "1.5e1", Ok("15.00")),
        (
            DataType::Decimal128(38, 0),
            "12345678901234567890123456789012345678",
            Ok("12345678901234567890123456789012345678"),
        ),
        (DataType::Decimal128(9, 2), "1.005", Err("more than 2 decimals")),
        (DataType::Float64, "1e400", Err("double")),
        (DataType::Float64, "NaN", Err("double")),
        (DataType::Date32, "2026-11-21", Ok("2026-11-21")),
        (DataType::Date32, "2026-11-21T00:00:00Z", Err("date")),
        (at.clone(), "2026-11-21 10:00:00.1234567+01:00", Ok("2026-11-21T09:00:00.123456Z")),
        (at, "1700000000", Err("RFC 3339")),
        (DataType::Utf8, "true", Ok("true")),
        (DataType::Utf8, "\"", Ok("\"")),
    ] {
        let found = value(&Arc::new(Field::new("v", of.clone(), true)), cell);
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{of}"),
            (Err(why), Err(part)) => {
                assert!(why.starts_with("field `v`: ") && why.contains(part), "{of} {cell}: {why}");
            }
            _ => panic!("{of} {cell}: {found:?}, and not {expected:?}"),
        }
    }
}

#[test]
fn a_time_in_numbers_has_its_unit() {
    let at = Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true);
    for (unit, cell) in [("s", "1700000000"), ("ms", "1700000000000"), ("us", "1700000000000000"), ("s", "1.7e9")] {
        let field = at.clone().with_metadata(HashMap::from([(EPOCH_METADATA.to_owned(), unit.to_owned())]));
        assert_eq!(value(&Arc::new(field), cell).unwrap(), "2023-11-14T22:13:20Z", "{unit} {cell}");
    }
}

#[test]
fn the_first_cell_that_does_not_fit_is_told_without_its_text() {
    let field = Arc::new(Field::new("n", DataType::Int32, true));
    let cells = [Some("1"), None, Some("secret"), Some("2.5")];
    let (row, why) = decode_cells(&field, cells.into_iter()).unwrap_err();
    assert_eq!((row, why.as_str()), (2, "field `n`: expected int, found a string"));
    assert_eq!(decode_cells(&field, cells[..2].iter().copied()).unwrap().null_count(), 1);
}
