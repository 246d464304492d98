//! What a function makes of a record changes between a send and its replay: a joined reference has changed, or the plan was
//! adopted. Under random schedules of crashes, lost answers, zombies and compaction, the rows of each record come out once, and
//! all as they were made at one time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow::{
    array::{ArrayRef, AsArray as _, Int64Array, RecordBatch, StringArray},
    datatypes::Int64Type,
};
use async_trait::async_trait;
use millstream_core::{Claim, Error, Log as _, Owner, Result, Sink, TopicPartition, Transform};
use millstream_runner::Runner;
use millstream_testkit::{MemoryLog, MemorySink, PlainTransform};
use millstream_topic::Shape;
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use crate::setup::{GOES_THROUGH, drain, keyed_sink, runner, wake};

const FUNCTION: &str = "suite.first";

/// Makes one to three rows of each record; how many, and which, depends on the version.
struct Changing {
    version: Arc<AtomicUsize>,
    /// How much newer the version is after each batch.
    step: usize,
}

/// How many rows a version makes of a value.
fn count_of(value: &str, version: usize) -> usize {
    let sum: usize = value.bytes().map(usize::from).sum();
    1 + (sum * 7 + version * 5) % 3
}

fn row_of(value: &str, version: usize, number: usize) -> String {
    // Rows of other versions stand in another order, and go to other partitions.
    format!("{value}|{version}|{}", (number + version) % 3)
}

#[async_trait]
impl Transform for Changing {
    async fn apply(&self, _topic: &str, rows: RecordBatch) -> Result<Vec<RecordBatch>> {
        let version = self.version.fetch_add(self.step, Ordering::Relaxed);
        let (mut texts, mut offsets) = (Vec::new(), Vec::new());
        let values = rows.column(0).as_string::<i32>().iter().flatten();
        for (value, offset) in values.zip(rows.column(1).as_primitive::<Int64Type>().values()) {
            for number in 0..count_of(value, version) {
                texts.push(row_of(value, version, number));
                offsets.push(*offset);
            }
        }
        let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(texts)), Arc::new(Int64Array::from(offsets))];
        let schema = PlainTransform::Append.table("first").schema();
        Ok(vec![RecordBatch::try_new(schema, columns).unwrap()])
    }
}

fn sink_of(log: &MemoryLog, failures: Vec<usize>, keeps_rows: bool) -> Arc<dyn Sink> {
    Arc::new(keyed_sink(log, FUNCTION, "first", failures, |shape| Shape { keeps_rows, ..shape }))
}

fn owner(plan: usize) -> Owner {
    Owner { function: FUNCTION.into(), fingerprint: format!("plan {plan}"), declaration: String::new() }
}

/// Becomes the owner, as a start does; none if the topic is filled by another plan, or the log fails.
async fn begin(sink: &Arc<dyn Sink>, plan: usize) -> Option<()> {
    let record = sink.holding().await.ok()?.record;
    if record.as_ref().is_some_and(|record| record.owner != owner(plan)) {
        return None;
    }
    sink.prepare(true).await.ok()?;
    let record = match record {
        Some(record) => record,
        None => sink.claim(&owner(plan), &Claim::First).await.ok()??,
    };
    sink.begin_term(record.term);
    Some(())
}

async fn adopt(log: &MemoryLog, plan: usize) -> Option<()> {
    let sink = sink_of(log, vec![], false);
    let record = sink.holding().await.ok()?.record?;
    if !sink.unsettled(&owner(plan)).await.unwrap().is_empty() {
        return None;
    }
    sink.claim(&owner(plan), &Claim::Adopt(Some(record))).await.ok()?.map(drop)
}

