//! One side of a comparison: rows in parts by their keys, on disk where they are many.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{BufReader, Read, Seek as _, SeekFrom, Write as _},
    sync::Arc,
};

use arrow::array::RecordBatch;
use millstream_core::{Error, Result};

use super::{
    encoder::{Encoded, Encoder, internal},
    wire::{read, write},
};

/// Rows are divided by their keys, so that a comparison holds one part at a time in memory.
pub(super) const PARTS: usize = 64;
/// A part that is larger goes to a temporary file.
const PART_BYTES: usize = 256 << 10;

/// Rows of one side.
pub(crate) struct Side {
    pub(super) encoder: Arc<Encoder>,
    parts: Vec<Part>,
    /// How many rows it has.
    pub(crate) rows: u64,
}

#[derive(Default)]
struct Part {
    waiting: Vec<u8>,
    file: Option<File>,
}

impl Side {
    pub(crate) fn new(encoder: &Arc<Encoder>) -> Self {
        let parts = (0..PARTS).map(|_| Part::default()).collect();
        Self { encoder: Arc::clone(encoder), parts, rows: 0 }
    }

    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        for row in self.encoder.rows(batch)? {
            self.rows += 1;
            let mut hash = DefaultHasher::new();
            row.key.hash(&mut hash);
            let part = &mut self.parts[hash.finish() as usize % PARTS];
            write(&mut part.waiting, &row);
            if part.waiting.len() >= PART_BYTES {
                part.flush().map_err(on_disk)?;
            }
        }
        Ok(())
    }

    /// The same rows with only the columns at these places.
    pub(crate) fn of_columns(&mut self, places: &[usize], encoder: &Arc<Encoder>) -> Result<Self> {
        let mut side = Self::new(encoder);
        let own = Arc::clone(&self.encoder);
        for part in 0..PARTS {
            self.read(part, &mut |row| side.add(&own.decode(&row)?.project(places).map_err(internal)?))?;
        }
        Ok(side)
    }

    /// Some of the rows, at most `limit`, each as a batch of one row: those of the smallest keys in the first parts.
    pub(crate) fn some(&mut self, limit: usize) -> Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for part in 0..PARTS {
            let mut own = Vec::new();
            self.read(part, &mut |row| {
                own.push(row);
                Ok(())
            })?;
            own.truncate(limit - rows.len());
            rows.extend(own);
            if rows.len() == limit {
                break;
            }
        }
        rows.sort_by(|a, b| (&a.key, &a.exact).cmp(&(&b.key, &b.exact)));
        rows.iter().map(|row| self.encoder.decode(row)).collect()
    }

    /// Gives all rows of a part to `take`.
    pub(super) fn read(&mut self, part: usize, take: &mut dyn FnMut(Encoded) -> Result<()>) -> Result<()> {
        let part = &mut self.parts[part];
        if let Some(file) = &mut part.file {
            file.seek(SeekFrom::Start(0)).map_err(on_disk)?;
            each(&mut BufReader::new(file), take)?;
        }
        each(&mut part.waiting.as_slice(), take)
    }
}

impl Part {
    fn flush(&mut self) -> std::io::Result<()> {
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile()?);
        }
        if let Some(file) = &mut self.file {
            file.write_all(&self.waiting)?;
        }
        self.waiting.clear();
        Ok(())
    }
}

fn on_disk(error: std::io::Error) -> Error {
    Error::stop("rows that are compared go to temporary files, and that failed").caused_by(error)
}

fn each(from: &mut dyn Read, take: &mut dyn FnMut(Encoded) -> Result<()>) -> Result<()> {
    while let Some(row) = read(from).map_err(on_disk)? {
        take(row)?;
    }
    Ok(())
}
