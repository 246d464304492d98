use std::{fs::File, io::Read as _, path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, StringArray, StringBuilder},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use millstream_core::{Error, Result, Table};

use crate::{csv_cells::Records, type_name};

/// The largest CSV file of a reference or a fixture.
const MAX_CSV_BYTES: u64 = 256 << 20;

/// Reads a CSV file with a header line as rows of `schema`. Columns are found by name; those that the schema doesn't
/// have are left out. An empty cell is null, and two quotes (`""`) are the empty string. A null in a field that is not
/// nullable is refused.
///
/// # Errors
/// `Stop` with the file, the line and the column of a value that doesn't fit exactly: no value is rounded, and no value
/// becomes null because it can't be read.
pub fn read_csv(path: &Path, schema: &SchemaRef) -> Result<RecordBatch> {
    let text = text_of(path)?;
    let wrong = |line: usize, what: String| Error::stop(format!("{}:{line}: {what}", path.display()));
    let mut records = Records::new(&text);
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
        typed(column.finish(), field).map_err(|(row, what)| {
            let line = lines.get(row).copied().unwrap_or(1);
            wrong(line, format!("column `{}` {what}", field.name()))
        })
    };
    let arrays = columns.into_iter().zip(schema.fields()).map(typed).collect::<Result<Vec<_>>>()?;
    let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    RecordBatch::try_new(Arc::new(Schema::new(nullable.collect::<Vec<_>>())), arrays)
        .map_err(|error| Error::stop(format!("internal: the columns of {}", path.display())).caused_by(error))
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
fn typed(cells: StringArray, field: &Field) -> Result<ArrayRef, (usize, String)> {
    let data_type = field.data_type();
    if let Some(row) = (0..cells.len()).find(|row| !field.is_nullable() && cells.is_null(*row)) {
        return Err((row, "is empty, and declared `not null`".to_owned()));
    }
    if let Some(row) = cells.iter().position(|cell| cell.is_some_and(|cell| !fits_exactly(cell, data_type))) {
        return Err((row, format!("is not of type {}", type_name(data_type))));
    }
    if let DataType::Decimal128(_, scale) = data_type {
        let digits_behind =
            |cell: &str| plain_decimal(cell).is_none_or(|digits| digits > usize::from(scale.unsigned_abs()));
        let row = cells.iter().position(|cell| cell.is_some_and(digits_behind));
        if let Some(row) = row {
            return Err(match plain_decimal(cells.value(row)) {
                Some(_) => {
                    (row, format!("has more than {scale} digits after the decimal point, and values are never rounded"))
                }
                None => (row, format!("is not of type {}", type_name(data_type))),
            });
        }
    }
    let text: ArrayRef = Arc::new(cells);
    // Arrow turns a value that it can't read into null.
    let values = cast(&text, data_type)
        .map_err(|_| (0, format!("is a {}, which a CSV file can't hold", type_name(data_type))))?;
    let unread = (0..text.len()).find(|row| text.is_valid(*row) && values.is_null(*row));
    match unread {
        Some(row) => Err((row, format!("is not of type {}", type_name(data_type)))),
        None => Ok(values),
    }
}

/// Would Arrow read the cell without changing it? It makes infinity of a float that is too large, and leaves out the time of a
/// date and what is finer than a microsecond.
fn fits_exactly(cell: &str, data_type: &DataType) -> bool {
    match data_type {
        DataType::Float32 => cell.parse::<f32>().is_ok_and(f32::is_finite),
        DataType::Float64 => cell.parse::<f64>().is_ok_and(f64::is_finite),
        DataType::Date32 => cell.len() == "2026-11-21".len(),
        DataType::Timestamp(..) => {
            let fraction = cell.rsplit_once('.').map_or("", |(_, rest)| rest);
            let digits = fraction.len() - fraction.trim_start_matches(|digit: char| digit.is_ascii_digit()).len();
            fraction[..digits].trim_end_matches('0').len() <= 6
        }
        _ => true,
    }
}

/// How many digits a decimal in plain notation has after the decimal point, without zeros at the end.
fn plain_decimal(cell: &str) -> Option<usize> {
    let digits = cell.strip_prefix(['-', '+']).unwrap_or(cell);
    let (whole, behind) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    (plain(whole) && plain(behind) && whole.len() + behind.len() > 0).then(|| behind.trim_end_matches('0').len())
}

/// The columns that readers of a table see: those of the view if there is one.
pub fn schema_of(table: &Table) -> SchemaRef {
    match &table.view {
        None => table.schema(),
        Some(view) => {
            let fields = view.columns.iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true));
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray as _;
    use arrow::datatypes::{Decimal128Type, TimeUnit};

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
        assert!(error.starts_with("t.csv:2: column `n` is not of type int"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_reported_with_its_line_and_column() {
        let (int, cents) = (DataType::Int32, DataType::Decimal128(5, 2));
        for (cells, of, told) in [
            ("1\n3000000000", &int, "t.csv:3: column `n` is not of type int"),
            ("1.5", &int, "t.csv:2: column `n` is not of type int"),
            ("1\n\n1.50\n1.005", &cents, "t.csv:5: column `n` has more than 2 digits after the decimal point"),
            ("1.500\n1234.5", &cents, "t.csv:3: column `n` is not of type decimal(5,2)"),
            ("1e2", &cents, "t.csv:2: column `n` is not of type decimal(5,2)"),
            ("1\n\"2", &int, "t.csv:3: a quote is not closed"),
            ("\"2\"3", &int, "t.csv:2: there is text after a closing quote"),
            ("1,2", &int, "t.csv:2: 2 cells, but the header names 1 columns"),
        ] {
            let error = read(&format!("n\n{cells}\n"), &[("n", of.clone())]).unwrap_err();
            assert!(error.starts_with(told), "{cells:?}: {error}");
        }
        let rows = read("n\n-1.50\n+7\n.5\n999.990\n", &[("n", cents)]).unwrap();
        assert_eq!(rows.column(0).as_primitive::<Decimal128Type>().values(), &[-150, 700, 50, 99_999]);
        for (cell, of) in [
            ("1e39", DataType::Float32),
            ("1e400", DataType::Float64),
            ("NaN", DataType::Float64),
            ("inf", DataType::Float64),
            ("2024-02-03T10:00:00Z", DataType::Date32),
            ("2024-01-01T00:00:00.123456789Z", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        ] {
            let error = read(&format!("n\n{cell}\n"), &[("n", of)]).unwrap_err();
            assert!(error.starts_with("t.csv:2: column `n` is not of type"), "{error}");
        }
        let at = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let rows = read("at\n2026-11-21T10:00:00+01:00\n2026-11-21 09:00:00.000000000\n", &[("at", at)]).unwrap();
        assert_eq!(rows.column(0).slice(0, 1).to_data(), rows.column(0).slice(1, 1).to_data());
        assert!(read("m\n1\n", &[("n", int)]).unwrap_err().contains("t.csv:1: there is no column `n`"));
    }
}
