//! Cells of text, such as a CSV file's, as values of a field. The rules are those of JSON: a topic and a reference with the
//! same declared type accept the same spellings.

use std::borrow::Cow;

use arrow::{
    array::ArrayRef,
    datatypes::{DataType, Field, FieldRef},
};
use serde_json::Value as Json;

use crate::{column::Column, epoch_unit, problem::Problem, scan::Scanner};

/// A cell as the JSON that a record has for it: in quotes for a field whose values are strings in JSON, otherwise as it is.
/// What is not JSON by itself becomes a string too, so that the decoder says what is wrong with it.
pub fn cell_json<'a>(field: &Field, cell: &'a str) -> Cow<'a, str> {
    let is_string = match field.data_type() {
        DataType::Utf8 | DataType::Binary | DataType::Date32 => true,
        DataType::Timestamp(..) => epoch_unit(field).is_none(),
        _ => false,
    };
    if !is_string && is_json_but_string(cell) {
        Cow::Borrowed(cell.trim())
    } else {
        Cow::Owned(Json::from(cell).to_string())
    }
}

/// Only one whole JSON value may stand for a cell as it is.
fn is_json_but_string(cell: &str) -> bool {
    matches!(serde_json::from_str(cell), Ok(Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_)))
}

/// The values of a column of cells; `None` is null.
///
/// # Errors
/// The index of the first cell that the field can't hold, and why, without the cell's text.
pub fn decode_cells<'a>(
    field: &FieldRef,
    cells: impl ExactSizeIterator<Item = Option<&'a str>>,
) -> Result<ArrayRef, (usize, String)> {
    let mut column = Column::new(field, cells.len()).map_err(|error| (0, error.to_string()))?;
    for (row, cell) in cells.enumerate() {
        let json = cell.map_or(Cow::Borrowed("null"), |cell| cell_json(field, cell));
        read(&mut column, &json).map_err(|problem| (row, problem.to_string()))?;
    }
    column.finish().map_err(|error| (0, error.to_string()))
}

fn read(column: &mut Column, json: &str) -> Result<(), Problem> {
    let mut json = Scanner::new(json);
    column.read(&mut json)?;
    json.end()
}

#[cfg(test)]
mod tests;
