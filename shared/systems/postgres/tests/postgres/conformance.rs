use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::DataType,
};
use async_trait::async_trait;
use millstream_core::{Role, Sink, Table};
use millstream_postgres::PostgresSink;
use millstream_testkit::conformance::{SinkHarness, sink};
use tokio::sync::Mutex;

use crate::support::{Database, Way, column, table};

/// A store is a database.
struct Harness {
    way: Way,
    stores: Mutex<HashMap<String, Database>>,
}

#[async_trait]
impl SinkHarness for Harness {
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink> {
        let mut stores = self.stores.lock().await;
        if !stores.contains_key(store) {
            stores.insert(store.to_owned(), Database::create(self.way).await);
        }
        Arc::new(PostgresSink::new(stores[store].pool(), function, table).unwrap())
    }

    fn merges(&self) -> bool {
        true
    }

    fn unstorable(&self) -> Option<(Table, RecordBatch)> {
        let table = table("unstorable", vec![column("text", DataType::Utf8, Role::Value)]);
        let rows = RecordBatch::try_new(table.schema(), vec![Arc::new(StringArray::from(vec!["a\0b"]))]).unwrap();
        Some((table, rows))
    }
}

pub async fn the_contract_holds(way: Way) {
    let harness = Harness { way, stores: Mutex::default() };
    sink(&harness).await;
    for database in harness.stores.lock().await.values() {
        database.drop().await;
    }
}
