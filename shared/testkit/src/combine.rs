use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_core::{Column, Combine, Result, Table, merge::merge_rows};

/// A [`Combine`] without DataFusion: merges rows by the rules of core, and finishes nothing (the rows are the result). A
/// sketch is a set of byte values that merges by union.
#[derive(Clone, Debug)]
pub struct TestCombine {
    table: Table,
}

impl TestCombine {
    /// Merges rows that have these columns.
    pub fn new(columns: &[Column]) -> Self {
        Self { table: Table { name: "test".into(), columns: columns.to_vec(), combine: None, view: None } }
    }
}

#[async_trait]
impl Combine for TestCombine {
    async fn combine(&self, rows: &[RecordBatch]) -> Result<RecordBatch> {
        let union =
            |sketches: &[&[u8]]| Ok(sketches.concat().into_iter().collect::<BTreeSet<u8>>().into_iter().collect());
        merge_rows(&self.table, rows, &union)
    }

    async fn finish(&self, rows: &RecordBatch) -> Result<(RecordBatch, Vec<usize>)> {
        Ok((rows.clone(), (0..rows.num_rows()).collect()))
    }
}
