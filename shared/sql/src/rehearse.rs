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
use datafusion::common::DataFusionError;
use millstream_core::Error;

use crate::{
    error::{Result, SqlError},
    fault::at_run_time,
    run::SqlTransform,
    statement::Input,
    types,
};

/// The values of text fields: a correct statement may need any of these. It may need another, so there is an attempt
/// without a text too.
const TEXTS: [Option<&str>; 5] = [Some("1"), Some("2024-01-02T03:04:05Z"), Some("true"), Some("a"), None];
/// What numbers are multiplied by, and what is then added: a correct statement may need large ones, negative ones, dates
/// written as numbers (20240102), or seconds or milliseconds since 1970.
const SCALES: [(i64, i64); 7] =
    [(1, 0), (1_000, 0), (1_000_000, 0), (-1, 0), (1, 20_240_100), (1, 1_704_067_200), (1_000, 1_704_067_200_000)];

/// Runs `transform` over one record of each topic in turn.
///
/// # Errors
/// The error, if every made-up record of a topic fails. Only texts are null in these records: a statement that passes
/// when a number is null alone fails for every real record.
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
        let Some(error) = find_failure(transform, &input.name, &fields).await else { continue };
        if may_be_another && matches!(at_run_time(&error), Error::Poison(_)) {
            continue;
        }
        // The values in this text are made up, so they may be shown.
        let text = types::plainly(&error.strip_backtrace());
        return Err(SqlError::new(format!("this fails for every record of `{}`: {text}", input.name)));
    }
    Ok(())
}

/// The error, if every made-up record fails.
async fn find_failure(transform: &SqlTransform, topic: &str, fields: &[FieldRef]) -> Option<DataFusionError> {
    let mut told = None;
    for scale in SCALES {
        for (number, text) in TEXTS.into_iter().enumerate() {
            // Types without a made-up value are not rehearsed.
            let row = row(fields, number as i64, scale, text).ok()?;
            match transform.run(topic, row).await {
                // Numbers of unusual size say nothing when WHERE drops them, nor do the errors that they bring about.
                Ok(rows) if scale == SCALES[0] || rows.iter().any(|batch| batch.num_rows() > 0) => return None,
                Err(error) if scale == SCALES[0] => told = Some(error),
                _ => {}
            }
        }
    }
    told
}

/// Makes record `number`. Without a text, fields that may hold one are null if they can be; all others have ordinary
/// values. No two fields are equal, so that a division by their difference works.
fn row(fields: &[FieldRef], number: i64, scale: (i64, i64), text: Option<&str>) -> Result<RecordBatch, ArrowError> {
    let value = |(index, field): (usize, &FieldRef)| match text {
        None if field.is_nullable() && may_hold_text(field.data_type()) => Ok(new_null_array(field.data_type(), 1)),
        text => {
            let numbers = Numbers { number: 1 + number * 7 + index as i64 % 20, scale };
            numbers.ordinary(field.data_type(), text.unwrap_or("a"))
        }
    };
    let columns = fields.iter().enumerate().map(value).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields.to_vec())), columns, &options)
}

/// What values are made from: `number` is 1 to 58, `scale` one of [`SCALES`].
#[derive(Clone, Copy)]
struct Numbers {
    number: i64,
    scale: (i64, i64),
}

impl Numbers {
    fn ordinary(self, data_type: &DataType, text: &str) -> Result<ArrayRef, ArrowError> {
        let written = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let number = self.number;
        match data_type {
            DataType::Utf8 => Ok(written(text)),
            DataType::Binary => cast(&written(text), data_type),
            DataType::Boolean => cast(&written(if number % 2 == 0 { "true" } else { "false" }), data_type),
            DataType::Date32 => {
                cast(&written(&format!("2024-{:02}-{:02}", 1 + number % 12, 1 + number % 28)), data_type)
            }
            DataType::Timestamp(..) => cast(&written(&format!("2024-01-02T03:{number:02}:{number:02}Z")), data_type),
            DataType::List(item) => {
                let values = self.ordinary(item.data_type(), text)?;
                let offsets = OffsetBuffer::from_lengths([1]);
                Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, None)?))
            }
            DataType::Struct(fields) => {
                let value = |(index, field): (usize, &FieldRef)| {
                    Self { number: number + index as i64 % 10, ..self }.ordinary(field.data_type(), text)
                };
                let values = fields.iter().enumerate().map(value).collect::<Result<Vec<_>, _>>()?;
                Ok(Arc::new(StructArray::try_new(fields.clone(), values, None)?))
            }
            other => {
                // If a type can't hold one of these values, it can hold another.
                let (factor, more) = self.scale;
                let mut fitting = [number * factor + more, number, number % 10, 0]
                    .into_iter()
                    .map(|number| cast(&written(&number.to_string()), other));
                let known = |column: &Result<ArrayRef, _>| column.as_ref().is_ok_and(|column| column.null_count() == 0);
                fitting.find(known).unwrap_or_else(|| Ok(new_null_array(other, 1)))
            }
        }
    }
}

fn may_hold_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => may_hold_text(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| may_hold_text(field.data_type())),
        other => other.is_nested() || matches!(other, DataType::Utf8 | DataType::Binary),
    }
}