/// What a cleaner does: of the records of a key the last one stays, and no tombstone.
fn compact(log: &MemoryLog, topic: &str) {
    let all = log.all(&TopicPartition::new(topic, 1, 0));
    let mut last = HashMap::new();
    for row in 0..all.len() {
        last.insert(all.keys().value(row).to_vec(), row);
    }
    for row in 0..all.len() {
        if last[all.keys().value(row)] != row || arrow::array::Array::is_null(all.values(), row) {
            log.compact_away(topic, 0, all.offsets().value(row));
        }
    }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// A process begins, and ends after some batches or with its first error. A zombie stays, with what it knew.
    Run {
        batches: usize,
        max_records: usize,
        failures: Vec<usize>,
        zombie: bool,
    },
    /// The next plan is adopted.
    Adopt,
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    let failures = prop::collection::vec(0_usize..12, 0..8);
    let run = (1_usize..6, 1_usize..8, failures, prop::bool::weighted(0.3))
        .prop_map(|(batches, max_records, failures, zombie)| Step::Run { batches, max_records, failures, zombie });
    prop_oneof![6 => run, 1 => Just(Step::Adopt), 1 => Just(Step::Compact)]
}

/// A process of a plan; it ends with its first error.
async fn run(
    log: &MemoryLog,
    plan: usize,
    references: Option<&References>,
    (batches, max_records): (usize, usize),
    failures: Vec<usize>,
) -> Option<(Result<()>, Runner)> {
    let sink = sink_of(log, failures, references.is_some_and(|references| references.kept));
    begin(&sink, plan).await?;
    let transform = match references {
        Some(references) => Changing { version: Arc::clone(&references.version), step: 1 },
        None => Changing { version: Arc::new(AtomicUsize::new(plan)), step: 0 },
    };
    let runner = runner(log, FUNCTION, "in", sink, Arc::new(transform), 10);
    let done = drain(log, &runner, "in", max_records, &AtomicUsize::new(batches)).await;
    Some((done, runner))
}

/// References whose version rises with each batch.
struct References {
    version: Arc<AtomicUsize>,
    /// Is what a batch gives with them kept in the outbox?
    kept: bool,
}

impl References {
    fn new(kept: bool) -> Self {
        Self { version: Arc::default(), kept }
    }
}

async fn comes_out_once(values: usize, steps: Vec<Step>, references: Option<References>) {
    let log = MemoryLog::with_topic("in", 2);
    log.recreate("first", 3);
    for value in 0..values {
        log.append("in", value as i32 % 2, [format!("value {value}")]);
    }
    let (mut plan, mut zombies) = (0, Vec::<Runner>::new());
    for step in steps {
        match step {
            Step::Run { batches, max_records, failures, zombie } => {
                let begun = run(&log, plan, references.as_ref(), (batches, max_records), failures).await;
                for zombie in &zombies {
                    wake(&log, zombie, "in", max_records).await;
                }
                zombies.extend(begun.map(|(_, runner)| runner).filter(|_| zombie));
            }
            Step::Adopt => plan += usize::from(adopt(&log, plan + 1).await.is_some()),
            Step::Compact if log.partitions("suite.fences").await.is_ok() => compact(&log, "suite.fences"),
            Step::Compact => {}
        }
    }
    let (done, _) = run(&log, plan, references.as_ref(), (usize::MAX, 100), vec![]).await.unwrap();
    done.unwrap();
    let table = Arc::new(MemorySink::new("suite.out", PlainTransform::Append.table("out")));
    let out = runner(&log, "suite.out", "first", Arc::clone(&table) as _, Arc::new(PlainTransform::Append), 10);
    drain(&log, &out, "first", 100, &AtomicUsize::new(usize::MAX)).await.unwrap();
    let mut rows = BTreeMap::<String, Vec<String>>::new();
    for row in table.texts().await {
        rows.entry(row[0].split('|').next().unwrap().to_owned()).or_default().push(row[0].clone());
    }
    assert_eq!(rows.len(), values, "a record is missing: {rows:?}");
    for (value, mut found) in rows {
        let version = found[0].split('|').nth(1).unwrap().parse().unwrap();
        let mut expected: Vec<_> = (0..count_of(&value, version)).map(|at| row_of(&value, version, at)).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "not all at one time, or twice");
    }
}

