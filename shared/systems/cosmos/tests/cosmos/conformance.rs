//! The suite of all sinks.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Int64Array, RecordBatch, StringArray},
    datatypes::DataType,
};
use async_trait::async_trait;
use millstream_core::{Column, Role, Sink, Table, TableStore as _, meta};
use millstream_testkit::conformance::{SinkCheck, SinkHarness};
use tokio::sync::Mutex;

use crate::support::Account;

/// A store is an account.
///
/// `is_atomic` stays true, though rows come before the fence: of two writers at one fence the ETag lets one win.
#[derive(Default)]
struct Harness {
    stores: Mutex<HashMap<String, Account>>,
}

#[async_trait]
impl SinkHarness for Harness {
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink> {
        let mut stores = self.stores.lock().await;
        stores.entry(store.to_owned()).or_insert_with(Account::create).store().await.sink(function, table).unwrap()
    }

    fn unstorable(&self) -> Option<(Table, RecordBatch)> {
        let column = |name: &str, data_type| Column { name: name.into(), data_type, nullable: true, role: Role::Value };
        let columns = vec![column(meta::OFFSET, DataType::Int64), column("text", DataType::Utf8)];
        let table = Table { name: "unstorable".into(), columns, combine: None, view: None };
        let (offsets, texts) = (Int64Array::from(vec![0]), StringArray::from(vec!["a\0b"]));
        let rows = RecordBatch::try_new(table.schema(), vec![Arc::new(offsets), Arc::new(texts)]).unwrap();
        Some((table, rows))
    }
}

async fn conforms(check: SinkCheck) {
    check.run(&Harness::default()).await;
}

millstream_testkit::sink_tests!(conforms);
