use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, RecordBatch},
    datatypes::DataType,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use millstream_assembly::text;
use millstream_core::Error;
use serde_json::{Map, Number, Value, json};

/// The rows as JSON objects. Decimals and times are strings, which keeps them exact; bytes are base64, as in records.
pub(in crate::commands) fn objects(batch: &RecordBatch) -> Result<Vec<Value>, Error> {
    let schema = batch.schema();
    let object = |row| {
        let fields = schema.fields().iter().zip(batch.columns());
        let fields = fields.map(|(field, column)| Ok((field.name().clone(), value(column, row)?)));
        Ok(Value::Object(fields.collect::<Result<Map<_, _>, Error>>()?))
    };
    (0..batch.num_rows()).map(object).collect()
}

/// A value as JSON.
fn value(column: &ArrayRef, row: usize) -> Result<Value, Error> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    let list = |items: ArrayRef| (0..items.len()).map(|item| value(&items, item)).collect::<Result<Vec<_>, _>>();
    Ok(match column.data_type() {
        DataType::List(_) => Value::Array(list(column.as_list::<i32>().value(row))?),
        DataType::LargeList(_) => Value::Array(list(column.as_list::<i64>().value(row))?),
        DataType::FixedSizeList(..) => Value::Array(list(column.as_fixed_size_list().value(row))?),
        DataType::Struct(fields) => {
            let fields = fields.iter().zip(column.as_struct().columns());
            let fields = fields.map(|(field, column)| Ok((field.name().clone(), value(column, row)?)));
            Value::Object(fields.collect::<Result<Map<_, _>, Error>>()?)
        }
        DataType::Binary => json!(STANDARD.encode(column.as_binary::<i32>().value(row))),
        data_type => scalar(data_type, text(column, row)?),
    })
}

fn scalar(data_type: &DataType, text: String) -> Value {
    // The shortest text of a float is the same number when it is read exactly. NaN and the infinities are no JSON numbers.
    let float = || text.parse().ok().and_then(Number::from_f64).map(Value::Number);
    let whole = || text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok();
    let bare = match data_type {
        DataType::Boolean => Some(Value::Bool(text == "true")),
        of if of.is_floating() => float(),
        of if of.is_integer() => whole(),
        _ => None,
    };
    bare.unwrap_or_else(|| json!(text))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{BinaryArray, Float32Array, Float64Array, ListArray, StringArray, StructArray, UInt64Array},
        buffer::OffsetBuffer,
        datatypes::Field,
    };

    use super::*;

    fn shown(column: ArrayRef) -> Vec<String> {
        (0..column.len()).map(|row| value(&column, row).unwrap().to_string()).collect()
    }

    #[test]
    fn numbers_are_exact() {
        let doubles = [907_492.120_757_003_1, 1e-45, 0.1, f64::MAX, f64::NAN];
        let read = shown(Arc::new(Float64Array::from(doubles.to_vec())));
        for (text, double) in read.iter().zip(doubles).take(4) {
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), double.to_bits(), "{text}");
        }
        assert_eq!(read[4], "\"NaN\"");
        assert_eq!(shown(Arc::new(Float32Array::from(vec![1e-45, 0.1]))), ["1e-45", "0.1"]);
        assert_eq!(shown(Arc::new(UInt64Array::from(vec![u64::MAX]))), ["18446744073709551615"]);
    }

    #[test]
    fn what_is_nested_is_json() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("null"), None, Some("a, b"), Some("a"), Some("b")]));
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        let lists = ListArray::new(item.clone(), OffsetBuffer::from_lengths([1, 1, 1, 2]), texts.clone(), None);
        assert_eq!(shown(Arc::new(lists)), [r#"["null"]"#, "[null]", r#"["a, b"]"#, r#"["a","b"]"#]);
        let object = StructArray::from(vec![(item, texts)]);
        assert_eq!(shown(Arc::new(object))[..2], [r#"{"item":"null"}"#, r#"{"item":null}"#]);
        assert_eq!(shown(Arc::new(BinaryArray::from_vec(vec![b"hi"]))), [r#""aGk=""#]);
    }
}
