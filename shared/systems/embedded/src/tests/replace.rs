//! What a rebuilt table does with what is around the old one.

use std::sync::Arc;

use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::DataType,
};
use async_trait::async_trait;
use millstream_core::{
    CatchUp, Claim, Column, Error, Fence, Merge, Owner, OwnerRecord, Replace as _, Replaced, Replacement, Role,
    Sink as _, Table, TopicPartition, View,
};
use millstream_testkit::TestCombine;
use rusqlite::Connection;

use super::open;
use crate::{Embedded, EmbeddedSink};

fn column(name: &str, role: Role) -> Column {
    Column { name: name.into(), data_type: DataType::Int64, nullable: true, role }
}

/// Rows are appended to it.
fn plain(name: &str, columns: &[&str]) -> Table {
    let columns = columns.iter().map(|name| column(name, Role::Value)).collect();
    Table { name: name.into(), columns, combine: None, view: None }
}

fn results(name: &str) -> Table {
    plain(name, &["n"])
}

/// Hidden states, and what is finished from them.
fn states(name: &str) -> Table {
    let columns = vec![column("k", Role::Key), column("n", Role::State(Merge::Sum))];
    let view = View {
        name: name.into(),
        columns: vec![("k".into(), DataType::Int64), ("n".into(), DataType::Int64)],
        select: String::new(),
        together: vec!["k".into()],
    };
    let combine = Arc::new(TestCombine::new(&columns));
    Table { name: format!("{name}_state"), columns, combine: Some(combine), view: Some(view) }
}

fn owner(function: &str) -> Owner {
    Owner { function: function.into(), fingerprint: String::new(), declaration: String::new() }
}

/// Nothing came meanwhile.
struct Nothing;

#[async_trait]
impl CatchUp for Nothing {
    async fn catch_up(&self, _: &[(TopicPartition, Fence)]) -> millstream_core::Result<()> {
        Ok(())
    }
}

struct Scene {
    store: Arc<Embedded>,
    record: OwnerRecord,
    new: EmbeddedSink,
    place: Table,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn new(old: Table, beside: Table, place: Table) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let (_, record) = begin(&store, "p.f", old).await;
        let (new, _) = begin(&store, "p.f.rebuild", beside).await;
        Self { store, record, new, place, _folder: folder }
    }

    fn replacement(&self, drop_dependents: bool) -> Replacement {
        Replacement {
            table: self.place.clone(),
            owner: owner("p.f"),
            record: Some(self.record.clone()),
            old_table: None,
            topics: vec![],
            drop_dependents,
        }
    }

    async fn rehearse(&self) -> millstream_core::Result<Vec<String>> {
        self.new.rehearse(&self.replacement(false)).await
    }

    async fn take_place(&self, drop_dependents: bool) {
        let replaced = self.new.take_place(&self.replacement(drop_dependents), &Nothing).await.unwrap();
        assert!(matches!(replaced, Replaced::Done(_)), "{replaced:?}");
    }
}

async fn begin(store: &Arc<Embedded>, function: &str, table: Table) -> (EmbeddedSink, OwnerRecord) {
    let sink = EmbeddedSink::new(store.clone(), function, table);
    sink.prepare(true).await.unwrap();
    let record = sink.claim(&owner(function), &Claim::First).await.unwrap().unwrap();
    sink.begin_term(record.term);
    (sink, record)
}

/// Another function's table, with one row.
async fn stranger(store: &Arc<Embedded>, table: Table) {
    let (sink, _) = begin(store, "q.g", table.clone()).await;
    write_one(&sink, &table).await.unwrap();
}

async fn write_one(sink: &EmbeddedSink, table: &Table) -> millstream_core::Result<()> {
    let at = TopicPartition::new("t", 1, 0);
    let from = sink.create_fence(&at, Fence::starting_at(0)).await?;
    let ones = table.columns.iter().map(|_| Arc::new(Int64Array::from(vec![1])) as _).collect();
    let to = Fence { next_offset: from.next_offset + 1, ..from.clone() };
    sink.write(&at, &from, &to, &[RecordBatch::try_new(table.schema(), ones).unwrap()]).await
}

async fn count(store: &Arc<Embedded>, sql: &'static str) -> i64 {
    let count = move |connection: &Connection| Ok(connection.query_row(sql, [], |row| row.get(0))?);
    store.connections.read(count).await.unwrap()
}

