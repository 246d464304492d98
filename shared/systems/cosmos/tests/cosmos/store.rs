//! The store beside its sinks: references, what readers see, and columns.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Field, Int32Type, Schema, TimeUnit, TimestampMicrosecondType},
};
use azure_data_cosmos::models::ContainerProperties;
use millstream_core::{Claim, Column, Error, Owner, Role, Rows, Table, TableStore as _};
use serde_json::json;

use crate::support::{Account, FUNCTION, logins, partition, rows, write};

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_is_anybodys_container() {
    let account = Account::create();
    let database = account.by_hand().await;
    database.create_container(ContainerProperties::new("Rates", "/name".into()), None).await.unwrap();
    let container = database.container_client("Rates", None).await.unwrap();
    for item in [
        json!({"id": "1", "name": "a", "level": 1, "at": "1970-01-01T00:00:01.5Z", "tags": ["x"]}),
        json!({"id": "2", "name": "b", "level": null}),
    ] {
        container
            .create_item(item["name"].as_str().unwrap().to_owned(), item["id"].as_str().unwrap(), &item, None)
            .await
            .unwrap();
    }
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Schema::new(vec![field("at", time), field("level", DataType::Int32), field("name", DataType::Utf8)]);
    let store = account.store().await;
    let read = store.read_reference("Rates", &Arc::new(schema.clone())).await.unwrap();
    let read = arrow::compute::concat_batches(&read[0].schema(), &read).unwrap();
    assert_eq!(read.num_rows(), 2);
    let a = read.column(2).as_string::<i32>().iter().position(|name| name == Some("a")).unwrap();
    assert_eq!(read.column(0).as_primitive::<TimestampMicrosecondType>().value(a), 1_500_000);
    assert_eq!(read.column(1).as_primitive::<Int32Type>().value(a), 1);
    let said = async |table: &str, column: &str| {
        let schema = Schema::new(vec![field(column, DataType::Utf8)]);
        match store.read_reference(table, &Arc::new(schema)).await {
            Err(Error::Stop(cause)) => cause.to_string(),
            other => panic!("must stop, got {other:?}"),
        }
    };
    assert!(said("rates", "name").await.ends_with("there is no such container"));
    assert!(said("Rates", "size").await.ends_with("no item of it has a property size"));
    assert!(said("Rates", "tags").await.contains("column tags: a value is no"));
    // The newest rows of a function, by the same names as in its table.
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    write(sink.as_ref(), &partition(0), 0, 5, rows(&[("ann", Some("n"), 3, 1), ("ann", None, 1, 1)])).await;
    let schema = Arc::new(Schema::new(vec![field("user", DataType::Utf8), field("note", DataType::Utf8)]));
    for (name, expected) in [("logins", 2), ("logins_newest", 1)] {
        let read = store.read_reference(name, &schema).await.unwrap();
        assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_the_rows_below_the_fence() {
    let account = Account::create();
    let (store, sink) = (account.store().await, account.sink(&logins()).await);
    assert_eq!(sink.holding().await.unwrap().rows, Rows::Missing);
    sink.prepare(true).await.unwrap();
    assert_eq!(sink.holding().await.unwrap().rows, Rows::Empty);
    let public = Arc::new(Schema::new(vec![field("user", DataType::Utf8)]));
    assert!(matches!(store.read_public(&logins(), &public).await, Err(Error::Stop(_))), "nobody owns it");
    let owner = Owner { function: FUNCTION.into(), fingerprint: "1".into(), declaration: "{}".into() };
    sink.begin_term(sink.claim(&owner, &Claim::First).await.unwrap().unwrap().term);
    write(sink.as_ref(), &partition(0), 0, 5, rows(&[("ann", None, 3, 1), ("bo", None, 1, 1)])).await;
    assert_eq!(sink.holding().await.unwrap().rows, Rows::Present);
    let read = store.read_public(&logins(), &public).await.unwrap();
    assert_eq!(read.iter().map(|rows| (rows.num_columns(), rows.num_rows())).collect::<Vec<_>>(), [(1, 2)]);
    assert_eq!(store.newest_rows(&logins(), 5).await.unwrap(), None);
    assert_eq!(store.place(), "Cosmos at eastus.emulator.local/bank");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_column_is_null_in_the_rows_of_before() {
    let account = Account::create();
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    write(sink.as_ref(), &partition(0), 0, 1, rows(&[("ann", None, 0, 1)])).await;
    let mut more = logins();
    let column = |nullable| Column { name: "more".into(), data_type: DataType::Int64, nullable, role: Role::Value };
    more.columns.push(column(false));
    let misfits = account.sink(&more).await.misfits().await.unwrap();
    assert!(misfits.len() == 1 && misfits[0].contains("must be nullable"), "{misfits:?}");
    *more.columns.last_mut().unwrap() = column(true);
    let more = account.sink(&more).await;
    assert!(more.prepare(true).await.is_err(), "only an adoption adds columns");
    let owner = Owner { function: FUNCTION.into(), fingerprint: "2".into(), declaration: "{}".into() };
    more.adopt(&owner, None).await.unwrap().unwrap();
    more.prepare(false).await.unwrap();
    let read = more.snapshot().await.unwrap();
    assert_eq!((read.rows[0].num_rows(), read.rows[0].column(4).null_count()), (1, 1));
    sink.prepare(false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_may_be_null_in_some_rows_stays_so() {
    let account = Account::create();
    let with = |nullable| {
        let mut table = logins();
        table.columns[1].nullable = nullable;
        table
    };
    let mut without = logins();
    without.columns.remove(1);
    let fitting = async |table: &Table| {
        let sink = account.sink(table).await;
        let misfits = sink.misfits().await.unwrap();
        assert_eq!(sink.prepare(false).await.is_ok(), misfits.is_empty(), "{misfits:?}");
        misfits.iter().for_each(|said| assert!(said.contains("column note") && said.contains("may be null"), "{said}"));
        misfits.is_empty()
    };
    let owner = |plan: &str| Owner { function: FUNCTION.into(), fingerprint: plan.into(), declaration: "{}".into() };
    let first = account.sink(&with(false)).await;
    first.prepare(true).await.unwrap();
    let record = first.claim(&owner("1"), &Claim::First).await.unwrap().unwrap();
    first.begin_term(record.term);
    first.settle(&partition(0)).await.unwrap();
    assert!(fitting(&with(false)).await && fitting(&with(true)).await && fitting(&without).await);
    // A plan without it is adopted, and begins to write.
    let second = account.sink(&without).await;
    let record = second.adopt(&owner("2"), Some(&record)).await.unwrap().unwrap();
    assert!(fitting(&with(false)).await, "it has written nothing yet");
    second.begin_term(record.term);
    second.settle(&partition(0)).await.unwrap();
    assert!(!fitting(&with(false)).await, "its rows don't have it");
    assert!(fitting(&with(true)).await && fitting(&without).await);
    let ended = first.settle(&partition(0)).await;
    assert!(matches!(ended, Err(Error::Stop(_))), "{ended:?}");
    for container in ["logins", "logins_newest"] {
        let container = account.by_hand().await.container_client(container, None).await.unwrap();
        let noted: serde_json::Value =
            container.read_item("_columns", "_columns", None).await.unwrap().into_model().unwrap();
        assert!(noted["columns"].as_array().unwrap().iter().all(|column| column["nullable"] == true), "{noted}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_cannot_be_read_stops() {
    let account = Account::create();
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    let fence = write(sink.as_ref(), &partition(0), 0, 1, rows(&[("ann", None, 0, 1)])).await;
    let database = account.by_hand().await;
    let fences = database.container_client("millstream_fences", None).await.unwrap();
    // How a service may write a large number back is nobody's trouble.
    let id = "login:1:0";
    let mut item: serde_json::Value = fences.read_item(FUNCTION, id, None).await.unwrap().into_model().unwrap();
    item["next_offset"] = json!(1e300);
    fences.upsert_item(FUNCTION, id, &item, None).await.unwrap();
    assert_eq!(sink.fence(&partition(0)).await.unwrap(), Some(fence));
    assert_eq!(sink.holding().await.unwrap().fences.len(), 1);
    let (pk, offset) = ("login:1:0:0", format!("{:019}", 0));
    let table = database.container_client("logins", None).await.unwrap();
    table.upsert_item(pk, &offset, json!({"id": offset, "pk": pk}), None).await.unwrap();
    let said = sink.snapshot().await.err().unwrap();
    assert!(matches!(&said, Error::Stop(_)) && said.to_string().contains("an item of logins is damaged"), "{said:?}");
    item["term"] = json!("one");
    fences.upsert_item(FUNCTION, id, &item, None).await.unwrap();
    for said in [sink.fence(&partition(0)).await.map(|_| ()), sink.holding().await.map(|_| ())] {
        let said = said.unwrap_err();
        assert!(matches!(&said, Error::Stop(_)) && said.to_string().contains("is damaged"), "{said:?}");
    }
}
