//! The lake sink against the conformance suite, and what is the lake's alone: names, turns, folders, other people's files.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{collections::BTreeMap, path::Path as FilePath, sync::Arc};

use arrow::{
    array::{Int32Array, Int64Array, RecordBatch},
    datatypes::DataType,
};
use async_trait::async_trait;
use futures::TryStreamExt;
use millstream_core::{Column, Env, Error, Fence, PartitionBy, Result, Role, Sink, Table, TopicPartition};
use millstream_lake::{LakeSink, read_parquet};
use millstream_testkit::{
    PlainTransform, adopt,
    conformance::{SinkCheck, SinkHarness},
    rows::texts,
};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};

fn open(address: &str) -> Result<Arc<dyn ObjectStore>> {
    Ok(millstream_lake::open(address, &Env::default())?.store)
}

/// A folder of its own for each store.
struct Folders(tempfile::TempDir);

#[async_trait]
impl SinkHarness for Folders {
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink> {
        let folder = self.0.path().join(store);
        Arc::new(LakeSink::new(open(&folder.to_string_lossy()).unwrap(), "", function, table))
    }

    fn has_terms(&self) -> bool {
        false
    }
}

/// One store with compare-and-swap, and a prefix for each.
struct Prefixes(Arc<InMemory>);

#[async_trait]
impl SinkHarness for Prefixes {
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink> {
        Arc::new(LakeSink::new(self.0.clone(), format!("some/{store}"), function, table))
    }

    fn has_terms(&self) -> bool {
        false
    }
}

async fn folder_conforms(check: SinkCheck) {
    check.run(&Folders(tempfile::tempdir().unwrap())).await;
}

async fn object_store_conforms(check: SinkCheck) {
    check.run(&Prefixes(Arc::new(InMemory::new()))).await;
}

mod folder {
    millstream_testkit::sink_tests!(super::folder_conforms);
}

mod store_with_compare_and_swap {
    millstream_testkit::sink_tests!(super::object_store_conforms);
}

const DAY_MS: i64 = 86_400_000;

fn table() -> Table {
    let offset = Column { name: "offset".into(), data_type: DataType::Int64, nullable: false, role: Role::Value };
    Table { name: "events".into(), columns: vec![offset], combine: None, view: None }
}

fn partition() -> TopicPartition {
    TopicPartition::new("in", 1, 0)
}

fn rows(offsets: std::ops::Range<i64>) -> RecordBatch {
    RecordBatch::try_new(table().schema(), vec![Arc::new(Int64Array::from_iter_values(offsets))]).unwrap()
}

fn sink(store: &Arc<dyn ObjectStore>) -> LakeSink {
    LakeSink::new(store.clone(), "", "test.archive", table())
}

/// Writes every offset from the fence to `next_offset`, all of day `day` of 1970.
async fn write(sink: &LakeSink, from: &Fence, next_offset: i64, day: i64) -> Fence {
    let to = Fence { next_offset, last_timestamp_ms: Some(day * DAY_MS), ..from.clone() };
    sink.write(&partition(), from, &to, &[rows(from.next_offset..next_offset)]).await.unwrap();
    to
}

/// All objects below the store's top, with how many rows each has (none for what is no Parquet).
async fn objects(store: &dyn ObjectStore) -> BTreeMap<String, Option<usize>> {
    let found: Vec<_> = store.list(None).map_ok(|object| object.location).try_collect().await.unwrap();
    let mut objects = BTreeMap::new();
    for path in found {
        let rows = read_parquet(store, &path).await.ok();
        objects.insert(path.to_string(), rows.map(|rows| rows.iter().map(RecordBatch::num_rows).sum()));
    }
    objects
}

#[tokio::test]
async fn files_are_named_by_their_start_and_days_by_turns() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().to_string_lossy()).unwrap();
    let sink = sink(&store);
    sink.prepare(true).await.unwrap();
    let mut fence = sink.create_fence(&partition(), Fence::starting_at(7)).await.unwrap();
    for (next_offset, day) in [(10, 0), (12, 0), (20, 1), (21, 0)] {
        fence = write(&sink, &fence, next_offset, day).await;
    }
    let expected = [
        ("events/_fences/in-1-0-00000000000000000007.turn", Some(0)),
        ("events/_fences/in-1-0.json", None),
        ("events/_table.columns", Some(0)),
        ("events/log_date=1970-01-01/in-1-0-00000000000000000007.parquet", Some(3)),
        ("events/log_date=1970-01-01/in-1-0-00000000000000000010.parquet", Some(2)),
        ("events/log_date=1970-01-01/in-1-0-00000000000000000012.parquet", Some(0)),
        ("events/log_date=1970-01-01/in-1-0-00000000000000000020.parquet", Some(1)),
        ("events/log_date=1970-01-02/in-1-0-00000000000000000012.parquet", Some(8)),
        ("events/log_date=1970-01-02/in-1-0-00000000000000000020.parquet", Some(0)),
    ];
    assert_eq!(objects(&*store).await, expected.map(|(name, rows)| (name.to_owned(), rows)).into());
    let seen = read_parquet(&*store, &Path::from("events")).await.unwrap();
    assert_eq!(seen.iter().map(RecordBatch::num_rows).sum::<usize>(), 14, "a reader of the folder sees each row once");
}

