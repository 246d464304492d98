//! The fakes pass the suites that the adapters run.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_core::{
    Batch, DeadLetter, DeadLetters, Decode, Error, Fence, Limits, Log, Sink, Table, TopicPartition, Transform,
};
use millstream_testkit::{
    Failure, Journal, MemoryDeadLetters, MemoryLog, MemorySink, MemoryStore, PlainDecode, PlainTransform,
    conformance::{DeadLettersCheck, LogCheck, LogUnderTest, SinkCheck, SinkHarness, SourceCheck, SourceUnderTest},
    rows,
};

#[derive(Default)]
struct Memory(Mutex<HashMap<String, MemoryStore>>);

#[async_trait]
impl SinkHarness for Memory {
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink> {
        let store = self.0.lock().unwrap().entry(store.to_owned()).or_default().clone();
        let sink = store.sink(function, table);
        sink.poison_if(|row| row.iter().any(|text| text == "unstorable"));
        Arc::new(sink)
    }

    fn unstorable(&self) -> Option<(Table, RecordBatch)> {
        let table = PlainTransform::Count.table("counts");
        let text = arrow::array::StringArray::from(vec!["unstorable"]);
        let row = rows::rows(&table, vec![Arc::new(text), Arc::new(arrow::array::Int64Array::from(vec![1]))]);
        Some((table, row))
    }
}

/// The stores of [`MemoryStore::without_transactions`].
#[derive(Default)]
struct EventStores(Memory);

#[async_trait]
impl SinkHarness for EventStores {
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink> {
        let mut stores = self.0.0.lock().unwrap();
        Arc::new(stores.entry(store.to_owned()).or_insert_with(MemoryStore::without_transactions).sink(function, table))
    }

    fn is_atomic(&self) -> bool {
        false
    }

    fn has_terms(&self) -> bool {
        false
    }
}

async fn memory_sink(check: SinkCheck) {
    check.run(&Memory::default()).await;
}

async fn event_store(check: SinkCheck) {
    check.run(&EventStores::default()).await;
}

async fn memory_log(check: LogCheck) {
    check.run(&under_test().log).await;
}

async fn memory_source(check: SourceCheck) {
    check.run(&under_test()).await;
}

async fn memory_dead_letters(check: DeadLettersCheck) {
    check.run(&MemoryDeadLetters::new()).await;
}

fn under_test() -> SourceUnderTest {
    let source = Arc::new(MemoryLog::new());
    let (log, producer, topics) = (source.clone(), source.clone(), source.clone());
    SourceUnderTest { source, log: LogUnderTest { log, producer, topics, prefix: "run-".into() } }
}

mod sink {
    millstream_testkit::sink_tests!(super::memory_sink);
    millstream_testkit::merging_sink_tests!(super::memory_sink);
}

mod sink_without_transactions {
    millstream_testkit::sink_tests!(super::event_store);
}

mod log {
    millstream_testkit::log_tests!(super::memory_log);
}

mod source {
    millstream_testkit::source_tests!(super::memory_source);
}

mod letters {
    millstream_testkit::dead_letter_tests!(super::memory_dead_letters);
}

const LIMITS: Limits = Limits { max_records: 100, max_bytes: 1_000, max_wait_ms: 0 };

fn partition() -> TopicPartition {
    TopicPartition::new("words", 1, 0)
}

async fn read(log: &MemoryLog, from: i64, to: i64) -> millstream_core::Result<Batch> {
    log.read(&partition(), from..to, LIMITS).await
}

