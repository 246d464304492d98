//! The rows of a write as texts, checked.

use std::collections::HashSet;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use millstream_core::{Error, Result};

use crate::{
    RedisSink,
    text::{self, Text},
};

/// A row, by the table's columns.
pub(crate) struct Row {
    pub offset: i64,
    pub texts: Vec<Text>,
}

impl RedisSink {
    /// All rows in the order of their offsets. Each is checked and made text, also one that is not sent because a newer one of
    /// its entity is: whether a row is refused doesn't depend on its neighbours.
    ///
    /// # Errors
    /// `Poison` for a row that can't be stored.
    pub(crate) fn read_rows(&self, batches: &[RecordBatch]) -> Result<Vec<Row>> {
        let mut rows = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
        for batch in batches {
            self.table.check_storable(batch)?;
            let columns = batch.columns().iter().map(text::encode).collect::<Result<Vec<_>>>()?;
            let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
            let offsets = batch.column(self.offset);
            if *offsets.data_type() != DataType::Int64 || offsets.null_count() > 0 {
                return Err(Error::stop(format!("internal: redis: rows of table {} without offsets", self.table.name)));
            }
            for offset in offsets.as_primitive::<Int64Type>().values() {
                let texts = columns.iter_mut().map(|column| column.next().flatten()).collect();
                rows.push(Row { offset: *offset, texts });
            }
        }
        self.check_rows(&rows)?;
        rows.sort_by_key(|row| row.offset);
        Ok(rows)
    }

    fn check_rows(&self, rows: &[Row]) -> Result<()> {
        let table = &self.table.name;
        let mut seen = HashSet::with_capacity(rows.len());
        for row in rows {
            if !seen.insert(row.offset) {
                return Err(Error::poison(format!(
                    "table {table}: the statement gives two rows for one event; put the unnest into a transform before it"
                )));
            }
            if row.offset < 0 {
                return Err(Error::stop(format!(
                    "internal: redis: a row of table {table} has the offset {}",
                    row.offset
                )));
            }
            if let Some(entity) = self.entity
                && row.texts[entity].is_none()
            {
                let column = &self.table.columns[entity].name;
                return Err(Error::poison(format!(
                    "table {table}: {column}, which names what a row is about, is null"
                )));
            }
        }
        Ok(())
    }

    /// The names and texts of a row's columns that are not null, but for the offset.
    pub(crate) fn fields<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let columns = self.table.columns.iter().zip(&row.texts).enumerate();
        columns.filter_map(|(at, (column, text))| {
            Some((column.name.as_str(), text.as_deref()?)).filter(|_| at != self.offset)
        })
    }

    /// A row as a JSON object, without what is null.
    pub(crate) fn json(&self, row: &Row) -> String {
        let columns = self.table.columns.iter().zip(&row.texts);
        let member = |(column, text): (&millstream_core::Column, &Text)| {
            let name = serde_json::Value::from(column.name.as_str());
            Some(format!("{name}:{}", text::to_json(text.as_ref()?, &column.data_type)))
        };
        format!("{{{}}}", columns.filter_map(member).collect::<Vec<_>>().join(","))
    }
}
