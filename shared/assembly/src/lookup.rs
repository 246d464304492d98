//! References that are asked by key, and what is remembered of their answers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arrow::{
    array::{Array as _, ArrayRef, RecordBatch},
    compute::{filter, interleave_record_batch},
    datatypes::SchemaRef,
    row::{OwnedRow, RowConverter, SortField},
};
use async_trait::async_trait;
use millstream_core::{Clock, Error, Lookup, Result, TableStore};

use crate::reference::declared;

/// How many keys a store is asked for at once.
const KEYS_AT_ONCE: usize = 10_000;
/// How many bytes of rows a batch may need.
const MAX_BATCH_BYTES: usize = 64 << 20;
/// How many bytes of rows are remembered; then the older half is forgotten.
const MAX_REMEMBERED_BYTES: usize = 64 << 20;
/// What an entry takes besides its keys and rows, roughly.
const ENTRY_BYTES: usize = 128;

/// A table of a store that is asked by key.
pub(crate) struct StoreLookup {
    pub store: Arc<dyn TableStore>,
    /// What the table is called in the store.
    pub name: String,
    pub schema: SchemaRef,
    /// The column that the keys are in.
    pub by: String,
    /// How old a row may be that isn't asked for again, in microseconds; none when each batch asks.
    pub max_age_us: Option<i64>,
    pub clock: Arc<dyn Clock>,
    pub remembered: Mutex<Remembered>,
}

#[async_trait]
impl Lookup for StoreLookup {
    async fn rows(&self, keys: &ArrayRef) -> Result<Vec<RecordBatch>> {
        let Some(max_age_us) = self.max_age_us else { return self.ask(keys).await };
        let owned = owned_keys(keys)?;
        // Before the store is asked: its rows are at least as new.
        let now_us = self.clock.now_us();
        let (mut rows, missing) = self.remembered().recall(&owned, now_us.saturating_sub(max_age_us))?;
        let missing: ArrayRef = filter(keys, &missing.into()).map_err(internal)?;
        if !missing.is_empty() {
            let new = self.ask(&missing).await?;
            self.remembered().keep(&owned_keys(&missing)?, &new, &self.by, now_us)?;
            rows.extend(new);
        }
        Ok(rows)
    }
}

impl StoreLookup {
    /// Asks the store, for rows of exactly the declared types.
    async fn ask(&self, keys: &ArrayRef) -> Result<Vec<RecordBatch>> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for from in (0..keys.len()).step_by(KEYS_AT_ONCE) {
            let some = keys.slice(from, KEYS_AT_ONCE.min(keys.len() - from));
            let found = self.store.read_by_key(&self.name, &self.schema, &self.by, &some).await?;
            rows.extend(found.iter().map(|rows| declared(rows, &self.schema)).collect::<Result<Vec<_>>>()?);
            bytes += found.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
            if bytes > MAX_BATCH_BYTES {
                return Err(Error::too_large(format!("a batch needs more than {} MiB of it", MAX_BATCH_BYTES >> 20)));
            }
        }
        Ok(rows)
    }

    /// Checks that the table can be asked.
    pub async fn check(&self) -> Result<()> {
        let field = self.schema.field_with_name(&self.by).map_err(internal)?;
        let none = arrow::array::new_empty_array(field.data_type());
        self.store.read_by_key(&self.name, &self.schema, &self.by, &none).await.map(drop)
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn internal(error: arrow::error::ArrowError) -> Error {
    Error::stop("internal: looked up rows have other columns").caused_by(error)
}

fn owned_keys(keys: &ArrayRef) -> Result<Vec<OwnedRow>> {
    let converter = RowConverter::new(vec![SortField::new(keys.data_type().clone())]).map_err(internal)?;
    let rows = converter.convert_columns(std::slice::from_ref(keys)).map_err(internal)?;
    Ok(rows.iter().map(|row| row.owned()).collect())
}

/// The newest answers by key, also that there is no row. When they become too many, those go that weren't asked for lately.
#[derive(Default)]
pub(crate) struct Remembered {
    new: HashMap<OwnedRow, Answer>,
    old: HashMap<OwnedRow, Answer>,
    new_bytes: usize,
}

#[derive(Clone)]
struct Answer {
    asked_us: i64,
    /// The rows of the key, in a batch of their own: a slice would keep those of all keys.
    rows: Option<RecordBatch>,
    bytes: usize,
}

impl Remembered {
    /// The rows of the keys that were asked for since `since_us`, and which keys weren't.
    fn recall(&mut self, keys: &[OwnedRow], since_us: i64) -> Result<(Vec<RecordBatch>, Vec<bool>)> {
        let (mut rows, mut missing) = (Vec::new(), Vec::with_capacity(keys.len()));
        for key in keys {
            if !self.new.contains_key(key)
                && let Some(answer) = self.old.remove(key)
            {
                self.put(key.clone(), answer);
            }
            let found = self.new.get(key).filter(|answer| answer.asked_us >= since_us);
            missing.push(found.is_none());
            rows.extend(found.and_then(|answer| answer.rows.clone()));
        }
        // One batch: a plan runs over each by itself.
        let rows = match rows.first() {
            Some(first) => vec![arrow::compute::concat_batches(&first.schema(), &rows).map_err(internal)?],
            None => Vec::new(),
        };
        Ok((rows, missing))
    }

    fn keep(&mut self, keys: &[OwnedRow], rows: &[RecordBatch], by: &str, asked_us: i64) -> Result<()> {
        let mut of_key: HashMap<OwnedRow, Vec<(usize, usize)>> = HashMap::new();
        for (batch, of_batch) in rows.iter().enumerate() {
            let column = of_batch.column_by_name(by);
            let column = column.ok_or_else(|| Error::stop(format!("internal: a looked up row has no `{by}`")))?;
            for (row, key) in owned_keys(column)?.into_iter().enumerate() {
                of_key.entry(key).or_default().push((batch, row));
            }
        }
        let batches: Vec<_> = rows.iter().collect();
        for key in keys {
            let rows = of_key.get(key).map(|at| interleave_record_batch(&batches, at)).transpose().map_err(internal)?;
            let bytes =
                rows.as_ref().map_or(0, RecordBatch::get_array_memory_size) + key.row().data().len() + ENTRY_BYTES;
            self.put(key.clone(), Answer { asked_us, rows, bytes });
        }
        Ok(())
    }

    fn put(&mut self, key: OwnedRow, answer: Answer) {
        if answer.bytes > MAX_REMEMBERED_BYTES / 8 {
            return;
        }
        if self.new_bytes + answer.bytes > MAX_REMEMBERED_BYTES / 2 {
            self.old = std::mem::take(&mut self.new);
            self.new_bytes = 0;
        }
        self.new_bytes += answer.bytes;
        if let Some(before) = self.new.insert(key, answer) {
            self.new_bytes -= before.bytes;
        }
    }
}

#[cfg(test)]
mod tests;
