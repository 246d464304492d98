use std::{fs::File, io::Read as _, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, StringBuilder},
    datatypes::{Field, Schema, SchemaRef},
};
use millstream_codec::decode_cells;
use millstream_core::{Error, Result, Role, Table};

use crate::csv_cells::Records;

/// The largest CSV file of a reference or a fixture.
const MAX_CSV_BYTES: u64 = 256 << 20;

/// Reads a CSV file with a header line as rows of `schema`. Columns are found by name; those that the schema doesn't
/// have are left out. An empty cell is null, and two quotes (`""`) are the empty string. A null in a field that is not
/// nullable is refused. Values are spelled as in a topic's records: the rules are those of `millstream-codec`.
///
/// # Errors
/// `Stop` with the file, the line and the column of a value that the column can't hold: no value becomes null because it
/// can't be read.
pub fn read_csv(path: &Path, schema: &SchemaRef) -> Result<RecordBatch> {
    rows_of(&path.display().to_string(), &text_of(path)?, schema)
}

/// The same for the bytes of a file that is called `name`.
///
/// # Errors
/// `Stop`, also for what is not UTF-8.
pub(crate) fn read_csv_bytes(name: &str, bytes: Vec<u8>, schema: &SchemaRef) -> Result<RecordBatch> {
    let text = String::from_utf8(bytes).map_err(|_| Error::stop(format!("{name}: it is not UTF-8 text")))?;
    rows_of(name, &text, schema)
}

fn rows_of(name: &str, text: &str, schema: &SchemaRef) -> Result<RecordBatch> {
    let wrong = |line: usize, what: String| Error::stop(format!("{name}:{line}: {what}"));
    let mut records = Records::new(text);
    let header = header_of(&mut records).map_err(|(line, what)| wrong(line, what))?;
    let position = |field: &Arc<Field>| {
        let found = header.iter().position(|name| name == field.name());
        found.ok_or_else(|| wrong(1, format!("there is no column `{}`", field.name())))
    };
    let positions = schema.fields().iter().map(position).collect::<Result<Vec<_>>>()?;
    let mut columns: Vec<StringBuilder> = positions.iter().map(|_| StringBuilder::new()).collect();
    let mut lines = Vec::new();
    for record in records {
        let (line, cells) = record.map_err(|(line, what)| wrong(line, what.to_owned()))?;
        if cells.len() != header.len() {
            return Err(wrong(line, format!("{} cells, but the header names {} columns", cells.len(), header.len())));
        }
        lines.push(line);
        for (column, position) in columns.iter_mut().zip(&positions) {
            let cell = &cells[*position];
            column.append_option((cell.quoted || !cell.text.is_empty()).then_some(&cell.text));
        }
    }
    let typed = |(mut column, field): (StringBuilder, &Arc<Field>)| {
        typed(&column.finish(), field).map_err(|(row, what)| wrong(lines.get(row).copied().unwrap_or(1), what))
    };
    let arrays = columns.into_iter().zip(schema.fields()).map(typed).collect::<Result<Vec<_>>>()?;
    let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    RecordBatch::try_new(Arc::new(Schema::new(nullable.collect::<Vec<_>>())), arrays)
        .map_err(|error| Error::stop(format!("internal: the columns of {name}")).caused_by(error))
}

/// The names in the header of a CSV file.
///
/// # Errors
/// `Stop` if the file can't be read.
pub(crate) fn csv_header(path: &Path) -> Result<Vec<String>> {
    let header = header_of(&mut Records::new(&text_of(path)?));
    header.map_err(|(line, what)| Error::stop(format!("{}:{line}: {what}", path.display())))
}

fn text_of(path: &Path) -> Result<String> {
    let wrong = |what: String| Error::stop(format!("{}: {what}", path.display()));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_CSV_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| wrong("it can't be read".into()).caused_by(error))?;
    if bytes.len() as u64 > MAX_CSV_BYTES {
        return Err(wrong(format!(
            "it has more than {MAX_CSV_BYTES} bytes, the limit for a file that is held in memory"
        )));
    }
    String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8 text".into()))
}

fn header_of(records: &mut Records<'_>) -> Result<Vec<String>, (usize, String)> {
    match records.next() {
        Some(Ok((_, cells))) => Ok(cells.into_iter().map(|cell| cell.text.into_owned()).collect()),
        Some(Err((line, what))) => Err((line, what.to_owned())),
        None => Err((1, "there is no header: the first line names the columns".to_owned())),
    }
}

