use arrow::array::{Array, AsArray};
use base64::{Engine, engine::general_purpose::STANDARD};
use millstream_core::Batch;
use serde_json::{Map, Value, json};

/// The event with which AWS's mapping for MSK hands these batches to a function: key and value in base64, header bytes
/// as signed numbers (<https://docs.aws.amazon.com/lambda/latest/dg/with-msk.html>). Several batches of one partition
/// come one after the other under its name.
pub fn kafka_event(batches: &[Batch]) -> Value {
    let mut records = Map::new();
    for batch in batches {
        let name = format!("{}-{}", batch.partition().topic, batch.partition().partition);
        let list = records.entry(name).or_insert_with(|| json!([]));
        list.as_array_mut().expect("made above").extend((0..batch.len()).map(|row| record(batch, row)));
    }
    json!({
        "eventSource": "aws:kafka",
        "eventSourceArn": "arn:aws:kafka:eu-central-1:123456789012:cluster/bank/9d2b7c1e-4c0f-4c39-8b1c-0f6ae1d3a111-3",
        "bootstrapServers": "b-1.bank.example.com:9098,b-2.bank.example.com:9098",
        "records": records,
    })
}

fn record(batch: &Batch, row: usize) -> Value {
    let base64 = |column: &arrow::array::BinaryArray| column.is_valid(row).then(|| STANDARD.encode(column.value(row)));
    let mut record = json!({
        "topic": batch.partition().topic,
        "partition": batch.partition().partition,
        "offset": batch.offsets().value(row),
        "timestamp": batch.timestamps_ms().value(row),
        "timestampType": "CREATE_TIME",
        "headers": headers(batch, row),
    });
    // A record without a key or value has no such field.
    for (name, text) in [("key", base64(batch.keys())), ("value", base64(batch.values()))] {
        if let Some(text) = text {
            record[name] = text.into();
        }
    }
    record
}

fn headers(batch: &Batch, row: usize) -> Vec<Value> {
    let Some(headers) = batch.headers() else { return Vec::new() };
    let entries = headers.value(row);
    let (names, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_binary::<i32>());
    let signed = |at: usize| values.value(at).iter().map(|byte| *byte as i8).collect::<Vec<_>>();
    (0..entries.len()).map(|at| json!({ (names.value(at)): signed(at) })).collect()
}
