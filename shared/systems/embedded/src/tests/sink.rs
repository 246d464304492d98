use std::sync::Arc;

use arrow::{
    array::{AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray},
    compute::filter_record_batch,
    datatypes::{DataType, Field, Int64Type, Schema},
};
use async_trait::async_trait;
use millstream_core::{Column, Combine, Error, Fence, Merge, Result, Role, Sink, Table, TopicPartition, View};
use millstream_testkit::{TestCombine, rows::texts, sessions};
use tokio::{sync::Semaphore, time::timeout};

use super::{LIMIT, open};
use crate::EmbeddedSink;

fn column(name: &str, data_type: DataType, role: Role) -> Column {
    Column { name: name.into(), data_type, nullable: true, role }
}

/// Counts of words. Shows those that came more than once, doubled; and can be held up while it combines.
struct Counting {
    columns: TestCombine,
    entered: Semaphore,
    let_through: Semaphore,
}

#[async_trait]
impl Combine for Counting {
    async fn combine(&self, rows: &[RecordBatch]) -> Result<RecordBatch> {
        self.entered.add_permits(1);
        self.let_through.acquire().await.unwrap().forget();
        self.columns.combine(rows).await
    }

    async fn finish(&self, rows: &RecordBatch) -> Result<(RecordBatch, Vec<usize>)> {
        let counts = rows.column(1).as_primitive::<Int64Type>();
        if counts.iter().flatten().any(|count| count == 13) {
            return Err(Error::poison("thirteen can't be shown"));
        }
        let shown = BooleanArray::from_iter(counts.iter().map(|count| Some(count > Some(1))));
        let from = (0..rows.num_rows()).filter(|row| shown.value(*row)).collect();
        let doubled = Int64Array::from_iter(counts.iter().map(|count| count.map(|count| count * 2)));
        let schema =
            Schema::new(vec![Field::new("word", DataType::Utf8, true), Field::new("twice", DataType::Int64, true)]);
        let all = RecordBatch::try_new(Arc::new(schema), vec![rows.column(0).clone(), Arc::new(doubled)]).unwrap();
        Ok((filter_record_batch(&all, &shown).unwrap(), from))
    }
}

fn counting() -> (Table, Arc<Counting>) {
    let columns =
        vec![column("word", DataType::Utf8, Role::Key), column("n", DataType::Int64, Role::State(Merge::Sum))];
    let combine = Arc::new(Counting {
        columns: TestCombine::new(&columns),
        entered: Semaphore::new(0),
        let_through: Semaphore::new(1_000),
    });
    let view = View {
        name: "words".into(),
        columns: vec![("word".into(), DataType::Utf8), ("twice".into(), DataType::Int64)],
        select: "SELECT word, n * 2 AS twice FROM words_state WHERE n > 1".into(),
        together: vec!["word".into()],
    };
    (Table { name: "words_state".into(), columns, combine: Some(combine.clone()), view: Some(view) }, combine)
}

fn words(table: &Table, words: &[(Option<&str>, i64)]) -> RecordBatch {
    let names = StringArray::from_iter(words.iter().map(|(word, _)| *word));
    let counts = Int64Array::from_iter_values(words.iter().map(|(_, count)| *count));
    RecordBatch::try_new(table.schema(), vec![Arc::new(names), Arc::new(counts)]).unwrap()
}

fn partition() -> TopicPartition {
    TopicPartition::new("t", 1, 0)
}

fn fence(next_offset: i64) -> Fence {
    Fence { next_offset, ..Fence::starting_at(0) }
}

async fn prepared(folder: &std::path::Path, table: &Table) -> EmbeddedSink {
    let sink = EmbeddedSink::new(open(folder), "p.words", table.clone());
    sink.prepare(true).await.unwrap();
    sink.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    sink
}

