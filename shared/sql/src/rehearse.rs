//! Runs a statement over made-up records, so that a statement that fails for every record is found before the first
//! real one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, ListArray, RecordBatch, RecordBatchOptions, StringArray, StructArray, new_null_array},
    buffer::OffsetBuffer,
    compute::cast,
    datatypes::{DataType, FieldRef, Schema},
    error::ArrowError,
};
use millstream_core::Error;

use crate::{
    error::{Result, SqlError},
    fault::at_run_time,
    run::SqlTransform,
    statement::Input,
    types,
};

/// The values of text fields, one per attempt: a correct statement may need any of these.
const TEXTS: [&str; 4] = ["1", "2024-01-02T03:04:05Z", "true", "a"];

/// Runs `transform` over one record of each topic in turn.
///
/// # Errors
/// The error, if every made-up record of a topic fails.
pub async fn rehearse(
    transform: &SqlTransform,
    inputs: &[Input],
    columns: &BTreeMap<String, BTreeSet<String>>,
) -> Result<()> {
    for input in inputs {
        let Some(read) = columns.get(&input.name) else { continue };
        let fields: Vec<FieldRef> =
            input.schema.fields().iter().filter(|field| read.contains(field.name())).cloned().collect();
        // A text that can't be null must have a value, and the statement may need one that isn't among [`TEXTS`].
        let may_be_another = fields.iter().any(|field| !field.is_nullable() && may_hold_text(field.data_type()));
        let mut told = None;
        for (number, text) in TEXTS.into_iter().map(Some).chain([None]).enumerate() {
            // Types without a made-up value are not rehearsed.
            let Ok(row) = row(&fields, number, text) else { break };
            match transform.run(&input.name, row).await {
                Ok(_) => {
                    told = None;
                    break;
                }
                Err(error) => told = Some(error),
            }
        }
        let Some(error) = told else { continue };
        if may_be_another && matches!(at_run_time(&error), Error::Poison(_)) {
            continue;
        }
        // The values in this text are made up, so they may be shown.
        let text = types::plainly(&error.strip_backtrace());
        return Err(SqlError::new(format!("this fails for every record of `{}`: {text}", input.name)));
    }
    Ok(())
}

/// Makes record `number`. Without a text, fields that may be null are null; otherwise they have ordinary values. No two
/// fields are equal, so that a division by their difference works.
fn row(fields: &[FieldRef], number: usize, text: Option<&str>) -> Result<RecordBatch, ArrowError> {
    let value = |(index, field): (usize, &FieldRef)| match text {
        None if field.is_nullable() => Ok(new_null_array(field.data_type(), 1)),
        text => ordinary(field.data_type(), text.unwrap_or("a"), 1 + number * 7 + index % 20),
    };
    let columns = fields.iter().enumerate().map(value).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields.to_vec())), columns, &options)
}

/// A value derived from `number`, which is 1 to 58.
fn ordinary(data_type: &DataType, text: &str, number: usize) -> Result<ArrayRef, ArrowError> {
    let written = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    match data_type {
        DataType::Utf8 => Ok(written(text)),
        DataType::Binary => cast(&written(text), data_type),
        DataType::Boolean => cast(&written(if number.is_multiple_of(2) { "true" } else { "false" }), data_type),
        DataType::Date32 => cast(&written(&format!("2024-{:02}-{:02}", 1 + number % 12, 1 + number % 28)), data_type),
        DataType::Timestamp(..) => cast(&written(&format!("2024-01-02T03:{number:02}:{number:02}Z")), data_type),
        DataType::List(item) => {
            let values = ordinary(item.data_type(), text, number)?;
            let offsets = OffsetBuffer::from_lengths([1]);
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, None)?))
        }
        DataType::Struct(fields) => {
            let value = |(index, field): (usize, &FieldRef)| ordinary(field.data_type(), text, number + index % 10);
            let values = fields.iter().enumerate().map(value).collect::<Result<Vec<_>, _>>()?;
            Ok(Arc::new(StructArray::try_new(fields.clone(), values, None)?))
        }
        other => {
            // If a type can't hold one of these values, it can hold another.
            let mut fitting =
                [number, number % 10, 0].into_iter().map(|number| cast(&written(&number.to_string()), other));
            let known = |column: &Result<ArrayRef, _>| column.as_ref().is_ok_and(|column| column.null_count() == 0);
            fitting.find(known).unwrap_or_else(|| Ok(new_null_array(other, 1)))
        }
    }
}

fn may_hold_text(data_type: &DataType) -> bool {
    data_type.is_nested() || matches!(data_type, DataType::Utf8 | DataType::Binary)
}