/// The cells as values of a field, or the row that doesn't fit.
fn typed(cells: &StringArray, field: &Arc<Field>) -> Result<ArrayRef, (usize, String)> {
    match cells.iter().position(|cell| cell.is_none() && !field.is_nullable()) {
        Some(row) => Err((row, format!("field `{}`: is empty, and declared `not null`", field.name()))),
        None => decode_cells(field, cells.iter()),
    }
}

/// The columns that readers of a table see: those of the view if there is one.
pub fn schema_of(table: &Table) -> SchemaRef {
    match &table.view {
        None => {
            let shown = table.columns.iter().filter(|column| column.role != Role::Carried);
            let fields = shown.map(|column| Field::new(&column.name, column.data_type.clone(), column.nullable));
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        }
        Some(view) => {
            let fields = view.columns.iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true));
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray as _;
    use arrow::datatypes::{DataType, Decimal128Type, TimeUnit};

    use super::*;

    fn read(text: &str, fields: &[(&str, DataType)]) -> Result<RecordBatch, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        let fields = fields.iter().map(|(name, of)| Field::new(*name, of.clone(), true));
        let rows = read_csv(&path, &Arc::new(Schema::new(fields.collect::<Vec<_>>())));
        rows.map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn an_empty_cell_is_null_and_a_quoted_one_is_the_empty_string() {
        let rows =
            read("name,n\n,1\n\"\",2\n\"a \"\"b\"\"\nc\",3\r\n\n\"x,y\",4", &[("name", DataType::Utf8)]).unwrap();
        let names: Vec<Option<&str>> = rows.column(0).as_string::<i32>().iter().collect();
        assert_eq!(names, [None, Some(""), Some("a \"b\"\nc"), Some("x,y")]);
        let error = read("n\n\"\"\n", &[("n", DataType::Int32)]).unwrap_err();
        assert!(error.starts_with("t.csv:2: field `n`: expected int, found a string"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_reported_with_its_line_and_column() {
        let (int, cents) = (DataType::Int32, DataType::Decimal128(5, 2));
        for (cells, of, told) in [
            ("1\n3000000000", &int, "t.csv:3: field `n`: expected int, found a number out of its range"),
            ("1.5", &int, "t.csv:2: field `n`: expected int, found a number with a fraction"),
            ("1\n\n1.50\n1.005", &cents, "t.csv:5: field `n`: more than 2 decimals"),
            ("1.500\n1234.5", &cents, "t.csv:3: field `n`: expected decimal(5,2), found a number out of its range"),
            ("+1", &cents, "t.csv:2: field `n`: expected decimal(5,2), found a string that is not a number"),
            ("1\n\"2", &int, "t.csv:3: a quote is not closed"),
            ("\"2\"3", &int, "t.csv:2: there is text after a closing quote"),
            ("1,2", &int, "t.csv:2: 2 cells, but the header names 1 columns"),
        ] {
            let error = read(&format!("n\n{cells}\n"), &[("n", of.clone())]).unwrap_err();
            assert!(error.starts_with(told), "{cells:?}: {error}");
        }
        let rows = read("n\n-1.50\n7\n5e-1\n999.990\n", &[("n", cents)]).unwrap();
        assert_eq!(rows.column(0).as_primitive::<Decimal128Type>().values(), &[-150, 700, 50, 99_999]);
        for (cell, of) in [
            ("1e39", DataType::Float32),
            ("1e400", DataType::Float64),
            ("NaN", DataType::Float64),
            ("inf", DataType::Float64),
            ("2024-02-03T10:00:00Z", DataType::Date32),
        ] {
            let error = read(&format!("n\n{cell}\n"), &[("n", of)]).unwrap_err();
            assert!(error.starts_with("t.csv:2: field `n`: expected "), "{error}");
        }
        let at = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let rows = read("at\n2026-11-21T10:00:00+01:00\n2026-11-21 09:00:00.000000000\n", &[("at", at)]).unwrap();
        assert_eq!(rows.column(0).slice(0, 1).to_data(), rows.column(0).slice(1, 1).to_data());
        assert!(read("m\n1\n", &[("n", int)]).unwrap_err().contains("t.csv:1: there is no column `n`"));
    }
}
