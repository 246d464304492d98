use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::DataType,
};
use async_trait::async_trait;
use millstream_core::{Role, Sink, Table};
use millstream_postgres::PostgresSink;
use millstream_testkit::conformance::{SinkCheck, SinkHarness};
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

    fn unstorable(&self) -> Option<(Table, RecordBatch)> {
        let table = table("unstorable", vec![column("text", DataType::Utf8, Role::Value)]);
        let rows = RecordBatch::try_new(table.schema(), vec![Arc::new(StringArray::from(vec!["a\0b"]))]).unwrap();
        Some((table, rows))
    }
}

async fn conforms(way: Way, check: SinkCheck) {
    let harness = Harness { way, stores: Mutex::default() };
    check.run(&harness).await;
    for database in harness.stores.lock().await.values() {
        database.drop().await;
    }
}

mod direct {
    use crate::support::Way;

    millstream_testkit::sink_tests!(super::conforms, Way::Direct);
    millstream_testkit::merging_sink_tests!(super::conforms, Way::Direct);
}

mod pgbouncer {
    use crate::support::Way;

    millstream_testkit::sink_tests!(super::conforms, Way::PgBouncer);
    millstream_testkit::merging_sink_tests!(super::conforms, Way::PgBouncer);
}

mod tls {
    use crate::support::Way;

    millstream_testkit::sink_tests!(super::conforms, Way::Tls);
    millstream_testkit::merging_sink_tests!(super::conforms, Way::Tls);
}
