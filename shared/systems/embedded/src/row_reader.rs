use std::sync::Arc;

use arrow::{
    array::{Array, RecordBatch, new_null_array},
    datatypes::{Field, Schema, SchemaRef},
};
use millstream_core::{Error, OddRow, Result};
use rusqlite::types::Value;

use crate::{columns, connections::Work};

/// How many rows and bytes of text one Arrow batch read from a table holds at most; it may exceed the byte limit by one row.
const CHUNK_ROWS: usize = 8_192;

const CHUNK_BYTES: usize = 64 << 20;

/// How much of a text that can't be read is shown.
const SHOWN_LETTERS: usize = 60;

/// Collects rows of SQLite into Arrow batches of bounded size.
pub(crate) struct RowReader {
    schema: SchemaRef,
    columns: Vec<Vec<Value>>,
    rows: usize,
    bytes: usize,
    batches: Vec<RecordBatch>,
    /// Rows that can't be read, if they are no error.
    odd: Option<Vec<OddRow>>,
}

impl RowReader {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|_| Vec::new()).collect();
        Self { schema, columns, rows: 0, bytes: 0, batches: vec![], odd: None }
    }

    /// Rows that can't be read are no error: see [`RowReader::take_odd`].
    pub(crate) fn with_odd(schema: SchemaRef) -> Self {
        Self { odd: Some(vec![]), ..Self::new(schema) }
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
        let columns: Vec<_> = self.columns.iter_mut().map(std::mem::take).collect();
        (self.rows, self.bytes) = (0, 0);
        let rows = match &mut self.odd {
            None => batch(&self.schema, columns)?,
            Some(odd) => match batch(&self.schema, columns.clone()) {
                Ok(rows) => rows,
                Err(_) => batch(&self.schema, readable(&self.schema, columns, odd)?)?,
            },
        };
        self.batches.push(rows);
        Ok(())
    }

    /// The rows that can't be read, so far.
    pub(crate) fn take_odd(&mut self) -> Vec<OddRow> {
        self.odd.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The batches that are full; the rows of the next one stay.
    pub(crate) fn take_full(&mut self) -> Vec<RecordBatch> {
        std::mem::take(&mut self.batches)
    }

    pub(crate) fn finish(&mut self) -> Result<Vec<RecordBatch>> {
        if self.rows > 0 {
            self.cut()?;
        }
        Ok(self.take_full())
    }
}

fn batch(schema: &SchemaRef, columns: Vec<Vec<Value>>) -> Result<RecordBatch> {
    let decode = |(values, field): (Vec<Value>, &Arc<Field>)| {
        let decoded = columns::decode(values, field.data_type());
        decoded.map_err(|error| error.context(format!("column `{}`", field.name())))
    };
    let columns = columns.into_iter().zip(schema.fields()).map(decode).collect::<Result<_>>()?;
    // A column may be declared not null and still hold a null, if another program wrote it.
    let foreign = |error| Error::stop("the rows do not fit their table's columns").caused_by(error);
    RecordBatch::try_new(schema.clone(), columns).map_err(foreign)
}

/// The rows that can be read; the others go to `odd`.
fn readable(schema: &SchemaRef, mut columns: Vec<Vec<Value>>, odd: &mut Vec<OddRow>) -> Result<Vec<Vec<Value>>> {
    let mut readable: Vec<Vec<Value>> = columns.iter().map(|_| Vec::new()).collect();
    for row in 0..columns.first().map_or(0, Vec::len) {
        let values: Vec<Value> =
            columns.iter_mut().map(|column| std::mem::replace(&mut column[row], Value::Null)).collect();
        if batch(schema, values.iter().map(|value| vec![value.clone()]).collect()).is_ok() {
            readable.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        } else {
            odd.push(odd_row(schema, values)?);
        }
    }
    Ok(readable)
}

fn odd_row(schema: &SchemaRef, values: Vec<Value>) -> Result<OddRow> {
    let (mut cells, mut unreadable) = (Vec::with_capacity(values.len()), Vec::new());
    for (at, (value, field)) in values.into_iter().zip(schema.fields()).enumerate() {
        let shown = text(&value);
        let decoded = columns::decode(vec![value], field.data_type()).ok();
        if decoded.as_ref().is_none_or(|cell| cell.is_null(0) && !field.is_nullable()) {
            unreadable.push((at, shown));
        }
        cells.push(decoded.unwrap_or_else(|| new_null_array(field.data_type(), 1)));
    }
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let row = RecordBatch::try_new(schema, cells);
    let row = row.map_err(|error| Error::stop("internal: a row can't be shown").caused_by(error))?;
    Ok(OddRow { row, unreadable })
}

/// A value of SQLite for people.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(value) => value.to_string(),
        Value::Real(value) => value.to_string(),
        Value::Text(text) => format!("'{}'", text.chars().take(SHOWN_LETTERS).collect::<String>().replace('\'', "''")),
        Value::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}