#[tokio::test]
async fn what_is_removed_begins_anew_and_the_rest_stays() {
    use millstream_core::{DeadLetter, DeadLetters as _, Log as _, Producer as _, Topics as _};

    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (table, _) = counting();
    for name in ["p.words", "p.other"] {
        let mut table = table.clone();
        if name == "p.other" {
            (table.name, table.view) = ("other".to_owned(), None);
        }
        let sink = EmbeddedSink::new(store.clone(), name, table.clone());
        sink.prepare(true).await.unwrap();
        let from = sink.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
        sink.write(&partition(), &from, &fence(2), &[words(&table, &[(Some("a"), 2)])]).await.unwrap();
        let position = partition().at(1);
        let letter = DeadLetter {
            function: name.to_owned(),
            position,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: vec![],
            value_bytes: 0,
            reason: "bad".into(),
        };
        store.put(&[letter]).await.unwrap();
    }
    for (topic, sender) in [("t", "s"), ("u", "r")] {
        store.create_topic(topic, 1, &[]).await.unwrap();
        store.for_pipeline(sender).send(topic, vec![super::record(0, "x")]).await.unwrap();
    }
    assert_eq!(store.pipelines().await.unwrap(), ["p", "r", "s"]);
    let removal = crate::Removal {
        functions: vec!["p.words".into(), "p.nothing".into()],
        tables: vec!["words".into(), "words_state".into(), "nothing".into(), "millstream_fences".into()],
        topics: vec!["t".into(), "nothing".into()],
        ..crate::Removal::default()
    };
    store.remove(removal).await.unwrap();
    assert_eq!(store.pipelines().await.unwrap(), ["p", "r"]);
    assert_eq!(store.fences("p.words").await.unwrap(), []);
    assert_eq!(store.fences("p.other").await.unwrap().len(), 1);
    for gone in ["words", "words_state"] {
        assert!(matches!(store.row_count(gone).await, Err(Error::Stop(_))), "{gone}");
    }
    assert_eq!(store.row_count("other").await.unwrap(), 1);
    assert_eq!(store.count("p.words").await.unwrap(), Some(0));
    assert_eq!(store.count("p.other").await.unwrap(), Some(1));
    assert_eq!(store.topics().await.unwrap().iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["u"]);
    store.create_topic("t", 1, &[]).await.unwrap();
    assert_eq!(store.watermarks(&partition()).await.unwrap().high, 0, "its offsets begin anew");
    EmbeddedSink::new(store, "p.words", table).prepare(true).await.unwrap();
}

#[tokio::test]
async fn a_table_may_be_named_as_another_ones_keys() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (mut table, _) = counting();
    for name in ["words", "words_keys"] {
        (table.name, table.view) = (name.to_owned(), None);
        EmbeddedSink::new(store.clone(), &format!("p.{name}"), table.clone()).prepare(true).await.unwrap();
    }
}

#[tokio::test]
async fn finished_rows_follow_their_states() {
    let folder = tempfile::tempdir().unwrap();
    let (table, _) = counting();
    let sink = prepared(folder.path(), &table).await;
    let shown = async |sink: &EmbeddedSink| {
        let (names, mut rows) = sink.store.newest_rows("words", 10).await.unwrap();
        assert_eq!(names, ["word", "twice"]);
        rows.sort();
        rows
    };
    let first = words(&table, &[(Some("a"), 1), (None, 2), (Some("b"), 1), (Some("a"), 2)]);
    sink.write(&partition(), &fence(0), &fence(1), &[first]).await.unwrap();
    assert_eq!(shown(&sink).await, [["a", "6"], ["null", "4"]]);
    // `b` appears, `a` changes, and the null group falls below what `having` shows.
    let second = words(&table, &[(Some("b"), 4), (Some("a"), 7), (None, -1)]);
    sink.write(&partition(), &fence(1), &fence(2), &[second]).await.unwrap();
    assert_eq!(shown(&sink).await, [["a", "20"], ["b", "10"]]);
    // What can't be shown is poison, and neither state nor fence has moved.
    let bad = words(&table, &[(Some("a"), 3), (Some("b"), 1)]);
    assert!(matches!(sink.write(&partition(), &fence(2), &fence(3), &[bad]).await, Err(Error::Poison(_))));
    assert_eq!(shown(&sink).await, [["a", "20"], ["b", "10"]]);

    let snapshot = sink.snapshot().await.unwrap();
    assert_eq!(snapshot.fences, [(partition(), fence(2))]);
    assert_eq!(texts(&snapshot.rows), texts(&[words(&table, &[(Some("a"), 10), (Some("b"), 5), (None, 1)])]));
    assert_eq!(sink.store.row_count("words").await.unwrap(), 2);
    assert_eq!(sink.store.row_count("words_state").await.unwrap(), 3);
    assert_eq!(sink.store.fences("p.words").await.unwrap(), snapshot.fences);

    let twice = Arc::new(Schema::new(vec![Field::new("twice", DataType::Int64, true)]));
    let read = sink.store.read_table("words", twice).await.unwrap();
    assert_eq!(texts(&read), [["10"], ["20"]]);
    let missing = Arc::new(Schema::new(vec![Field::new("thrice", DataType::Int64, true)]));
    assert!(matches!(sink.store.read_table("words", missing.clone()).await, Err(Error::Stop(_))));
    let refused = sink.store.read_table("nowhere", missing).await.unwrap_err();
    assert!(matches!(refused, Error::Stop(_)), "{refused:?}");
    assert_eq!(
        refused.to_string(),
        "the embedded store has no table `nowhere`. A function's own table is created by `millstream up`; a table from \
         elsewhere needs its database's address, or is read from a file"
    );
    assert!(matches!(sink.store.newest_rows("sqlite_master", 1).await, Err(Error::Stop(_))));
}

