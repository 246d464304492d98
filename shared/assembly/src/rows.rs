//! Rows as text for people.

use std::hash::{DefaultHasher, Hasher as _};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::DataType,
    util::display::{ArrayFormatter, FormatOptions},
};
use millstream_core::{Error, Result};
use millstream_sql::{Precision, WholeColumn};

/// Longer binary values are shown as their length and a hash: a sketch has thousands of bytes.
const SHOWN_BYTES: usize = 32;

/// A row as text: its key columns, and the others. Text is quoted, so that different rows never look the same.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The key columns, `name=value`; empty for a table without keys.
    pub(crate) key: String,
    /// The others, each with its place in the table.
    cells: Vec<(usize, String)>,
}

impl Line {
    /// The non-key columns that differ, of this row and of another one of the same table. Those at the places in `close`
    /// differ by no more than rounding.
    pub(crate) fn differing(&self, other: &Self, close: &[usize]) -> (String, String) {
        let differ = self.cells.iter().zip(&other.cells).filter(|(here, there)| here != there);
        let (close, far): (Vec<_>, Vec<_>) = differ.partition(|((at, _), _)| close.contains(at));
        let named = if far.is_empty() { close } else { far };
        let named = named.into_iter().map(|((_, here), (_, there))| (here.as_str(), there.as_str()));
        let (here, there): (Vec<&str>, Vec<&str>) = named.unzip();
        (here.join(", "), there.join(", "))
    }

    /// All columns.
    pub(crate) fn all(&self) -> String {
        let cells = self.cells.iter().map(|(_, cell)| cell.as_str()).collect::<Vec<_>>().join(", ");
        match (self.key.is_empty(), cells.is_empty()) {
            (true, _) => cells,
            (false, true) => self.key.clone(),
            (false, false) => format!("{}, {cells}", self.key),
        }
    }
}

/// One row of a table. Timestamps are RFC 3339, text is in single quotes, short bytes are hexadecimal, null is `NULL`.
///
/// # Errors
/// `Stop` for a type without a text form.
pub(crate) fn shown(columns: &[WholeColumn], batch: &RecordBatch, row: usize) -> Result<Line> {
    shown_with(columns, batch, row, &[])
}

/// The same with these texts in the columns at these places.
///
/// # Errors
/// Those of [`shown`].
pub(crate) fn shown_with(
    columns: &[WholeColumn],
    batch: &RecordBatch,
    row: usize,
    texts: &[(usize, String)],
) -> Result<Line> {
    let (mut key, mut cells) = (Vec::new(), Vec::new());
    for (at, (column, values)) in columns.iter().zip(batch.columns()).enumerate() {
        let text = texts.iter().find(|(place, _)| *place == at).map(|(_, text)| text.clone());
        let text = text.map_or_else(|| cell(values, row), Ok)?;
        let cell = format!("{}={text}", column.name);
        if column.precision == Precision::Key { key.push(cell) } else { cells.push((at, cell)) }
    }
    Ok(Line { key: key.join(", "), cells })
}

fn cell(values: &ArrayRef, row: usize) -> Result<String> {
    if values.is_null(row) {
        return Ok("NULL".to_owned());
    }
    let long = |bytes: &[u8]| {
        let mut hash = DefaultHasher::new();
        hash.write(bytes);
        format!("{} bytes #{:08x}", bytes.len(), hash.finish() as u32)
    };
    match values.data_type() {
        DataType::Utf8 => Ok(format!("'{}'", values.as_string::<i32>().value(row).replace('\'', "''"))),
        DataType::Binary if values.as_binary::<i32>().value(row).len() > SHOWN_BYTES => {
            Ok(long(values.as_binary::<i32>().value(row)))
        }
        _ => {
            let no_text = |error| Error::stop("a column can't be shown").caused_by(error);
            let options = FormatOptions::default().with_null("NULL");
            let formatter = ArrayFormatter::try_new(values.as_ref(), &options).map_err(no_text)?;
            formatter.value(row).try_to_string().map_err(no_text)
        }
    }
}

/// A value as text.
///
/// # Errors
/// `Stop` for a type without a text form.
pub fn text(column: &ArrayRef, row: usize) -> Result<String> {
    let no_text = |error| Error::stop("a column can't be shown").caused_by(error);
    let options = FormatOptions::default().with_null("null");
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options).map_err(no_text)?;
    formatter.value(row).try_to_string().map_err(no_text)
}

/// Every value as text, by column.
///
/// # Errors
/// `Stop` for a type without a text form.
pub fn texts(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::default().with_null("null");
    let column = |column: &ArrayRef| {
        let no_text = |error| Error::stop("a column can't be shown").caused_by(error);
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options).map_err(no_text)?;
        (0..column.len()).map(|row| formatter.value(row).try_to_string().map_err(no_text)).collect::<Result<Vec<_>>>()
    };
    batch.columns().iter().map(column).collect()
}