#[tokio::test]
async fn retention_compaction_and_a_re_created_topic() {
    let log = MemoryLog::with_topic("words", 1);
    assert_eq!(log.append("words", 0, ["a", "b", "c", "d", "e"]), 0);
    log.compact_away("words", 0, 2);
    log.compact_away("words", 0, 4);
    let batch = read(&log, 1, 5).await.unwrap();
    assert_eq!((batch.range(), batch.offsets().values().to_vec()), (1..5, vec![1, 3]));
    assert_eq!(read(&log, 4, 5).await.unwrap().len(), 0, "a hole is covered, and empty");
    log.delete_below("words", 0, 2);
    assert!(matches!(read(&log, 1, 5).await, Err(Error::Stop(_))));
    assert_eq!(read(&log, 2, 5).await.unwrap().offsets().values(), &[3]);
    log.recreate("words", 1);
    assert!(matches!(read(&log, 2, 5).await, Err(Error::Retry(_))));
    assert_eq!(log.append("words", 0, ["new"]), 0);
    log.fail_next_reads(1);
    assert!(read(&log, 0, 1).await.unwrap_err().is_retry());
    assert_eq!(read(&log, 0, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn injected_failures_come_in_line() {
    let sink = MemorySink::new("test.copy", PlainTransform::Append.table("copy"));
    let start = sink.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    let to = Fence { next_offset: 1, ..start.clone() };
    for failure in [Failure::RetryBefore, Failure::Fenced, Failure::Stop, Failure::RetryAfter] {
        sink.fail_next(failure);
    }
    let mut answers = Vec::new();
    for _ in 0..5 {
        let answer = sink.write(&partition(), &start, &to, &[]).await.unwrap_err();
        answers.push((std::mem::discriminant(&answer), sink.fence(&partition()).await.unwrap().unwrap().next_offset));
    }
    let kind = std::mem::discriminant;
    let (retry, stop) = (kind(&Error::retry("")), kind(&Error::stop("")));
    let fenced = kind(&Error::Fenced { current: None });
    assert_eq!(answers, [(retry, 0), (fenced, 0), (stop, 0), (retry, 1), (fenced, 1)]);
}

fn letter(offset: i64) -> DeadLetter {
    DeadLetter {
        function: "test.copy".into(),
        position: partition().at(offset),
        timestamp_ms: 0,
        key: None,
        value: Some(b"bad".to_vec()),
        headers: Vec::new(),
        value_bytes: 3,
        reason: "the value begins with bad".into(),
    }
}

#[tokio::test]
async fn a_journal_tells_letters_from_fences() {
    let journal = Journal::new();
    let letters = MemoryDeadLetters::with_journal(&journal);
    let sink = MemorySink::new("test.copy", PlainTransform::Append.table("copy")).with_journal(&journal);
    let start = sink.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    letters.fail_next(1);
    assert!(letters.put(&[letter(0)]).await.unwrap_err().is_retry());
    letters.put(&[letter(0)]).await.unwrap();
    let to = Fence { next_offset: 2, ..start.clone() };
    sink.write(&partition(), &start, &to, &[]).await.unwrap();
    letters.put(&[letter(1), letter(0)]).await.unwrap();
    assert_eq!(letters.list(Some("test.copy"), 10).await.unwrap(), [letter(1), letter(0)]);
    assert_eq!(letters.list(Some("test.other"), 10).await.unwrap(), []);
    journal.assert_letters_before_fence(&[partition().at(0)]);
    let late = std::panic::catch_unwind(|| journal.assert_letters_before_fence(&[partition().at(1)]));
    assert!(late.is_err(), "a letter after its fence is found out");
}

#[tokio::test]
async fn plain_words_are_decoded_and_counted() {
    let log = MemoryLog::with_topic("words", 1);
    log.append("words", 0, ["one", "bad", "two@1000000", "one"]);
    let decoded = PlainDecode.decode(&log.all(&partition())).unwrap();
    assert_eq!(decoded.index, [0, 2, 3]);
    assert_eq!(decoded.bad.iter().map(|bad| bad.index).collect::<Vec<_>>(), [1]);
    assert_eq!(decoded.event_time.value(1), 1_000_000);
    let counted = PlainTransform::Count.apply("words", decoded.rows.clone()).await.unwrap();
    assert_eq!(rows::texts(&counted), [["one", "2"], ["two@1000000", "1"]]);
    let copied = PlainTransform::Append.apply("words", decoded.rows).await.unwrap();
    assert_eq!(rows::texts(&copied), [["one", "0"], ["one", "3"], ["two@1000000", "2"]]);
}
