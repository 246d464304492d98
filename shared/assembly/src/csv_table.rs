use std::{path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, StringBuilder},
    compute::{CastOptions, cast_with_options},
    datatypes::{Field, Schema, SchemaRef},
};
use millstream_core::{Error, Result, Table};

/// A CSV file larger than this is no reference and no fixture.
const MAX_CSV_BYTES: u64 = 256 << 20;

/// Reads a CSV file with a header line as rows of `schema`: columns by name, an empty cell is null, columns that the
/// schema does not have are left out.
///
/// # Errors
/// `Stop` with the file and line of what doesn't fit.
pub fn read_csv(path: &Path, schema: &SchemaRef) -> Result<RecordBatch> {
    let wrong = |what: String| Error::stop(format!("{}: {what}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| wrong("can't be read".into()).caused_by(error))?.len();
    if size > MAX_CSV_BYTES {
        return Err(wrong(format!("has {size} bytes; at most {MAX_CSV_BYTES} are held in memory")));
    }
    let mut reader = csv::Reader::from_path(path).map_err(|error| wrong("can't be read".into()).caused_by(error))?;
    let header = reader.headers().map_err(|error| wrong("line 1".into()).caused_by(error))?.clone();
    let position = |field: &Arc<Field>| {
        header
            .iter()
            .position(|name| name == field.name())
            .ok_or_else(|| wrong(format!("line 1: there is no column `{}`", field.name())))
    };
    let positions = schema.fields().iter().map(position).collect::<Result<Vec<_>>>()?;
    let mut columns: Vec<StringBuilder> = positions.iter().map(|_| StringBuilder::new()).collect();
    for record in reader.records() {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        for (column, position) in columns.iter_mut().zip(&positions) {
            column.append_option(record.get(*position).filter(|cell| !cell.is_empty()));
        }
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let typed = |(mut column, field): (StringBuilder, &Arc<Field>)| {
        let text: ArrayRef = Arc::new(column.finish());
        cast_with_options(&text, field.data_type(), &strict)
            .map_err(|error| wrong(format!("column `{}` is to be {}: {error}", field.name(), field.data_type())))
    };
    let arrays = columns.into_iter().zip(schema.fields()).map(typed).collect::<Result<Vec<_>>>()?;
    let nullable =
        Schema::new(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(nullable), arrays).map_err(|error| wrong(error.to_string()))
}

/// What readers of a table see: the view's columns where there is one.
pub fn schema_of(table: &Table) -> SchemaRef {
    match &table.view {
        None => table.schema(),
        Some(view) => {
            let fields = view.columns.iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true));
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        }
    }
}
