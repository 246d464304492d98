//! The suite of all sinks, on Cassandra and behind each stand-in.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Int64Array, RecordBatch, StringArray},
    datatypes::DataType,
};
use async_trait::async_trait;
use millstream_core::{Column, Role, Sink, Table, TableStore as _, meta};
use millstream_testkit::conformance::{SinkCheck, SinkHarness};
use tokio::sync::Mutex;

use crate::{
    stand_in::Service,
    support::{Keyspace, wait_for_my_turn},
};

/// A store is a keyspace.
///
/// `is_atomic` stays true, though rows come before the fence: of two writers at one fence the compare-and-swap lets one win.
struct Harness {
    service: Service,
    stores: Mutex<HashMap<String, Keyspace>>,
}

#[async_trait]
impl SinkHarness for Harness {
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink> {
        let mut stores = self.stores.lock().await;
        if !stores.contains_key(store) {
            stores.insert(store.to_owned(), Keyspace::create(self.service).await);
        }
        stores[store].store().sink(function, table).unwrap()
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

async fn conforms(service: Service, check: SinkCheck) {
    let _turn = wait_for_my_turn().await;
    let harness = Harness { service, stores: Mutex::default() };
    check.run(&harness).await;
    for keyspace in harness.stores.lock().await.values() {
        keyspace.drop().await;
    }
}

mod cassandra {
    use crate::stand_in::Service;

    millstream_testkit::sink_tests!(super::conforms, Service::Cassandra);
}

mod like_cosmos {
    use crate::stand_in::Service;

    millstream_testkit::sink_tests!(super::conforms, Service::Cosmos);
}

mod like_keyspaces {
    use crate::stand_in::Service;

    millstream_testkit::sink_tests!(super::conforms, Service::Keyspaces);
}
