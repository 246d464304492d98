//! Rows as text, for comparing and showing.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Float32Type, Float64Type},
    util::display::{ArrayFormatter, FormatOptions},
};
use millstream_core::{Error, Result, Role, Table};

/// A row: its key columns as text, and the others.
#[derive(Clone, Debug)]
pub struct Line {
    /// The key columns, `name=value`; empty for a table without keys.
    pub key: String,
    cells: Vec<Cell>,
}

#[derive(Clone, Debug)]
struct Cell {
    name: String,
    text: String,
    float: Option<f64>,
}

impl Line {
    /// The columns that are no keys.
    pub fn values(&self) -> String {
        let cells: Vec<String> = self.cells.iter().map(|cell| format!("{}={}", cell.name, cell.text)).collect();
        cells.join(", ")
    }

    /// All columns.
    pub fn all(&self) -> String {
        if self.key.is_empty() { self.values() } else { format!("{}, {}", self.key, self.values()) }
    }

    /// Are all values the same? Floats may differ by `tolerance`, relative to the larger one.
    pub fn equals(&self, other: &Self, tolerance: f64) -> bool {
        self.cells.len() == other.cells.len()
            && self.cells.iter().zip(&other.cells).all(|(a, b)| match (a.float, b.float) {
                (Some(x), Some(y)) => a.text == b.text || (x - y).abs() <= tolerance * x.abs().max(y.abs()).max(1.0),
                _ => a.text == b.text,
            })
    }
}

/// The rows of a table as lines. Timestamps are RFC 3339, binary is hexadecimal, null is `null`.
///
/// # Errors
/// `Stop` on a type that has no text.
pub fn lines(table: &Table, rows: &[RecordBatch]) -> Result<Vec<Line>> {
    let is_key = |name: &str| table.columns.iter().any(|column| column.name == name && column.role == Role::Key);
    let mut lines = Vec::new();
    for batch in rows {
        let schema = batch.schema();
        let mut columns: Vec<_> = texts(batch)?.into_iter().map(Vec::into_iter).collect();
        for row in 0..batch.num_rows() {
            let mut key = Vec::new();
            let mut cells = Vec::new();
            for (column, field) in schema.fields().iter().enumerate() {
                // Every column has a text for each row.
                let text = columns[column].next().unwrap_or_default();
                if is_key(field.name()) {
                    key.push(format!("{}={text}", field.name()));
                } else {
                    cells.push(Cell { name: field.name().clone(), text, float: float(batch, column, row) });
                }
            }
            lines.push(Line { key: key.join(", "), cells });
        }
    }
    Ok(lines)
}

/// Every value as text, by column.
///
/// # Errors
/// `Stop` on a type that has no text.
pub fn texts(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::default().with_null("null");
    let column = |column: &arrow::array::ArrayRef| {
        let no_text = |error| Error::stop("a column can't be shown").caused_by(error);
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options).map_err(no_text)?;
        (0..column.len()).map(|row| formatter.value(row).try_to_string().map_err(no_text)).collect::<Result<Vec<_>>>()
    };
    batch.columns().iter().map(column).collect()
}

fn float(batch: &RecordBatch, column: usize, row: usize) -> Option<f64> {
    let values = batch.column(column);
    match values.data_type() {
        _ if values.is_null(row) => None,
        DataType::Float64 => Some(values.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => Some(f64::from(values.as_primitive::<Float32Type>().value(row))),
        _ => None,
    }
}
