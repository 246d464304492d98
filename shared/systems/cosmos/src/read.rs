//! Rows by their position.

use std::{
    ops::{ControlFlow, Range},
    sync::Arc,
};

use arrow::array::RecordBatch;
use azure_data_cosmos::Query;
use millstream_core::{Error, Result, TopicPartition};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    client::Client,
    layout::{BUCKET, Layout, bucket_of, offset_id},
};

/// How many items are fetched at once.
pub(crate) const PAGE_ROWS: usize = 1_000;

/// A row as it is stored.
pub(crate) type Row = Map<String, Value>;

/// An item of a container of rows.
#[derive(Deserialize)]
pub(crate) struct Item {
    pub(crate) row: Row,
}

const ROWS: &str = "SELECT * FROM c WHERE c.id >= @from AND c.id < @to ORDER BY c.id";

impl Client {
    /// The rows of `range`, in the order of their offsets, as pages, until `take` has enough.
    pub(crate) async fn read_range(
        &self,
        layout: &Layout,
        partition: &TopicPartition,
        range: Range<i64>,
        page_rows: usize,
        mut take: impl FnMut(Vec<Row>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let what = format!("reading table {}", layout.rows());
        let internal = |_| Error::stop("internal: an offset has no JSON form");
        let mut is_done = false;
        for bucket in buckets(&range) {
            let query = Query::from(ROWS).with_parameter("@from", offset_id(range.start)).map_err(internal)?;
            let query = query.with_parameter("@to", offset_id(range.end)).map_err(internal)?;
            let pk = bucket_of(partition, bucket);
            let take = |items: Vec<Item>| {
                let flow = take(items.into_iter().map(|item| item.row).collect())?;
                is_done = flow.is_break();
                Ok(flow)
            };
            self.query(&what, layout.rows(), Some(&pk), query, page_rows, take).await?;
            if is_done {
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
    /// Rows as they are stored, as rows of the table. A column that a row doesn't have is null there.
    ///
    /// # Errors
    /// `Stop` when a value is not of its column's type: another program has written it.
    pub(crate) fn decode(&self, mut rows: Vec<Row>) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(self.forms.len());
        for (form, column) in self.forms.iter().zip(&self.table.columns) {
            let values = rows.iter_mut().map(|row| row.remove(&column.name).unwrap_or_default()).collect();
            columns.push(form.decode(&column.name, values, &column.data_type)?);
        }
        RecordBatch::try_new(Arc::clone(&self.table.schema()), columns).map_err(|error| {
            let table = &self.table.name;
            Error::stop(format!(
                "Cosmos: table {table} has a null that no row of it may have: another program has written to it"
            ))
            .caused_by(error)
        })
    }
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
