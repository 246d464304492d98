//! Rows as bytes that are equal where the rows are.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch},
    compute::unary,
    datatypes::{DataType, Float32Type, Float64Type},
    row::{RowConverter, SortField},
};
use millstream_core::{Error, Result, Role, Table};

/// Encodes rows as bytes that are equal if the rows are equal.
pub(super) struct Encoder {
    pub(super) converter: RowConverter,
    columns: Vec<usize>,
}

impl Encoder {
    /// An encoder of these columns of a table.
    pub(super) fn new(table: &Table, columns: Vec<usize>) -> Result<Self> {
        let fields = columns.iter().map(|at| SortField::new(table.columns[*at].data_type.clone())).collect();
        Ok(Self { converter: RowConverter::new(fields).map_err(internal)?, columns })
    }

    pub(super) fn rows(&self, batch: &RecordBatch) -> Result<Vec<Box<[u8]>>> {
        if self.columns.is_empty() {
            return Ok(vec![Box::default(); batch.num_rows()]);
        }
        let columns: Vec<_> = self.columns.iter().map(|column| plain_floats(batch.column(*column))).collect();
        let rows = self.converter.convert_columns(&columns).map_err(internal)?;
        Ok(rows.iter().map(|row| row.as_ref().into()).collect())
    }
}

/// The indexes of the key columns.
pub(super) fn key_columns(table: &Table) -> Vec<usize> {
    (0..table.columns.len()).filter(|at| table.columns[*at].role == Role::Key).collect()
}

/// The rows with floats as stores hold them.
pub(super) fn plain_batch(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(plain_floats).collect();
    RecordBatch::try_new(batch.schema(), columns).map_err(internal)
}

/// Turns -0.0 into 0.0, and every NaN into the same one: stores don't tell them apart.
fn plain_floats(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => Arc::new(unary::<_, _, Float64Type>(column.as_primitive::<Float64Type>(), |value| {
            if value.is_nan() { f64::NAN } else { value + 0.0 }
        })),
        DataType::Float32 => Arc::new(unary::<_, _, Float32Type>(column.as_primitive::<Float32Type>(), |value| {
            if value.is_nan() { f32::NAN } else { value + 0.0 }
        })),
        _ => Arc::clone(column),
    }
}

/// The error for a failure of Arrow.
pub(super) fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::stop("internal: rows can't be compared").caused_by(error)
}
