//! Stores that don't do what a lake needs, show what isn't there, or in which another process is faster.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod around;

use std::sync::{Arc, Mutex};

use arrow::datatypes::DataType;
use async_trait::async_trait;
use futures::{StreamExt as _, stream, stream::BoxStream};
use millstream_core::{Column, Result, Role, Sink, Table};
use millstream_lake::{LakeSink, read_parquet};
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, PutResult, Result as StoreResult,
    memory::InMemory, path::Path,
};

use around::{Around, Happen};

fn sink(store: Arc<dyn ObjectStore>, columns: &[&str]) -> LakeSink {
    let column = |name: &&str| {
        let name = (*name).to_owned();
        Column { name, data_type: DataType::Int64, nullable: true, role: Role::Value }
    };
    let columns = columns.iter().map(column).collect();
    LakeSink::new(store, "", "test.archive", Table { name: "events".into(), columns, combine: None, view: None })
}

fn stop_text(result: Result<()>) -> String {
    let error = result.unwrap_err();
    assert!(!error.is_retry(), "{error}");
    error.to_string()
}

/// Another process starts between this one's look at the declaration and its put.
#[derive(Debug)]
struct Overtaken {
    store: Arc<InMemory>,
    by: Mutex<Option<LakeSink>>,
}

#[async_trait]
impl Happen for Overtaken {
    fn inside(&self) -> &InMemory {
        &self.store
    }

    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        let other = self.by.lock().unwrap().take();
        if let Some(other) = other {
            other.prepare(true).await.unwrap();
        }
        self.store.put_opts(path, payload, options).await
    }
}

#[tokio::test]
async fn of_two_starts_with_other_columns_the_later_one_is_refused() {
    for before in [None, Some(["a"])] {
        let store = Arc::new(InMemory::new());
        if let Some(before) = before {
            sink(store.clone(), &before).prepare(true).await.unwrap();
        }
        let first = sink(store.clone(), &["a", "b"]);
        let overtaken = Overtaken { store: store.clone(), by: Mutex::new(Some(first)) };
        let late = sink(Arc::new(Around(overtaken)), &["a", "c"]);
        let said = stop_text(late.prepare(true).await);
        assert!(said.contains("column 2 is b bigint, not c bigint"), "{said}");
        sink(store, &["a", "b"]).prepare(false).await.unwrap();
    }
}

#[tokio::test]
async fn a_start_that_is_overtaken_adds_its_columns_to_those_that_are_there() {
    let store = Arc::new(InMemory::new());
    sink(store.clone(), &["a"]).prepare(true).await.unwrap();
    let by = Mutex::new(Some(sink(store.clone(), &["a", "b"])));
    let late = sink(Arc::new(Around(Overtaken { store: store.clone(), by })), &["a", "b", "c"]);
    late.prepare(true).await.unwrap();
    sink(store, &["a", "b", "c"]).prepare(false).await.unwrap();
}

/// A store that puts whatever is there.
#[derive(Debug)]
struct Careless(InMemory);

#[async_trait]
impl Happen for Careless {
    fn inside(&self) -> &InMemory {
        &self.0
    }

    async fn put(&self, path: &Path, payload: PutPayload, _: PutOptions) -> StoreResult<PutResult> {
        self.0.put_opts(path, payload, PutMode::Overwrite.into()).await
    }
}

#[tokio::test]
async fn a_store_that_overwrites_in_spite_of_if_none_match_is_refused_at_each_start() {
    let store = Arc::new(Around(Careless(InMemory::new())));
    for start in ["of a new table", "of one that is there"] {
        let said = stop_text(sink(store.clone(), &["a"]).prepare(true).await);
        assert!(said.contains("If-None-Match") && said.contains("Use a store that keeps"), "{start}: {said}");
    }
}

/// A store in which a console has made a folder: an empty object whose name is that of the folder and a slash. Clients list it
/// without the slash, and don't find it.
#[derive(Debug)]
struct Marked {
    store: InMemory,
    marker: ObjectMeta,
}

#[async_trait]
impl Happen for Marked {
    fn inside(&self) -> &InMemory {
        &self.store
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        stream::iter([Ok(self.marker.clone())]).chain(self.store.list(prefix)).boxed()
    }
}

#[tokio::test]
async fn the_marker_of_a_folder_is_no_file_of_a_reference() {
    let store = Arc::new(InMemory::new());
    sink(store.clone(), &["a"]).prepare(true).await.unwrap();
    let file = store.get(&Path::from("events/_table.columns")).await.unwrap().bytes().await.unwrap();
    let (folder, store) = (Path::from("rates.parquet"), InMemory::new());
    store.put(&folder.clone().join("1.parquet"), file.into()).await.unwrap();
    let there = store.head(&folder.clone().join("1.parquet")).await.unwrap();
    let marker = ObjectMeta { location: folder.clone(), size: 0, ..there };
    let rows = read_parquet(&Around(Marked { store, marker }), &folder).await.unwrap();
    assert_eq!(rows.iter().map(|rows| rows.num_rows()).sum::<usize>(), 0);
}
