use std::ops::Deref;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Schema},
};
use millstream_core::{Error, Result};

use crate::tables::Stored;

/// Rows that have the columns of their table, in order and type.
#[derive(Clone)]
pub(crate) struct CheckedRows(RecordBatch);

impl CheckedRows {
    /// Checks rows for `table`; other columns are a defect of the caller.
    pub(crate) fn new(table: &Stored, rows: RecordBatch) -> Result<Self> {
        if column_types(rows.schema_ref()) == column_types(&table.schema) {
            return Ok(Self(rows));
        }
        Err(Error::stop(format!("internal: rows for table `{}` do not have its columns", table.name)))
    }
}

impl Deref for CheckedRows {
    type Target = RecordBatch;

    fn deref(&self) -> &RecordBatch {
        &self.0
    }
}

fn column_types(schema: &Schema) -> Vec<&DataType> {
    schema.fields().iter().map(|field| field.data_type()).collect()
}
