//! Lists, structs and maps as JSON text. A text and not JSON itself: the service keeps numbers as doubles, and in a text they stay exact.

use std::sync::Arc;

use arrow::{
    array::{Array as _, ArrayRef, RecordBatch},
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
};
use arrow_json::{
    ReaderBuilder,
    writer::{EncoderOptions, make_encoder},
};

/// Null where the value is.
pub(crate) fn encode(values: &ArrayRef) -> Result<Vec<Option<String>>, ArrowError> {
    let field = Arc::new(Field::new("value", values.data_type().clone(), true));
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(&field, values, &options)?;
    let mut text = |row| {
        if encoder.is_null(row) {
            return Ok(None);
        }
        let mut text = Vec::new();
        encoder.encode(row, &mut text);
        String::from_utf8(text).map(Some).map_err(|error| ArrowError::JsonError(error.to_string()))
    };
    (0..values.len()).map(&mut text).collect()
}

pub(crate) fn decode(texts: &[Option<String>], data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    let schema = Arc::new(Schema::new(vec![Field::new("v", data_type.clone(), true)]));
    let mut decoder = ReaderBuilder::new(schema).with_batch_size(texts.len()).build_decoder()?;
    for text in texts {
        decoder.decode(format!("{{\"v\":{}}}\n", text.as_deref().unwrap_or("null")).as_bytes())?;
    }
    let rows: Option<RecordBatch> = decoder.flush()?.filter(|rows| rows.num_rows() == texts.len());
    rows.map(|rows| rows.column(0).clone()).ok_or_else(|| ArrowError::JsonError("a value is cut short".into()))
}
