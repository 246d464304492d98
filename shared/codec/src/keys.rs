use std::sync::Arc;

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use millstream_core::{Encode as _, Error, Result};

use crate::JsonEncoder;

/// Writes the values of a field as record keys: a string as it is, anything else as its JSON without quotes.
#[derive(Debug)]
pub struct Keys {
    schema: SchemaRef,
    encoder: JsonEncoder,
}

/// What the encoder writes before the value of the only field.
const BEFORE: &[u8] = b"{\"k\":";

impl Keys {
    /// For the values of this field.
    ///
    /// # Errors
    /// `Stop` for a type that has no JSON.
    pub fn new(field: &Field) -> Result<Self> {
        let schema = Arc::new(Schema::new(vec![field.clone().with_name("k").with_nullable(true)]));
        Ok(Self { schema: schema.clone(), encoder: JsonEncoder::new(schema)? })
    }

    /// The key of each row; null has no key.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn texts(&self, column: &ArrayRef) -> Result<Vec<Option<Vec<u8>>>> {
        if column.data_type() == &DataType::Utf8 {
            return Ok(column
                .as_string::<i32>()
                .iter()
                .map(|text| text.map(|text| text.as_bytes().to_vec()))
                .collect());
        }
        let rows = RecordBatch::try_new(self.schema.clone(), vec![column.clone()])
            .map_err(|error| Error::stop("internal: a key's column doesn't fit its field").caused_by(error))?;
        let objects = self.encoder.encode(&rows)?;
        Ok(objects.into_iter().enumerate().map(|(row, object)| column.is_valid(row).then(|| value(&object))).collect())
    }
}

/// The value in `{"k":VALUE}`. What is quoted here (times, dates, base64) contains no escapes.
fn value(object: &[u8]) -> Vec<u8> {
    let value = &object[BEFORE.len()..object.len() - 1];
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    unquoted.unwrap_or(value).to_vec()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn texts(column: ArrayRef) -> Vec<Option<String>> {
        let keys = Keys::new(&Field::new("any", column.data_type().clone(), true)).unwrap().texts(&column).unwrap();
        keys.into_iter().map(|key| key.map(|key| String::from_utf8(key).unwrap())).collect()
    }

    #[test]
    fn keys_are_text_whatever_their_type() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            texts(Arc::new(StringArray::from(vec![Some("a \"b\""), None, Some("")]))),
            [some("a \"b\""), None, some("")]
        );
        assert_eq!(texts(Arc::new(Int64Array::from(vec![Some(-5), None]))), [some("-5"), None]);
        let decimals = Decimal128Array::from(vec![1250]).with_precision_and_scale(18, 2).unwrap();
        assert_eq!(texts(Arc::new(decimals)), [some("12.50")]);
        let times = TimestampMicrosecondArray::from(vec![1_700_000_000_000_000]).with_timezone("UTC");
        assert_eq!(texts(Arc::new(times)), [some("2023-11-14T22:13:20Z")]);
    }
}
