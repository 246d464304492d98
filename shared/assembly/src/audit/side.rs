//! One side of a comparison: rows in parts by their keys, on disk where they are many.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{BufReader, Read, Seek as _, SeekFrom, Write as _},
    sync::Arc,
};

use arrow::array::RecordBatch;
use millstream_core::{Error, OddRow, Result};

use super::{
    encoder::{Encoded, Encoder},
    wire::{read, write},
};

/// Rows are divided by their keys, so that a comparison holds one part at a time in memory.
pub(super) const PARTS: usize = 64;
/// A part that is larger goes to a temporary file.
const PART_BYTES: usize = 256 << 10;

/// How many rows that can't be read are held in memory.
const MAX_ODD: usize = 10_000;

/// Rows of one side.
pub(crate) struct Side {
    pub(super) encoder: Arc<Encoder>,
    parts: Vec<Part>,
    /// How many rows it has.
    pub(crate) rows: u64,
    /// How many it was given, with those that are not wanted.
    pub(super) given: u64,
    /// Rows that can't be read; they are in none of the parts.
    pub(crate) odd: Vec<OddRow>,
}

#[derive(Default)]
struct Part {
    waiting: Vec<u8>,
    file: Option<File>,
}

impl Side {
    pub(crate) fn new(encoder: &Arc<Encoder>) -> Self {
        let parts = (0..PARTS).map(|_| Part::default()).collect();
        Self { encoder: Arc::clone(encoder), parts, rows: 0, given: 0, odd: Vec::new() }
    }

    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.given += batch.num_rows() as u64;
        self.encoder.rows(batch)?.iter().try_for_each(|row| self.push(row))
    }

    pub(super) fn add_odd(&mut self, odd: OddRow) -> Result<()> {
        self.given += 1;
        if !self.encoder.wants(&odd)? {
            return Ok(());
        }
        self.rows += 1;
        self.odd.push(odd);
        if self.odd.len() > MAX_ODD {
            return Err(Error::stop(format!(
                "more than {MAX_ODD} rows have values that are not of their columns' types: another program has written to the \
                 table. Fill it anew (`millstream rebuild`)"
            )));
        }
        Ok(())
    }

    pub(super) fn push(&mut self, row: &Encoded) -> Result<()> {
        self.rows += 1;
        let mut hash = DefaultHasher::new();
        row.key.hash(&mut hash);
        let part = &mut self.parts[hash.finish() as usize % PARTS];
        write(&mut part.waiting, row);
        if part.waiting.len() >= PART_BYTES {
            part.flush().map_err(on_disk)?;
        }
        Ok(())
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
