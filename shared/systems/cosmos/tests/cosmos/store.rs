//! The store beside its sinks: references, what readers see, and columns.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Field, Int32Type, Schema, TimeUnit, TimestampMicrosecondType},
};
use azure_data_cosmos::models::ContainerProperties;
use millstream_core::{Claim, Column, Error, Owner, Role, Rows, TableStore as _};
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