#[tokio::test]
async fn an_hour_is_a_folder_of_its_day() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let hourly = || sink(&store).partition_by(PartitionBy::Hour);
    hourly().prepare(true).await.unwrap();
    let mut fence = hourly().create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    for (next_offset, hour) in [(3, 0), (5, 0), (9, 25), (10, 1)] {
        let to = Fence { next_offset, last_timestamp_ms: Some(hour * DAY_MS / 24), ..fence.clone() };
        // Every second one by a sink that is not told, such as an older process: the table says how its folders go on.
        let by = if next_offset % 2 == 1 { hourly() } else { sink(&store) };
        by.write(&partition(), &fence, &to, &[rows(fence.next_offset..next_offset)]).await.unwrap();
        fence = to;
    }
    let names = objects(&*store).await;
    let held: Vec<_> = names.into_iter().filter(|(_, rows)| rows.is_some_and(|rows| rows > 0)).collect();
    let file = |day, hour, start| format!("events/log_date=1970-01-{day}/log_hour={hour}/in-1-0-{start:020}.parquet");
    let expected =
        [(file("01", "00", 0), 3), (file("01", "00", 3), 2), (file("01", "01", 9), 1), (file("02", "01", 5), 4)];
    assert_eq!(held, expected.map(|(name, rows)| (name, Some(rows))));
    assert_eq!(hourly().snapshot().await.unwrap().fences, [(partition(), fence)]);
    let daily = sink(&store).partition_by(PartitionBy::Date).prepare(true).await.unwrap_err();
    assert!(matches!(&daily, Error::Stop(_)) && daily.to_string().contains("begun by hour"), "{daily}");
    adopt(&sink(&store), "test.archive").await.unwrap();
    hourly().prepare(false).await.unwrap();
    let mut hours = table();
    hours.columns[0].name = "log_hour".into();
    let refused = LakeSink::new(store.clone(), "other", "f", hours).partition_by(PartitionBy::Hour).prepare(true).await;
    assert!(refused.unwrap_err().to_string().contains("log_hour=05"));
}

#[tokio::test]
async fn a_lost_fence_move_is_closed_by_the_names() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let first = sink(&store);
    first.prepare(true).await.unwrap();
    let start = first.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    let path = Path::from("events/_fences/in-1-0.json");
    let old = store.get(&path).await.unwrap().bytes().await.unwrap();
    let mut fence = start.clone();
    for (next_offset, day) in [(3, 0), (5, 1), (9, 1), (12, 0)] {
        fence = write(&first, &fence, next_offset, day).await;
    }
    // The process died before it moved the fence, four times over.
    store.put(&path, old.clone().into()).await.unwrap();
    assert_eq!(sink(&store).fence(&partition()).await.unwrap(), Some(fence.clone()));
    assert_ne!(store.get(&path).await.unwrap().bytes().await.unwrap(), old, "the fence object was brought up to date");
    // One that never read the fence meets the taken names.
    store.put(&path, old.into()).await.unwrap();
    let to = Fence { next_offset: 4, last_timestamp_ms: Some(5 * DAY_MS), ..start.clone() };
    match sink(&store).write(&partition(), &start, &to, &[rows(0..4)]).await {
        Err(Error::Fenced { current: Some(12) }) => {}
        other => panic!("expected Fenced at 12, got {other:?}"),
    }
}

/// Somebody reset the function while this process ran.
#[tokio::test]
async fn a_fence_that_is_removed_while_it_is_moved_stops() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let archive = sink(&store);
    archive.prepare(true).await.unwrap();
    let start = archive.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    let fence = write(&archive, &start, 3, 0).await;
    store.delete(&Path::from("events/_fences/in-1-0.json")).await.unwrap();
    let to = Fence { next_offset: 4, ..fence.clone() };
    match archive.write(&partition(), &fence, &to, &[rows(3..4)]).await {
        Err(Error::Stop(cause)) => assert!(cause.to_string().contains("reset it once more"), "{cause}"),
        other => panic!("expected Stop, got {other:?}"),
    }
    // Nothing is remembered of the chain that was.
    let again = archive.write(&partition(), &to, &Fence { next_offset: 5, ..to.clone() }, &[rows(4..5)]).await;
    assert!(matches!(again, Err(Error::Fenced { current: None })), "{again:?}");
}

