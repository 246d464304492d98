//! How many records a second one thread makes: `cargo run --release -p millstream-ingest --example rate`.

use millstream_core::{Clock as _, Error, Result, SystemClock};
use millstream_ingest::Events;
use millstream_pipeline::Pipeline;

const PIPELINE: &str = r#"
name: bank
topics:
  transaction:
    partitions: 3
    schema: { branch: string not null, currency: string not null, amount: "decimal(18,2) not null", at: timestamp not null }
    event_time: at
functions:
  make:
    uses: ingest
    generate:
      rate_per_s: 1000000
      fields:
        branch: { one_of: [Amsterdam, Bruges, Geneva, Lisbon, Oslo, Prague, Vienna, Zurich] }
        currency: { one_of: [EUR, USD, GBP, CHF, NOK] }
        amount: { decimal: { min: 0.01, max: 10000 } }
        at: now
    key: branch
    into: topic.transaction
"#;

/// Records of one call: what 20 ms need at 1,000,000 a second.
const PORTION: usize = 20_000;
const PORTIONS: usize = 50;

fn main() -> Result<()> {
    let pipeline = Pipeline::parse(PIPELINE, "pipeline.yaml".as_ref())
        .map_err(|mistakes| Error::stop(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    let mut events = Events::new(&pipeline.topics["transaction"], &pipeline.functions["make"], 1)?;
    let began_us = SystemClock.now_us();
    let mut bytes = 0;
    for _ in 0..PORTIONS {
        let records = events.next(PORTION, SystemClock.now_us())?;
        bytes += records.iter().filter_map(|record| record.value.as_ref()).map(Vec::len).sum::<usize>();
    }
    let seconds = (SystemClock.now_us() - began_us) as f64 / 1e6;
    let records = (PORTION * PORTIONS) as f64;
    println!("{:.0} records/s of {:.0} bytes", records / seconds, bytes as f64 / records);
    Ok(())
}
