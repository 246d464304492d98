//! Lists, structs and maps as JSON. arrow-json knows only records, so a value is in one of its own.

use std::sync::Arc;

use arrow::{
    array::{Array as _, ArrayRef, RecordBatch, new_null_array},
    compute::concat,
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
};
use arrow_json::{
    ReaderBuilder, WriterBuilder,
    writer::{LineDelimited, Writer},
};

use crate::text::Text;

const BEFORE: &str = r#"{"v":"#;
const AFTER: &str = "}";

pub(crate) fn encode(column: &ArrayRef) -> Result<Vec<Text>, ArrowError> {
    let rows = RecordBatch::try_from_iter_with_nullable([("v", column.clone(), true)])?;
    let mut writer: Writer<_, LineDelimited> = WriterBuilder::new().with_explicit_nulls(true).build(Vec::new());
    writer.write(&rows)?;
    writer.finish()?;
    let lines = String::from_utf8(writer.into_inner()).map_err(|error| ArrowError::JsonError(error.to_string()))?;
    // JSON has no line break inside a string: one line is one row.
    let value = |(row, line): (usize, &str)| match line.strip_prefix(BEFORE).and_then(|line| line.strip_suffix(AFTER)) {
        Some(json) if column.is_valid(row) => Some(json.into()),
        _ => None,
    };
    Ok(lines.lines().enumerate().map(value).collect())
}

/// Null where a text can't be read.
pub(crate) fn decode(texts: &[Option<&str>], data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    if let Ok(column) = decode_all(texts, data_type) {
        return Ok(column);
    }
    let one = |text| decode_all(&[text], data_type).unwrap_or_else(|_| new_null_array(data_type, 1));
    let columns: Vec<_> = texts.iter().map(|text| one(*text)).collect();
    concat(&columns.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

fn decode_all(texts: &[Option<&str>], data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    if texts.is_empty() {
        return Ok(new_null_array(data_type, 0));
    }
    let schema = Arc::new(Schema::new(vec![Field::new("v", data_type.clone(), true)]));
    let mut decoder = ReaderBuilder::new(schema).with_batch_size(texts.len()).build_decoder()?;
    for text in texts {
        decoder.decode(format!("{BEFORE}{}{AFTER}\n", text.unwrap_or("null")).as_bytes())?;
    }
    let rows = decoder.flush()?.filter(|rows| rows.num_rows() == texts.len());
    rows.map(|rows| rows.column(0).clone()).ok_or_else(|| ArrowError::JsonError("a value is cut short".into()))
}