#[tokio::test]
async fn a_stranger_in_the_place_of_a_file_stops() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let archive = sink(&store);
    archive.prepare(true).await.unwrap();
    let start = archive.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    let fence = write(&archive, &start, 3, 0).await;
    let stop = |result: Result<(), Error>, words: &str| match result {
        Err(Error::Stop(cause)) => assert!(cause.to_string().contains(words), "{cause}"),
        other => panic!("expected Stop, got {other:?}"),
    };
    let other = LakeSink::new(store.clone(), "", "test.copy", table());
    assert_eq!(other.fence(&partition()).await.unwrap(), None);
    stop(other.create_fence(&partition(), start).await.map(drop), "belongs to the function test.archive");
    let next = Path::from("events/log_date=1970-01-01/in-1-0-00000000000000000003.parquet");
    store.put(&next, "no Parquet at all".into()).await.unwrap();
    let to = Fence { next_offset: 4, ..fence.clone() };
    stop(archive.write(&partition(), &fence, &to, &[rows(3..4)]).await, next.as_ref());
    let earlier = Path::from("events/log_date=1970-01-01/in-1-0-00000000000000000000.parquet");
    store.copy(&earlier, &next).await.unwrap();
    let to = Fence { next_offset: 4, ..fence.clone() };
    stop(archive.write(&partition(), &fence, &to, &[rows(3..4)]).await, "does not continue from offset 3");
}

#[tokio::test]
async fn an_audit_sees_files_that_no_chain_leads_to() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let sink = sink(&store);
    sink.prepare(true).await.unwrap();
    let start = sink.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    write(&sink, &start, 3, 0).await;
    let file = Path::from("events/log_date=1970-01-01/in-1-0-00000000000000000000.parquet");
    store.copy(&file, &Path::from("events/log_date=1970-01-02/copy.parquet")).await.unwrap();
    let held: usize = sink.snapshot().await.unwrap().rows.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(held, 6);
}

#[tokio::test]
async fn a_column_is_added_at_the_end() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let old = sink(&store);
    old.prepare(true).await.unwrap();
    let start = old.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    write(&old, &start, 3, 0).await;
    let mut wider = table();
    wider.columns.push(Column { name: "note".into(), data_type: DataType::Utf8, nullable: true, role: Role::Value });
    let new = LakeSink::new(store.clone(), "", "test.archive", wider.clone());
    assert!(new.prepare(false).await.unwrap_err().to_string().contains("millstream up"));
    new.prepare(true).await.unwrap();
    let held = new.snapshot().await.unwrap().rows;
    assert_eq!((held[0].schema(), held[0].column(1).null_count()), (wider.schema(), 3));
    assert!(matches!(old.prepare(true).await, Err(Error::Stop(_))), "a column can't be taken away again");
}

#[tokio::test]
async fn a_column_gets_a_wider_type() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().to_string_lossy()).unwrap();
    let mut narrow = table();
    narrow.columns[0].data_type = DataType::Int32;
    let old = LakeSink::new(store.clone(), "", "test.archive", narrow.clone());
    old.prepare(true).await.unwrap();
    let start = old.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    let two = Fence { next_offset: 2, last_timestamp_ms: Some(0), ..start.clone() };
    let ints = RecordBatch::try_new(narrow.schema(), vec![Arc::new(Int32Array::from(vec![0, 1]))]).unwrap();
    old.write(&partition(), &start, &two, &[ints]).await.unwrap();
    let wide = sink(&store);
    let refused = wide.prepare(true).await.unwrap_err().to_string();
    assert!(refused.contains("is offset int not null, not offset bigint not null"), "only on request: {refused}");
    assert_eq!(wide.misfits().await.unwrap(), [""; 0]);
    adopt(&wide, "test.archive").await.unwrap();
    wide.prepare(false).await.unwrap();
    write(&wide, &two, 3, 0).await;
    // Files of both types are one table.
    assert_eq!(texts(&wide.snapshot().await.unwrap().rows), [["0"], ["1"], ["2"]]);
    assert_eq!(old.misfits().await.unwrap().len(), 1);
    assert!(matches!(adopt(&old, "test.archive").await, Err(Error::Stop(_))), "not back");
}

/// A table as it was laid out when its folders were named `date=…`, though they are not the days of events.
async fn old_table(store: &Arc<dyn ObjectStore>) -> Fence {
    let first = sink(store);
    first.prepare(true).await.unwrap();
    let mut fence = first.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    for (next_offset, day) in [(3, 0), (5, 1)] {
        fence = write(&first, &fence, next_offset, day).await;
    }
    let paths: Vec<Path> = store.list(None).map_ok(|object| object.location).try_collect().await.unwrap();
    for path in paths {
        let old = path.as_ref().replace("log_date=", "date=").replace("_table.columns", "_table.parquet");
        let old = Path::from(old.replace(".turn", ".parquet"));
        if old != path {
            store.copy(&path, &old).await.unwrap();
            store.delete(&path).await.unwrap();
        }
    }
    fence
}

