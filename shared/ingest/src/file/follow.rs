use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use millstream_core::{NewRecord, Result};
use millstream_pipeline::Topic;

use super::{Look, Records, jsonl, key_columns, stop};

/// A file of JSON lines that grows while it is read.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    /// Where the next line begins.
    next_byte: u64,
    /// How many lines stand before it.
    lines: u64,
}

impl Follow {
    /// Begins at the start of the file.
    ///
    /// # Errors
    /// `Stop` for a file that doesn't end in `.jsonl` or `.ndjson`: a line of a CSV file needs the header, and may go on in the
    /// next one.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("jsonl" | "ndjson") => Ok(Self { path: path.to_owned(), next_byte: 0, lines: 0 }),
            _ => Err(stop(path, "only files that end in .jsonl or .ndjson can be followed")),
        }
    }

    /// The records of the whole lines that were added since the last call, as [`crate::from_file`] gives them; none if there is no
    /// such line. A line that is being written is left for a later call.
    ///
    /// # Errors
    /// `Stop` when the file can't be read, or has become shorter; those of [`crate::from_file`].
    pub fn added(
        &mut self,
        topic: &Topic,
        key: Option<&str>,
        look: Look,
    ) -> Result<Option<impl Iterator<Item = Result<NewRecord>> + Send + use<>>> {
        let unreadable = |error| stop(&self.path, "it can't be read").caused_by(error);
        let mut file = File::open(&self.path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        if length < self.next_byte {
            return Err(stop(&self.path, "it has become shorter: it was replaced or truncated while it was followed"));
        }
        file.seek(SeekFrom::Start(self.next_byte)).map_err(unreadable)?;
        let mut rest = BufReader::new(&mut file);
        let (mut read_bytes, mut whole_bytes, mut whole_lines) = (0, 0, 0);
        loop {
            let buffer = rest.fill_buf().map_err(unreadable)?;
            let (count, newlines) = (buffer.len(), buffer.iter().filter(|byte| **byte == b'\n').count());
            if let Some(last) = buffer.iter().rposition(|byte| *byte == b'\n') {
                (whole_bytes, whole_lines) = (read_bytes + last as u64 + 1, whole_lines + newlines as u64);
            }
            if count == 0 {
                break;
            }
            rest.consume(count);
            read_bytes += count as u64;
        }
        drop(rest);
        if whole_bytes == 0 {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(self.next_byte)).map_err(unreadable)?;
        let lines = jsonl::Lines::after(BufReader::new(file.take(whole_bytes)), &self.path, self.lines);
        let records = Records::new(&self.path, Box::new(lines), topic, key, key_columns(look, key))?;
        (self.next_byte, self.lines) = (self.next_byte + whole_bytes, self.lines + whole_lines);
        Ok(Some(records.map(|read| read.map(|(_, record)| record))))
    }
}
