//! Merges the states of a whole log while it is read.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use arrow::{
    array::{RecordBatch, UInt64Array},
    compute::take_record_batch,
};
use millstream_core::{Combine, Result, Table};

use super::encoder::{Encoder, internal, key_columns};

/// States are divided into parts by their keys: merging holds its input and its result at once.
const PARTS: usize = 16;
/// A part is merged when it has this many new rows or bytes, or half as many as are already merged. So memory follows
/// the table and not the log, and merged states are not merged again for a few new ones.
const MERGE_ROWS: usize = 200_000 / PARTS;
const MERGE_BYTES: usize = (64 << 20) / PARTS;

/// The states of each key, merged as far as memory requires.
pub(super) struct States<'a> {
    combine: &'a dyn Combine,
    encoder: Encoder,
    parts: Vec<Part>,
}

#[derive(Clone, Default)]
struct Part {
    rows: Vec<RecordBatch>,
    merged: Size,
    waiting: Size,
}

/// The size of rows.
#[derive(Clone, Copy, Default)]
struct Size {
    rows: usize,
    bytes: usize,
}

impl<'a> States<'a> {
    pub(super) fn new(table: &Table, combine: &'a dyn Combine) -> Result<Self> {
        let encoder = Encoder::new(table, key_columns(table))?;
        Ok(Self { combine, encoder, parts: vec![Part::default(); PARTS] })
    }

    /// Adds states.
    pub(super) async fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut rows_of = vec![Vec::new(); PARTS];
        for (row, key) in self.encoder.rows(batch)?.into_iter().enumerate() {
            let mut hash = DefaultHasher::new();
            key.hash(&mut hash);
            rows_of[hash.finish() as usize % PARTS].push(row as u64);
        }
        for (part, rows) in self.parts.iter_mut().zip(rows_of).filter(|(_, rows)| !rows.is_empty()) {
            part.add(take_record_batch(batch, &UInt64Array::from(rows)).map_err(internal)?);
            if part.is_full() {
                part.merge(self.combine).await?;
            }
        }
        Ok(())
    }

    /// One row per key, in batches that share no key.
    pub(super) async fn finish(mut self) -> Result<Vec<RecordBatch>> {
        for part in &mut self.parts {
            part.merge(self.combine).await?;
        }
        Ok(self.parts.into_iter().flat_map(|part| part.rows).collect())
    }
}

impl Part {
    fn add(&mut self, rows: RecordBatch) {
        self.waiting.rows += rows.num_rows();
        self.waiting.bytes += rows.get_array_memory_size();
        self.rows.push(rows);
    }

    fn is_full(&self) -> bool {
        self.waiting.rows >= MERGE_ROWS.max(self.merged.rows / 2)
            || self.waiting.bytes >= MERGE_BYTES.max(self.merged.bytes / 2)
    }

    async fn merge(&mut self, combine: &dyn Combine) -> Result<()> {
        if self.waiting.rows > 0 {
            let all = combine.combine(&self.rows).await?;
            self.merged = Size { rows: all.num_rows(), bytes: all.get_array_memory_size() };
            self.waiting = Size::default();
            self.rows = vec![all];
        }
        Ok(())
    }
}
