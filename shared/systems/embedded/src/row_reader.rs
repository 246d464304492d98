use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{Field, SchemaRef},
};
use millstream_core::{Error, Result};
use rusqlite::types::Value;

use crate::{columns, connections::Work};

/// How many rows and bytes of text one Arrow batch read from a table holds at most; it may exceed the byte limit by one row.
const CHUNK_ROWS: usize = 8_192;

const CHUNK_BYTES: usize = 64 << 20;

/// Collects rows of SQLite into Arrow batches of bounded size.
pub(crate) struct RowReader {
    schema: SchemaRef,
    columns: Vec<Vec<Value>>,
    rows: usize,
    bytes: usize,
    batches: Vec<RecordBatch>,
}

impl RowReader {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|_| Vec::new()).collect();
        Self { schema, columns, rows: 0, bytes: 0, batches: vec![] }
    }

    /// Adds a row whose columns begin at `first`.
    pub(crate) fn push(&mut self, row: &rusqlite::Row<'_>, first: usize) -> Work<()> {
        for (index, column) in self.columns.iter_mut().enumerate() {
            let value: Value = row.get(first + index)?;
            self.bytes += match &value {
                Value::Text(text) => text.len(),
                Value::Blob(bytes) => bytes.len(),
                _ => 8,
            };
            column.push(value);
        }
        self.rows += 1;
        if self.rows == CHUNK_ROWS || self.bytes >= CHUNK_BYTES {
            self.cut()?;
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<()> {
        let decode = |(values, field): (&mut Vec<Value>, &Arc<Field>)| {
            let decoded = columns::decode(std::mem::take(values), field.data_type());
            decoded.map_err(|error| error.context(format!("column `{}`", field.name())))
        };
        let columns = self.columns.iter_mut().zip(self.schema.fields()).map(decode).collect::<Result<_>>()?;
        // A column may be declared not null and still hold a null, if another program wrote it.
        let foreign = |error| Error::stop("the rows do not fit their table's columns").caused_by(error);
        self.batches.push(RecordBatch::try_new(self.schema.clone(), columns).map_err(foreign)?);
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    /// The batches that are full; the rows of the next one stay.
    pub(crate) fn take_full(&mut self) -> Vec<RecordBatch> {
        std::mem::take(&mut self.batches)
    }

    pub(crate) fn finish(mut self) -> Result<Vec<RecordBatch>> {
        if self.rows > 0 {
            self.cut()?;
        }
        Ok(self.batches)
    }
}
