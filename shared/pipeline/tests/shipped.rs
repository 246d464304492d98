//! The pipelines that ship are read as they are meant.

use std::path::Path;

use arrow::datatypes::DataType;
use millstream_core::EPOCH_METADATA;
use millstream_pipeline::{Batch, Compression, Generator, OnGap, Pipeline, Start, System, Tombstones, Uses};

fn load(name: &str) -> Pipeline {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines").join(name);
    Pipeline::load(&folder).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
}

#[test]
fn bank() {
    let bank = load("bank");
    let topic = &bank.topics["transaction"];
    assert_eq!((topic.partitions, topic.generation, topic.compression), (3, 1, Compression::Gzip));
    assert_eq!((topic.event_time.as_deref(), topic.tombstones), (Some("at"), Tombstones::DeadLetter));
    let names: Vec<&str> = topic.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["branch", "currency", "amount", "at"]);
    assert_eq!(topic.schema.field(2).data_type(), &DataType::Decimal128(18, 2));

    let making = bank.functions["generate"].making().unwrap();
    let generate = making.generate().unwrap();
    assert_eq!((generate.rate_per_s, generate.every_ms, &generate.for_each), (100.0, None, &None));
    assert_eq!(generate.fields[2], ("amount".into(), Generator::Decimal { min: 1, max: 1_000_000, scale: 2 }));
    assert_eq!(generate.fields[3], ("at".into(), Generator::Now));
    assert_eq!(making.key.as_deref(), Some("branch"));

    let flow = &bank.functions["flow"];
    let reading = flow.reading().unwrap();
    assert_eq!((flow.uses, reading.from.len()), (Uses::Aggregate, 1));
    assert_eq!((reading.from[0].system, reading.from[0].to_string()), (System::Topic, "topic.transaction".into()));
    assert_eq!((flow.into.system, flow.into.to_string()), (System::Postgres, "postgres.transaction_flow".into()));
    assert_eq!((reading.start, reading.on_gap, reading.lateness_ms), (Start::Earliest, OnGap::Heal, None));
    assert_eq!(reading.ahead_ms, Some(86_400_000));
    assert_eq!(reading.batch, Batch { max_records: 32_000, max_bytes: 16 << 20, max_wait_ms: 100 });
    let sql = &reading.sql;
    let file = std::fs::read_to_string(bank.path("pipeline.yaml".as_ref())).unwrap();
    let line = file.lines().nth(sql.line - 1).unwrap();
    assert_eq!(&line[sql.column - 1..], sql.text.lines().next().unwrap());

    let archive = &bank.functions["archive"];
    let reading = archive.reading().unwrap();
    assert_eq!((archive.into.system, reading.sql.is_default, reading.ahead_ms), (System::Lake, true, None));
    assert_eq!(reading.sql.text, "SELECT *, _partition, _offset, _timestamp FROM \"transaction\"");
    assert_eq!(reading.batch, Batch { max_records: 100_000, max_bytes: 32 << 20, max_wait_ms: 10_000 });
    assert_eq!(bank.tests.len(), 1);
}

#[test]
fn stocks() {
    let stocks = load("stocks");
    let at = stocks.topics["price"].schema.field_with_name("at").unwrap();
    assert_eq!(at.metadata().get(EPOCH_METADATA).map(String::as_str), Some("ms"));
    let generate = stocks.functions["quotes"].making().unwrap().generate().unwrap();
    assert_eq!((generate.every_ms, generate.for_each.as_deref()), (Some(10_000), Some("symbol")));
    assert!((generate.rate_per_s - 0.6).abs() < 1e-9, "six symbols every ten seconds");
    let walk = Generator::Walk { start: 1_000_000, step: 7_500, min: 10_000, scale: 4 };
    assert_eq!(generate.fields[1], ("price".into(), walk));
    assert_eq!(stocks.tests.len(), 2);
}
