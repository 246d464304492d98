//! Rows by their position.

use std::{
    ops::{ControlFlow, Range},
    sync::Arc,
};

use arrow::array::RecordBatch;
use millstream_core::{Error, Result, TopicPartition, meta, quote_identifier};
use scylla::value::{CqlValue, Row};

use crate::{
    client::Client,
    kind::Cell,
    layout::{BUCKET, GENERATION, Layout, PARTITION, TOPIC, bucket_of},
};

/// How many rows are fetched at once.
pub(crate) const PAGE_ROWS: usize = 1_000;

impl Client {
    /// The rows of `range`, in the order of their offsets, as pages of their columns' values, until `take` has enough.
    pub(crate) async fn read_range(
        &self,
        layout: &Layout,
        columns: &str,
        partition: &TopicPartition,
        range: Range<i64>,
        page_rows: usize,
        mut take: impl FnMut(Vec<Row>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let (table, offset) = (self.table(layout.rows()), quote_identifier(meta::OFFSET));
        let cql = format!(
            "SELECT {columns} FROM {table} WHERE \"{TOPIC}\" = ? AND \"{GENERATION}\" = ? AND \"{PARTITION}\" = ? AND \
             \"_bucket\" = ? AND {offset} >= ? AND {offset} < ?"
        );
        let what = format!("reading table {}", layout.rows());
        for bucket in buckets(&range) {
            let bounds = [range.start, range.end].map(|bound| Some(CqlValue::BigInt(bound)));
            let values = [&bucket_of(partition, bucket)[..], &bounds].concat();
            if self.pages(&what, &cql, &values, page_rows, &mut take).await?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The buckets that a range of offsets touches.
fn buckets(range: &Range<i64>) -> Range<i64> {
    if range.is_empty() { 0..0 } else { range.start.div_euclid(BUCKET)..(range.end - 1).div_euclid(BUCKET) + 1 }
}

impl Layout {
    /// A page of [`Layout::selected`] columns as rows of the table.
    ///
    /// # Errors
    /// `Stop` when a value is not of its column's type: another program has written it.
    pub(crate) fn decode(&self, rows: Vec<Row>) -> Result<RecordBatch> {
        let cells = transpose(rows, self.kinds.len());
        let columns = self.kinds.iter().zip(&self.table.columns).zip(cells);
        let columns = columns.map(|((kind, column), cells)| kind.decode(&column.name, cells, &column.data_type));
        let damaged = |error| {
            let table = &self.table.name;
            Error::stop(format!(
                "Cassandra: table {table} has a null that no row of it may have: another program has written to it"
            ))
            .caused_by(error)
        };
        RecordBatch::try_new(Arc::clone(&self.table.schema()), columns.collect::<Result<_>>()?).map_err(damaged)
    }
}

/// Columns of rows.
pub(crate) fn transpose(rows: Vec<Row>, columns: usize) -> Vec<Vec<Cell>> {
    let mut transposed = vec![Vec::with_capacity(rows.len()); columns];
    for row in rows {
        for (column, cell) in transposed.iter_mut().zip(row.columns) {
            column.push(cell);
        }
    }
    transposed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_touches_the_buckets_of_its_offsets() {
        for (range, expected) in [
            (0..1, 0..1),
            (0..BUCKET, 0..1),
            (0..BUCKET + 1, 0..2),
            (BUCKET - 1..BUCKET, 0..1),
            (BUCKET..3 * BUCKET, 1..3),
            (7..7, 0..0),
        ] {
            assert_eq!(buckets(&range), expected, "{range:?}");
        }
    }
}
