use std::sync::{Arc, PoisonError, RwLock};

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use crate::size;

/// A table held in memory that topics are joined with; its rows may be replaced while functions run.
#[derive(Debug)]
pub struct ReferenceTable {
    /// Its name in SQL.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    rows: RwLock<Arc<Rows>>,
}

impl ReferenceTable {
    /// A table without rows.
    pub fn new(name: impl Into<String>, schema: SchemaRef) -> Self {
        Self { name: name.into(), schema, rows: RwLock::default() }
    }

    /// Replaces the rows. Batches that are being transformed keep the old ones.
    pub fn set(&self, rows: Vec<RecordBatch>) {
        let bytes = rows.iter().map(RecordBatch::get_array_memory_size).sum();
        let widest_bytes = rows.iter().map(size::of_widest_row).max().unwrap_or(0);
        let rows = Arc::new(Rows { batches: rows, bytes, widest_bytes });
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    pub(crate) fn rows(&self) -> Arc<Rows> {
        Arc::clone(&self.rows.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) batches: Vec<RecordBatch>,
    /// The size of the rows in memory, and of the widest row, in bytes.
    pub(crate) bytes: usize,
    pub(crate) widest_bytes: usize,
}
