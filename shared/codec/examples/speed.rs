//! Measures how fast transactions are decoded on one core: `cargo run --release -p millstream-codec --example speed`.
//! The second line of output is for one bad record in a thousand.

use std::{sync::Arc, time::Instant};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use millstream_codec::{JsonDecoder, JsonOptions, Tombstones};
use millstream_core::{Batch, BatchBuilder, Decode, Result, TopicPartition};

const BATCH: usize = 20_000;
const ROUNDS: usize = if cfg!(debug_assertions) { 5 } else { 250 };

fn main() -> Result<()> {
    let schema = Schema::new(vec![
        Field::new("branch", DataType::Utf8, false),
        Field::new("currency", DataType::Utf8, false),
        Field::new("amount", DataType::Decimal128(18, 2), false),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ]);
    let decoder = JsonDecoder::new(JsonOptions {
        schema: Arc::new(schema),
        columns: None,
        event_time: Some("at".into()),
        tombstones: Tombstones::DeadLetter,
    })?;
    measure(&decoder, &transactions(usize::MAX))?;
    measure(&decoder, &transactions(1000))
}

/// A batch of transactions; every `bad_every`-th one is cut off.
fn transactions(bad_every: usize) -> Batch {
    let mut builder = BatchBuilder::new(TopicPartition::new("transaction", 1, 0));
    for number in 0..BATCH {
        let (branch, cents, second) = (number % 100, number * 37 % 100_000, number / 100 % 60);
        let at = format!("2026-11-21T10:00:{second:02}Z");
        let value = format!(
            r#"{{"branch":"branch-{branch:02}","currency":"EUR","amount":{}.{:02},"at":"{at}"}}"#,
            cents / 100,
            cents % 100
        );
        let len = if number % bad_every == bad_every - 1 { value.len() / 2 } else { value.len() };
        builder.push(number as i64, 0, None, Some(&value.as_bytes()[..len]), []);
    }
    builder.finish_read(0, BATCH as i64)
}

#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn measure(decoder: &JsonDecoder, batch: &Batch) -> Result<()> {
    let started = Instant::now();
    let (mut rows, mut bad) = (0, 0);
    for _ in 0..ROUNDS {
        let decoded = decoder.decode(batch)?;
        rows += decoded.rows.num_rows();
        bad += decoded.bad.len();
    }
    let seconds = started.elapsed().as_secs_f64();
    let (records, bytes) = (rows + bad, batch.bytes() * ROUNDS);
    println!(
        "{:.2} M records/s, {:.0} MB/s ({rows} good, {bad} bad, {} bytes each)",
        records as f64 / seconds / 1e6,
        bytes as f64 / seconds / 1e6,
        bytes / records
    );
    Ok(())
}