#[tokio::test]
async fn a_table_with_the_old_names_keeps_them() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let fence = old_table(&store).await;
    let archive = sink(&store);
    archive.prepare(true).await.unwrap();
    assert_eq!(archive.fence(&partition()).await.unwrap(), Some(fence.clone()), "the old chain is followed");
    let fence = write(&archive, &fence, 9, 2).await;
    // One that was never prepared, and a partition that is new to the table.
    let late = sink(&store);
    let fence = write(&late, &fence, 10, 2).await;
    let other = TopicPartition::new("in", 1, 1);
    let start = late.create_fence(&other, Fence::starting_at(10)).await.unwrap();
    let to = Fence { next_offset: 12, last_timestamp_ms: Some(0), ..start.clone() };
    late.write(&other, &start, &to, &[rows(10..12)]).await.unwrap();
    let names: Vec<String> = objects(&*store).await.into_keys().collect();
    let new = |name: &String| name.contains("log_date=") || name.ends_with(".turn") || name.ends_with(".columns");
    assert!(!names.iter().any(new), "{names:?}");
    assert!(names.iter().any(|name| name == "events/date=1970-01-03/in-1-0-00000000000000000009.parquet"), "{names:?}");
    let held = late.snapshot().await.unwrap();
    assert_eq!(held.rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 12);
    assert!(held.fences.contains(&(partition(), fence)), "{:?}", held.fences);
}

#[tokio::test]
async fn only_data_is_parquet_to_a_reader() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let sink = sink(&store);
    sink.prepare(true).await.unwrap();
    let mut fence = sink.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    for (next_offset, day) in [(3, 0), (5, 1), (6, 3)] {
        fence = write(&sink, &fence, next_offset, day).await;
    }
    // What `**/*.parquet` means to a reader that knows nothing of names with `_`.
    let parquet: Vec<_> = objects(&*store).await.into_keys().filter(|name| name.ends_with(".parquet")).collect();
    assert!(parquet.iter().all(|name| name.starts_with("events/log_date=")), "{parquet:?}");
    for name in parquet {
        let rows = read_parquet(&*store, &Path::from(name.as_str())).await.unwrap();
        assert!(rows.iter().all(|rows| rows.schema() == table().schema()), "{name} has the table's columns");
    }
}

#[tokio::test]
async fn tables_that_a_lake_can_not_hold_stop() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut dated = table();
    dated.columns[0].name = "Log_Date".into();
    for (table, words) in [(PlainTransform::Count.table("counts"), "merges"), (dated, "rename")] {
        match LakeSink::new(store.clone(), "", "f", table).prepare(true).await {
            Err(Error::Stop(cause)) => assert!(cause.to_string().contains(words), "{cause}"),
            other => panic!("expected Stop, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_null_where_none_may_be_is_poison() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let sink = sink(&store);
    sink.prepare(true).await.unwrap();
    let start = sink.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    let rows = RecordBatch::try_from_iter([("offset", Arc::new(Int64Array::from(vec![None, Some(1)])) as _)]).unwrap();
    let to = Fence { next_offset: 2, ..start.clone() };
    assert!(matches!(sink.write(&partition(), &start, &to, &[rows]).await, Err(Error::Poison(_))));
    assert_eq!(sink.fence(&partition()).await.unwrap(), Some(start));
}

#[test]
fn a_folder_is_made_and_nothing_of_a_wrong_address_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("a lake");
    let url = format!("file://{}", inner.to_string_lossy().replace(' ', "%20"));
    open(&url).unwrap();
    assert!(inner.is_dir());
    let error = open("s3://key:secret@bucket/path").unwrap_err().to_string();
    assert!(error.contains("s3://") && !error.contains("secret"), "{error}");
    assert!(open("file://relative").is_err());
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(open(&file.to_string_lossy()), Err(Error::Stop(_))));
}

#[tokio::test]
async fn what_a_killed_process_left_behind_is_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().to_string_lossy()).unwrap();
    let day = folder.path().join("events/log_date=1970-01-01");
    std::fs::create_dir_all(&day).unwrap();
    let name = "in-1-0-00000000000000000000.parquet";
    std::fs::write(day.join(format!(".{name}#1")), "half a fi").unwrap();
    let sink = sink(&store);
    sink.prepare(true).await.unwrap();
    let start = sink.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    write(&sink, &start, 3, 0).await;
    assert_eq!(sink.snapshot().await.unwrap().rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    let visible = |folder: &FilePath| {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect::<Vec<_>>()
    };
    assert_eq!(visible(&day), [name]);
}
