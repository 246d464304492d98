//! Decoding through the public interface.

mod columns;
mod records;
mod round_trip;
mod splits;
mod values;

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{
        DataType, Decimal128Type, Field, Float32Type, Float64Type, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit,
        TimestampMicrosecondType,
    },
};
use millstream_core::{
    Batch, BatchBuilder, Decode, Decoded, EPOCH_METADATA, Error, META_COLUMNS, TopicPartition, timestamp_type,
};
use proptest::prelude::*;

use crate::*;

fn epoch(name: &str, unit: &str) -> Field {
    Field::new(name, timestamp_type(), true)
        .with_metadata(HashMap::from([(EPOCH_METADATA.to_owned(), unit.to_owned())]))
}

fn schema() -> SchemaRef {
    let price = vec![Field::new("value", DataType::Decimal128(9, 3), false), epoch("at", "ms")];
    let line = vec![
        Field::new("sku", DataType::Utf8, false),
        Field::new("prices", DataType::new_list(DataType::Struct(price.into()), false), true),
    ];
    Arc::new(Schema::new(vec![
        Field::new("branch", DataType::Utf8, false),
        Field::new("amount", DataType::Decimal128(18, 2), true),
        Field::new("at", timestamp_type(), true),
        Field::new("count", DataType::Int32, true),
        Field::new("big", DataType::Int64, true),
        Field::new("rate", DataType::Float64, true),
        Field::new("small", DataType::Float32, true),
        Field::new("short", DataType::Int16, true),
        Field::new("open", DataType::Boolean, true),
        Field::new("day", DataType::Date32, true),
        Field::new("blob", DataType::Binary, true),
        epoch("seconds", "s"),
        Field::new("tags", DataType::new_list(DataType::Utf8, true), true),
        Field::new("line", DataType::Struct(line.into()), true),
    ]))
}

fn options() -> JsonOptions {
    JsonOptions { schema: schema(), columns: None, event_time: None, tombstones: Tombstones::DeadLetter }
}

fn batch(values: &[Option<&[u8]>]) -> Batch {
    let mut builder = BatchBuilder::new(TopicPartition::new("t", 1, 2));
    for (offset, value) in values.iter().enumerate() {
        builder.push(offset as i64, 1_700_000_000_000 + offset as i64, None, *value, []);
    }
    builder.finish_read(0, values.len() as i64)
}

fn decode_bytes(values: &[&[u8]]) -> Decoded {
    let values: Vec<_> = values.iter().map(|value| Some(*value)).collect();
    JsonDecoder::new(options()).unwrap().decode(&batch(&values)).unwrap()
}

fn decode(values: &[&str]) -> Decoded {
    decode_bytes(&values.iter().map(|value| value.as_bytes()).collect::<Vec<_>>())
}

fn column<'a>(decoded: &'a Decoded, name: &str) -> &'a ArrayRef {
    decoded.rows.column_by_name(name).unwrap()
}

/// The reason why `value` is bad, between two good neighbours, which must be decoded.
fn reason(value: &[u8]) -> String {
    let decoded = decode_bytes(&[br#"{"branch":"before"}"#, value, br#"{"branch":"behind"}"#]);
    assert_eq!(decoded.index, [0, 2], "{}", String::from_utf8_lossy(value));
    let branches: Vec<_> = column(&decoded, "branch").as_string::<i32>().iter().flatten().collect();
    assert_eq!(branches, ["before", "behind"]);
    assert_eq!(decoded.bad.len(), 1);
    assert_eq!(decoded.bad[0].index, 1);
    decoded.bad[0].reason.clone()
}