#[tokio::test]
async fn sessions_join_in_a_view() {
    for seed in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let events = sessions::events(seed);
        let sink = || EmbeddedSink::new(open(folder.path()), "p.visits", sessions::table());
        let sinks = [Arc::new(sink()), Arc::new(sink())];
        for sink in &sinks {
            sink.prepare(true).await.unwrap();
        }
        sessions::write([sinks[0].clone(), sinks[1].clone()], &events).await;
        let (_, mut rows) = sinks[0].store.newest_rows("visits", 1_000).await.unwrap();
        rows.sort();
        assert_eq!(rows, sessions::expected(&events), "seed {seed}");
    }
}

#[tokio::test]
async fn a_cancelled_write_rolls_back() {
    let folder = tempfile::tempdir().unwrap();
    let (table, combine) = counting();
    let sink = Arc::new(prepared(folder.path(), &table).await);
    let rows = words(&table, &[(Some("a"), 2)]);
    sink.write(&partition(), &fence(0), &fence(1), std::slice::from_ref(&rows)).await.unwrap();

    // The second call combines with what the table holds: the transaction is open by then, and its fence has moved.
    combine.let_through.forget_permits(1_000);
    combine.let_through.add_permits(1);
    combine.entered.forget_permits(1_000);
    let task = tokio::spawn({
        let (sink, rows) = (sink.clone(), rows.clone());
        async move { sink.write(&partition(), &fence(1), &fence(2), &[rows]).await }
    });
    timeout(LIMIT, combine.entered.acquire_many(2)).await.unwrap().unwrap().forget();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());

    assert_eq!(sink.fence(&partition()).await.unwrap(), Some(fence(1)));
    combine.let_through.add_permits(1_000);
    let other = EmbeddedSink::new(open(folder.path()), "p.words", table.clone());
    other.write(&partition(), &fence(1), &fence(2), std::slice::from_ref(&rows)).await.unwrap();
    let again = sink.write(&partition(), &fence(1), &fence(2), &[rows]).await;
    assert!(matches!(again, Err(Error::Fenced { current: Some(2) })), "{again:?}");
    let (_, rows) = sink.store.newest_rows("words", 10).await.unwrap();
    assert_eq!(rows, [["a", "8"]]);
}

#[tokio::test]
async fn float_keys_are_the_same_to_sqlite_and_arrow() {
    let folder = tempfile::tempdir().unwrap();
    let columns =
        vec![column("x", DataType::Float64, Role::Key), column("n", DataType::Int64, Role::State(Merge::Sum))];
    let combine: Arc<dyn Combine> = Arc::new(TestCombine::new(&columns));
    let table = Table { name: "floats".into(), columns, combine: Some(combine), view: None };
    let sink = prepared(folder.path(), &table).await;
    for next in 0..2 {
        let keys = Float64Array::from(vec![Some(0.0), Some(-0.0), Some(f64::NAN), Some(-f64::NAN), None]);
        let counts = Int64Array::from(vec![1; 5]);
        let rows = RecordBatch::try_new(table.schema(), vec![Arc::new(keys), Arc::new(counts)]).unwrap();
        sink.write(&partition(), &fence(next), &fence(next + 1), &[rows]).await.unwrap();
    }
    let found = texts(&sink.snapshot().await.unwrap().rows);
    assert_eq!(found, [["0.0", "4"], ["NaN", "4"], ["∅", "2"]]);
}

#[tokio::test]
async fn a_table_that_does_not_fit_lists_how() {
    let folder = tempfile::tempdir().unwrap();
    let (mut table, _) = counting();
    let sink = prepared(folder.path(), &table).await;
    table.columns = vec![
        column("word", DataType::Int64, Role::Key),
        column("n", DataType::Int64, Role::State(Merge::Max)),
        column("more", DataType::Decimal128(18, 2), Role::Value),
    ];
    let says =
        async |table: &Table| match EmbeddedSink::new(sink.store.clone(), "p.words", table.clone()).prepare(true).await
        {
            Err(Error::Stop(cause)) => cause.to_string(),
            other => panic!("{other:?}"),
        };
    let found = says(&table).await;
    for part in [
        "`word` is string, not bigint",
        "`n` is sum, not max",
        "lacks column `more` (decimal(18,2))",
        "`millstream rebuild`",
    ] {
        assert!(found.contains(part), "{found}");
    }
    let plain = |name: &str, columns: &[(&str, DataType)]| Table {
        name: name.into(),
        columns: columns.iter().map(|(name, data_type)| column(name, data_type.clone(), Role::Value)).collect(),
        combine: None,
        view: None,
    };
    assert!(says(&plain("t", &[("a", DataType::Int64), ("A", DataType::Int64)])).await.contains("ignores case"));
    assert!(says(&plain("t", &[("a", DataType::Null)])).await.contains("cast it in the SQL"));
    assert!(says(&plain("millstream_fences", &[("a", DataType::Int64)])).await.contains("reserved"));
}
