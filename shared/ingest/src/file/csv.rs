use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow::datatypes::{DataType, FieldRef, Schema};
use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord, Trim};
use millstream_codec::{MAX_VALUE_BYTES, cell_json};
use millstream_core::{Error, Result};
use serde_json::Value as Json;

use super::{bad_line, stop};

/// The lines of a CSV file as JSON objects, their fields in the order of the columns.
pub(super) struct Lines<R> {
    reader: Reader<Bounded<R>>,
    /// Bytes read since the last line; see [`Bounded`].
    unfinished_bytes: Arc<AtomicUsize>,
    path: PathBuf,
    columns: Vec<Column>,
    record: StringRecord,
}

/// What a column's cells become.
struct Column {
    /// `"name":`
    before: String,
    field: FieldRef,
    /// Is an empty cell an empty string rather than null?
    keeps_empty: bool,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R, path: &Path, schema: &Schema) -> Result<Self> {
        let unfinished_bytes = Arc::new(AtomicUsize::new(0));
        let input = Bounded { input, unfinished_bytes: unfinished_bytes.clone() };
        let mut reader = ReaderBuilder::new().trim(Trim::Headers).from_reader(input);
        let header = reader.headers().map_err(|error| stop(path, "its header can't be read").caused_by(error))?;
        let columns =
            columns(header, schema).map_err(|reason| Error::stop(format!("{}:1: {reason}", path.display())))?;
        Ok(Self { reader, unfinished_bytes, path: path.to_owned(), columns, record: StringRecord::new() })
    }

    fn object(&self) -> Vec<u8> {
        let mut object = b"{".to_vec();
        for (column, cell) in self.columns.iter().zip(&self.record) {
            if cell.is_empty() && !column.keeps_empty {
                continue;
            }
            if object.len() > 1 {
                object.push(b',');
            }
            object.extend_from_slice(column.before.as_bytes());
            object.extend_from_slice(cell_json(&column.field, cell).as_bytes());
        }
        object.push(b'}');
        object
    }

    fn failed(&self, error: csv::Error) -> Error {
        let line = error.position().map_or(0, csv::Position::line);
        match error.kind() {
            ErrorKind::UnequalLengths { expected_len, len, .. } => {
                bad_line(&self.path, line, format_args!("{len} cells, but the header names {expected_len} columns"))
            }
            ErrorKind::Utf8 { .. } => bad_line(&self.path, line, "it is not UTF-8"),
            _ => {
                let line = self.reader.position().line();
                Error::stop(format!("{}:{line}: it can't be read on from here", self.path.display())).caused_by(error)
            }
        }
    }
}

impl<R: Read> Iterator for Lines<R> {
    type Item = Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.unfinished_bytes.store(0, Ordering::Relaxed);
        match self.reader.read_record(&mut self.record) {
            Ok(false) => None,
            Ok(true) => Some(Ok((self.record.position().map_or(0, csv::Position::line), self.object()))),
            Err(error) => Some(Err(self.failed(error))),
        }
    }
}

/// The columns that a header names, or what is wrong with it.
fn columns(header: &StringRecord, schema: &Schema) -> Result<Vec<Column>, String> {
    let fields: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if header.is_empty() {
        return Err(format!("no header; the first line names the columns, of {}", fields.join(", ")));
    }
    let mut columns = Vec::new();
    for (at, name) in header.iter().enumerate() {
        let (_, field) = schema.fields().find(name).ok_or_else(|| match other_separator(header, &fields) {
            Some(separator) => format!("the columns are separated by `{separator}`; a CSV file has commas"),
            None => format!("the header's column `{name}` is not a field of the topic; it has {}", fields.join(", ")),
        })?;
        if header.iter().take(at).any(|before| before == name) {
            return Err(format!("the header names `{name}` twice"));
        }
        columns.push(Column::new(field));
    }
    let given = |field: &FieldRef| header.iter().any(|name| name == field.name());
    match schema.fields().iter().find(|field| !field.is_nullable() && !given(field)) {
        Some(field) => Err(format!("the header has no column `{}`, which the topic says is not null", field.name())),
        None => Ok(columns),
    }
}

/// What separates the names in a header that seems to have one column, if it is not a comma.
fn other_separator(header: &StringRecord, fields: &[&str]) -> Option<&'static str> {
    let only = header.get(0).filter(|_| header.len() == 1)?;
    let parts_fit = |separator: &&str| {
        let mut parts = only.split(*separator).map(|part| part.trim().trim_matches('"'));
        only.contains(*separator) && parts.any(|part| fields.contains(&part))
    };
    let separator = [";", "\t", "|"].into_iter().find(parts_fit)?;
    Some(if separator == "\t" { "tab" } else { separator })
}

impl Column {
    fn new(field: &FieldRef) -> Self {
        Self {
            before: format!("{}:", Json::from(field.name().as_str())),
            field: field.clone(),
            keeps_empty: field.data_type() == &DataType::Utf8 && !field.is_nullable(),
        }
    }
}

/// Fails when a line is longer than the longest value: a quote that is left open would take the whole file into memory.
struct Bounded<R> {
    input: R,
    unfinished_bytes: Arc<AtomicUsize>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(buffer)?;
        if self.unfinished_bytes.fetch_add(bytes, Ordering::Relaxed) > MAX_VALUE_BYTES {
            let reason = format!("a line of more than {MAX_VALUE_BYTES} bytes; is a quote left open?");
            return Err(io::Error::other(reason));
        }
        Ok(bytes)
    }
}
