//! The declaration of a table's columns, which each start writes.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod around;

use std::sync::{Arc, Mutex};

use arrow::datatypes::DataType;
use async_trait::async_trait;
use millstream_core::{Column, Result, Role, Sink, Table};
use millstream_lake::LakeSink;
use object_store::{
    ObjectStore, PutMode, PutOptions, PutPayload, PutResult, Result as StoreResult, memory::InMemory, path::Path,
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
