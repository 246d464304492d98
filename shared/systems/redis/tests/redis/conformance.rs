//! The contract of sinks, on a table without an entity: its rows are found again one by one.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Int64Array, RecordBatch, StringArray},
    datatypes::DataType,
};
use async_trait::async_trait;
use millstream_core::{Column, Role, Sink, Table, TableStore as _, meta};
use millstream_redis::Redis;
use millstream_testkit::conformance::{SinkCheck, SinkHarness};
use tokio::sync::Mutex;

use crate::support::Database;

/// A store is a database.
#[derive(Default)]
struct Harness {
    stores: Mutex<HashMap<String, Database>>,
}

#[async_trait]
impl SinkHarness for Harness {
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink> {
        let mut stores = self.stores.lock().await;
        if !stores.contains_key(store) {
            stores.insert(store.to_owned(), Database::create().await);
        }
        Redis::at(&stores[store].url).unwrap().sink(function, table).unwrap()
    }

    fn is_atomic(&self) -> bool {
        false
    }

    /// The statement gives two rows for one event.
    fn unstorable(&self) -> Option<(Table, RecordBatch)> {
        let column = |name: &str, data_type| Column { name: name.into(), data_type, nullable: true, role: Role::Value };
        let columns = vec![column(meta::OFFSET, DataType::Int64), column("text", DataType::Utf8)];
        let table = Table { name: "unstorable".into(), columns, combine: None, view: None };
        let (offsets, texts) = (Int64Array::from(vec![0, 0]), StringArray::from(vec!["a", "b"]));
        let rows = RecordBatch::try_new(table.schema(), vec![Arc::new(offsets), Arc::new(texts)]).unwrap();
        Some((table, rows))
    }
}

async fn conforms(check: SinkCheck) {
    let harness = Harness::default();
    check.run(&harness).await;
    for database in harness.stores.lock().await.values() {
        database.ask::<()>("FLUSHDB", &[]).await;
    }
}

mod stream {
    millstream_testkit::sink_tests!(super::conforms);
}
