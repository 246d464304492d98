use std::{
    io::{BufRead, Read as _},
    path::{Path, PathBuf},
};

use millstream_codec::MAX_VALUE_BYTES;
use millstream_core::Result;

use super::{bad_line, stop};

/// The lines of a JSONL file that are not empty, as they are.
pub(super) struct Lines<R> {
    input: R,
    path: PathBuf,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R, path: &Path) -> Self {
        Self::after(input, path, 0)
    }

    /// The same, of the part of the file that stands behind its first `lines` lines.
    pub(super) fn after(input: R, path: &Path, lines: u64) -> Self {
        Self { input, path: path.to_owned(), number: lines }
    }

    /// The next line without its line end; `None` at the end of the file.
    fn read(&mut self) -> Result<Option<Vec<u8>>> {
        let unreadable = |path: &Path, error| stop(path, "it can't be read on").caused_by(error);
        let mut line = Vec::new();
        // One byte more for the line's end: a longer line is never held whole.
        let mut limited = (&mut self.input).take(MAX_VALUE_BYTES as u64 + 1);
        limited.read_until(b'\n', &mut line).map_err(|error| unreadable(&self.path, error))?;
        if line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        if line.pop_if(|last| *last == b'\n').is_none() && line.len() > MAX_VALUE_BYTES {
            self.input.skip_until(b'\n').map_err(|error| unreadable(&self.path, error))?;
            return Err(bad_line(&self.path, self.number, format_args!("longer than {MAX_VALUE_BYTES} bytes")));
        }
        line.pop_if(|last| *last == b'\r');
        if self.number == 1 && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        Ok(Some(line))
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read().transpose()? {
                Ok(line) if line.trim_ascii().is_empty() => {}
                line => return Some(line.map(|line| (self.number, line))),
            }
        }
    }
}