fn check(values: usize, steps: Vec<Step>, references: Option<References>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(comes_out_once(values, steps, references));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn rows_of_a_changing_reference_come_out_once(
        values in 1_usize..20,
        steps in prop::collection::vec(step(), 0..14),
    ) {
        check(values, steps, Some(References::new(true)));
    }

    #[test]
    fn rows_of_adopted_plans_come_out_once(values in 1_usize..20, steps in prop::collection::vec(step(), 0..14)) {
        check(values, steps, None);
    }
}

/// Without the outbox, the schedules find rows of two versions: they would find it if the outbox kept nothing.
#[test]
fn without_an_outbox_rows_of_a_changing_reference_are_mixed() {
    let config = ProptestConfig { cases: 2_000, max_shrink_iters: 0, failure_persistence: None, ..Default::default() };
    let schedules = (1_usize..20, prop::collection::vec(step(), 0..14));
    let found = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)).run(
        &schedules,
        |(values, steps)| {
            check(values, steps, Some(References::new(false)));
            Ok(())
        },
    );
    assert!(found.is_err());
}

/// A plan can't be adopted while records are announced that only the previous plan can make: it has to finish them first.
#[tokio::test]
async fn an_interrupted_send_is_finished_by_the_plan_that_began_it() {
    let log = MemoryLog::with_topic("in", 1);
    log.recreate("first", 3);
    log.append("in", 0, (0..6).map(|value| format!("value {value}")));
    // What is sent to the fences before the batch goes through.
    let failures = [vec![2], vec![GOES_THROUGH; 4]].concat();
    run(&log, 0, None, (1, 10), failures).await.unwrap().0.unwrap_err();
    assert!(adopt(&log, 1).await.is_none());
    let sink = sink_of(&log, vec![], false);
    let said = sink.unsettled(&owner(1)).await.unwrap().join("\n");
    assert!(said.contains("Start the previous version once") && said.contains("in/1/0, offsets 0 to 6"), "{said}");
    let record = sink.holding().await.unwrap().record;
    let error = sink.claim(&owner(1), &Claim::Adopt(record)).await.unwrap_err();
    assert!(matches!(error, Error::Stop(_)), "{error}");
    assert_eq!(sink.unsettled(&owner(0)).await.unwrap(), [""; 0]);
    // The topic is deleted and created again: what was announced for the old one is gone with it.
    let again: Arc<dyn Sink> =
        Arc::new(keyed_sink(&log, FUNCTION, "first", vec![], |shape| Shape { generation: 2, ..shape }));
    assert_eq!(again.unsettled(&owner(1)).await.unwrap(), [""; 0]);
    run(&log, 0, None, (1, 10), vec![]).await.unwrap().0.unwrap();
    adopt(&log, 1).await.unwrap();
}

#[tokio::test]
async fn an_old_process_sends_nothing_once_its_function_writes_to_another_topic() {
    let log = MemoryLog::with_topic("in", 1);
    log.recreate("first", 3);
    log.recreate("other", 3);
    log.append("in", 0, (0..6).map(|value| format!("value {value}")));
    let written = || -> usize { (0..3).map(|at| log.all(&TopicPartition::new("first", 1, at)).len()).sum() };
    let (done, old) = run(&log, 0, None, (1, 2), vec![]).await.unwrap();
    done.unwrap();
    let before = written();
    let other = keyed_sink(&log, FUNCTION, "other", vec![], |shape| shape);
    other.prepare(true).await.unwrap();
    other.claim(&owner(1), &Claim::Adopt(None)).await.unwrap().unwrap();
    wake(&log, &old, "in", 2).await;
    assert!(before > 0 && written() == before, "{before} and then {}", written());
}