/// As somebody who opens the file by other means does.
fn execute(store: &Embedded, sql: &str) {
    Connection::open(store.connections.path()).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn a_table_of_another_function_with_the_name_of_the_states_stays() {
    let scene = Scene::new(results("sold"), results("sold__rebuild"), results("sold")).await;
    stranger(&scene.store, results("sold_state")).await;
    assert_eq!(scene.rehearse().await.unwrap(), [""; 0]);
    scene.take_place(false).await;
    assert_eq!(count(&scene.store, "SELECT sum(n) FROM sold_state").await, 1);

    let scene = Scene::new(results("sold"), states("sold__rebuild"), states("sold")).await;
    stranger(&scene.store, results("sold_state")).await;
    let refused = scene.rehearse().await.unwrap_err();
    assert!(matches!(&refused, Error::Stop(_)) && refused.to_string().contains("`sold_state`"), "{refused}");
    // A table of its own, but one without states: of a function that has left the pipeline file, and of a version without owners.
    for name in ["DELETE FROM millstream_owners WHERE table_name = 'sold_state'", "DROP TABLE sold"] {
        execute(&scene.store, name);
        assert!(scene.rehearse().await.unwrap_err().to_string().contains("`sold_state`"));
    }
}

#[tokio::test]
async fn the_states_go_with_their_table() {
    let tables = "SELECT count(*) FROM sqlite_master WHERE name LIKE 'sold%' AND type = 'table'";
    for drop in ["", "DROP TABLE sold"] {
        for (beside, place, left) in
            [(states("sold__rebuild"), states("sold"), 2), (results("sold__rebuild"), results("sold"), 1)]
        {
            let scene = Scene::new(states("sold"), beside, place).await;
            execute(&scene.store, drop);
            scene.take_place(false).await;
            assert_eq!(count(&scene.store, tables).await, left, "{drop}");
        }
    }
}

#[tokio::test]
async fn nothing_is_removed_that_no_rebuild_has_made() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    stranger(&store, results("a__rebuild")).await;
    stranger(&store, results("b__rebuild_state")).await;
    for function in ["q.g", "left"] {
        for (name, plan) in
            [("a__rebuild", states as fn(&str) -> Table), ("b__rebuild", states), ("b__rebuild", results)]
        {
            let beside = EmbeddedSink::new(store.clone(), "p.f.rebuild", plan(name));
            let refused = beside.discard().await.unwrap_err().to_string();
            assert!(refused.contains(&format!("`{name}")), "{function}: {refused}");
        }
        execute(&store, "DELETE FROM millstream_owners");
    }
    assert_eq!(count(&store, "SELECT sum(n) FROM a__rebuild").await, 1);
    assert_eq!(count(&store, "SELECT sum(n) FROM b__rebuild_state").await, 1);
    // What a rebuild has made that was killed before its first claim.
    for plan in [states, results] {
        let beside = EmbeddedSink::new(store.clone(), "p.f.rebuild", plan("c__rebuild"));
        beside.prepare(true).await.unwrap();
        beside.discard().await.unwrap();
        assert_eq!(count(&store, "SELECT count(*) FROM sqlite_master WHERE name LIKE 'c\\_%' ESCAPE '\\'").await, 0);
    }
}

#[tokio::test]
async fn an_index_of_a_quoted_column_that_is_gone_is_named() {
    let (old, new) = (["shop", "price"], ["shop", "income"]);
    let scene = Scene::new(plain("sold", &old), plain("sold__rebuild", &new), plain("sold", &new)).await;
    execute(&scene.store, "CREATE INDEX fits ON sold (\"shop\"); CREATE INDEX mine ON sold (\"price\")");
    assert_eq!(scene.rehearse().await.unwrap(), ["index mine"]);
    scene.take_place(true).await;
    assert_eq!(count(&scene.store, "SELECT count(*) FROM sqlite_master WHERE name = 'fits'").await, 1);
    assert_eq!(count(&scene.store, "SELECT count(*) FROM sqlite_master WHERE name = 'mine'").await, 0);
}

#[tokio::test]
async fn a_trigger_is_named() {
    let (old, new) = (["shop", "price"], ["shop", "income"]);
    let scene = Scene::new(plain("sold", &old), plain("sold__rebuild", &new), plain("sold", &new)).await;
    execute(
        &scene.store,
        "CREATE TABLE told (n); CREATE TRIGGER tell AFTER INSERT ON sold BEGIN INSERT INTO told VALUES (new.price); END;
         CREATE TRIGGER never AFTER UPDATE OF price ON sold BEGIN DELETE FROM told; END",
    );
    assert_eq!(scene.rehearse().await.unwrap(), ["trigger tell", "trigger never"]);
    let refused = scene.new.take_place(&scene.replacement(false), &Nothing).await.unwrap_err().to_string();
    assert!(refused.contains("trigger tell"), "{refused}");
    scene.take_place(true).await;
    let now = EmbeddedSink::new(scene.store.clone(), "p.f", scene.place.clone());
    write_one(&now, &scene.place).await.unwrap();
    assert_eq!(count(&scene.store, "SELECT count(*) FROM sold").await, 1);
}
