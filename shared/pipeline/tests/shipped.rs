//! The pipelines that ship are read as they are meant.

use std::path::Path;

use arrow::datatypes::DataType;
use millstream_pipeline::{
    Batch, Compression, EPOCH_METADATA, Generator, Late, OnGap, Pipeline, Start, System, Tombstones, Uses,
};

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

    let generate = bank.functions["generate"].generate.as_ref().unwrap();
    assert_eq!((generate.rate_per_s, generate.every_ms, &generate.for_each), (100.0, None, &None));
    assert_eq!(generate.fields[2], ("amount".into(), Generator::Decimal { min: 1, max: 1_000_000, scale: 2 }));
    assert_eq!(generate.fields[3], ("at".into(), Generator::Now));
    assert_eq!(bank.functions["generate"].key.as_deref(), Some("branch"));

    let flow = &bank.functions["flow"];
    assert_eq!((flow.uses, flow.from.as_slice()), (Uses::Aggregate, ["transaction".to_owned()].as_slice()));
    assert_eq!((flow.into.system, flow.into.to_string()), (System::Postgres, "postgres.transaction_flow".into()));
    assert_eq!((flow.start, flow.on_gap, flow.late, flow.lateness_ms), (Start::Earliest, OnGap::Heal, Late::Merge, 0));
    assert_eq!((flow.ahead_ms, bank.functions["archive"].ahead_ms), (Some(86_400_000), None));
    assert_eq!(flow.batch, Batch { max_records: 32_000, max_bytes: 16 << 20, max_wait_ms: 100 });
    let sql = flow.sql.as_ref().unwrap();
    let file = std::fs::read_to_string(bank.path("pipeline.yaml".as_ref())).unwrap();
    let line = file.lines().nth(sql.line - 1).unwrap();
    assert_eq!(&line[sql.column - 1..], sql.value.lines().next().unwrap());

    let archive = &bank.functions["archive"];
    assert_eq!((archive.into.system, archive.sql.as_ref()), (System::Lake, None));
    assert_eq!(archive.batch, Batch { max_records: 100_000, max_bytes: 32 << 20, max_wait_ms: 10_000 });
    assert_eq!(bank.tests.len(), 1);
}

#[test]
fn stocks() {
    let stocks = load("stocks");
    let at = stocks.topics["price"].schema.field_with_name("at").unwrap();
    assert_eq!(at.metadata().get(EPOCH_METADATA).map(String::as_str), Some("ms"));
    let generate = stocks.functions["quotes"].generate.as_ref().unwrap();
    assert_eq!((generate.every_ms, generate.for_each.as_deref()), (Some(10_000), Some("symbol")));
    assert!((generate.rate_per_s - 0.6).abs() < 1e-9, "six symbols every ten seconds");
    let walk = Generator::Walk { start: 1_000_000, step: 7_500, min: 10_000, scale: 4 };
    assert_eq!(generate.fields[1], ("price".into(), walk));
    assert_eq!(stocks.tests.len(), 2);
}
