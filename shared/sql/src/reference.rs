use std::{
    fmt,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use millstream_core::Lookup;

use crate::size;

/// A table that topics are joined with. It is held in memory, and its rows may be replaced while functions run; or it is asked
/// for the rows that a batch needs.
pub struct ReferenceTable {
    /// Its name in SQL.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    is_asked: bool,
    asked_by: OnceLock<String>,
    rows: RwLock<Arc<Rows>>,
    lookup: RwLock<Option<Arc<dyn Lookup>>>,
}

impl ReferenceTable {
    /// A table without rows.
    pub fn new(name: impl Into<String>, schema: SchemaRef) -> Self {
        Self {
            name: name.into(),
            schema,
            is_asked: false,
            asked_by: OnceLock::new(),
            rows: RwLock::default(),
            lookup: RwLock::default(),
        }
    }

    /// A table that may be asked by key: each statement joins it by equality of one column.
    pub fn asked(name: impl Into<String>, schema: SchemaRef) -> Self {
        Self { is_asked: true, ..Self::new(name, schema) }
    }

    /// Is it a table of [`ReferenceTable::asked`]?
    pub(crate) fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// The column that the statement asks it by; none before that is planned, and of a table that it doesn't ask.
    pub fn asked_by(&self) -> Option<&str> {
        self.asked_by.get().map(String::as_str)
    }

    pub(crate) fn set_asked_by(&self, column: &str) {
        self.asked_by.get_or_init(|| column.to_owned());
    }

    /// From now on, a batch gets the rows that `lookup` gives for its keys, instead of those of [`ReferenceTable::set`].
    pub fn ask(&self, lookup: Arc<dyn Lookup>) {
        *self.lookup.write().unwrap_or_else(PoisonError::into_inner) = Some(lookup);
    }

    pub(crate) fn lookup(&self) -> Option<Arc<dyn Lookup>> {
        self.lookup.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the rows. Batches that are being transformed keep the old ones.
    pub fn set(&self, rows: Vec<RecordBatch>) {
        let rows = Arc::new(Rows::of(rows));
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    pub(crate) fn rows(&self) -> Arc<Rows> {
        Arc::clone(&self.rows.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for ReferenceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReferenceTable").field("name", &self.name).field("schema", &self.schema).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) batches: Vec<RecordBatch>,
    /// The size of the rows in memory, and of the widest row, in bytes.
    pub(crate) bytes: usize,
    pub(crate) widest_bytes: usize,
}

impl Rows {
    pub(crate) fn of(batches: Vec<RecordBatch>) -> Self {
        let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        let widest_bytes = batches.iter().map(size::of_widest_row).max().unwrap_or(0);
        Self { batches, bytes, widest_bytes }
    }
}
