//! References that are asked by key.

use std::sync::Arc;

use arrow::{
    array::{Array as _, ArrayRef, AsArray, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use azure_data_cosmos::models::ContainerProperties;
use millstream_core::{Column, Error, Result, Role, Table, TableStore as _, meta};

use crate::support::{Account, logins, partition, rows, write};

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn users() -> SchemaRef {
    schema(&[("user", DataType::Utf8), ("note", DataType::Utf8)])
}

fn keys(users: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(users.to_vec()))
}

/// User and note of each row, in order.
fn notes(found: &[RecordBatch]) -> Vec<(String, Option<String>)> {
    let of = |rows: &RecordBatch| {
        let (users, notes) = (rows.column(0).as_string::<i32>(), rows.column(1).as_string::<i32>());
        users
            .iter()
            .zip(notes)
            .map(|(user, note)| (user.unwrap().to_owned(), note.map(str::to_owned)))
            .collect::<Vec<_>>()
    };
    let mut notes: Vec<_> = found.iter().flat_map(of).collect();
    notes.sort();
    notes
}

fn note(user: &str, note: Option<&str>) -> (String, Option<String>) {
    (user.to_owned(), note.map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entity_is_asked_for_its_newest_row() {
    let account = Account::create();
    let (store, sink) = (account.store().await, account.sink(&logins()).await);
    sink.prepare(true).await.unwrap();
    let long = "x".repeat(5_000);
    let logged_in = [
        ("ann", Some("first"), 1, 1),
        ("bo", None, 2, 1),
        ("ann", Some("second"), 3, 1),
        ("_columns", Some("odd"), 4, 1),
        ("..", Some("dots"), 5, 1),
        (&*long, Some("long"), 6, 1),
    ];
    write(sink.as_ref(), &partition(0), 0, 7, rows(&logged_in)).await;
    let ask = keys(&["ann", "bo", "cy", "", "Z\u{fc}rich", "_columns", "..", &long]);
    let expected = [
        note("..", Some("dots")),
        note("_columns", Some("odd")),
        note("ann", Some("second")),
        note("bo", None),
        note(&long, Some("long")),
    ];
    for name in ["logins", "logins_newest"] {
        let found = store.read_by_key(name, &users(), "user", &ask).await.unwrap();
        assert_eq!(notes(&found), expected, "{name}");
        let all = store.read_all_by_key(name, &users(), "user").await.unwrap();
        assert_eq!(notes(&all), expected, "what an audit joins");
    }
    assert!(store.read_by_key("logins", &users(), "user", &keys(&[])).await.unwrap().is_empty());
    let many: Vec<_> = (0..1_100).map(|number| (format!("user {number}"), i64::from(number) + 7)).collect();
    let batch: Vec<_> = many.iter().map(|(user, offset)| (user.as_str(), None, *offset, 1)).collect();
    let from = sink.fence(&partition(0)).await.unwrap().unwrap();
    let to = millstream_core::Fence { next_offset: 1_107, ..from.clone() };
    sink.write(&partition(0), &from, &to, &[rows(&batch)]).await.unwrap();
    let ask: Vec<_> = many.iter().map(|(user, _)| user.as_str()).collect();
    let found = store.read_by_key("logins", &users(), "user", &keys(&ask)).await.unwrap();
    assert_eq!(notes(&found).len(), 1_100, "more than a page");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_asked_by_key_says_so() {
    let account = Account::create();
    let store = account.store().await;
    account.sink(&logins()).await.prepare(true).await.unwrap();
    account.by_hand().await.create_container(ContainerProperties::new("Rates", "/pk".into()), None).await.unwrap();
    let said = async |name: &str, schema: &SchemaRef, by: &str, keys: ArrayRef| {
        let by_key = store.read_by_key(name, schema, by, &keys).await;
        match by_key {
            Err(Error::Stop(cause)) => cause.to_string(),
            other => panic!("must stop, got {other:?}"),
        }
    };
    assert!(said("nothing", &users(), "user", keys(&[])).await.ends_with("there is no such container"));
    assert!(said("Rates", &users(), "user", keys(&[])).await.contains("can't be found by user"));
    assert!(said("logins", &users(), "note", keys(&[])).await.contains("can't be found by note"));
    let more = schema(&[("user", DataType::Utf8), ("more", DataType::Utf8)]);
    assert!(said("logins", &more, "user", keys(&[])).await.ends_with("it has no column more"));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let asked = said("logins", &schema(&[("user", DataType::Int64)]), "user", numbers).await;
    assert!(asked.contains("its key user is a string, and is asked by a bigint"), "{asked}");
    for by in ["user", "note"] {
        let all = store.read_all_by_key("Rates", &users(), by).await;
        assert!(matches!(all, Err(Error::Stop(_))), "{all:?}");
    }
}

/// Asks for rows of a table whose entity has another type than a text.
async fn ask(entity: ArrayRef, asked: ArrayRef) -> Result<usize> {
    let account = Account::create();
    let column = |name: &str, data_type: &DataType, role| Column {
        name: name.into(),
        data_type: data_type.clone(),
        nullable: true,
        role,
    };
    let columns =
        vec![column("id", entity.data_type(), Role::Entity), column(meta::OFFSET, &DataType::Int64, Role::Carried)];
    let table = Table { name: "things".into(), columns, combine: None, view: None };
    let offsets = Int64Array::from_iter_values(0..i64::try_from(entity.len()).unwrap());
    let batch = RecordBatch::try_new(table.schema(), vec![entity, Arc::new(offsets)]).unwrap();
    let sink = account.sink(&table).await;
    sink.prepare(true).await.unwrap();
    write(sink.as_ref(), &partition(0), 0, 9, batch).await;
    let schema = schema(&[("id", asked.data_type().clone())]);
    let found = account.store().await.read_by_key("things", &schema, "id", &asked).await?;
    Ok(found.iter().map(RecordBatch::num_rows).sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_texts_integers_or_dates() {
    let large = i64::MAX - 1;
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![-1, 2, large]));
    assert_eq!(ask(Arc::clone(&numbers), Arc::new(Int64Array::from(vec![large, 2, 5]))).await.unwrap(), 2);
    assert_eq!(ask(Arc::clone(&numbers), Arc::new(Int32Array::from(vec![-1]))).await.unwrap(), 1, "a narrower one");
    let days: ArrayRef = Arc::new(Date32Array::from(vec![0, 20_000]));
    assert_eq!(ask(Arc::clone(&days), Arc::new(Date32Array::from(vec![20_000, 1]))).await.unwrap(), 1);
    assert!(matches!(ask(days, numbers).await, Err(Error::Stop(_))));
}
