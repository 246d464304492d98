use std::{path::PathBuf, sync::Arc};

use arrow::array::{ArrayRef, RecordBatch, TimestampSecondArray};
use async_trait::async_trait;
use millstream_core::{Column, Role, Sink, SystemClock, Table};
use millstream_testkit::{
    conformance::{self, LogUnderTest, SinkHarness, SourceUnderTest},
    rows::rows,
};

use crate::{Embedded, EmbeddedSink};

/// A file per store, and every sink with connections of its own, as in another process.
struct Files(PathBuf);

#[async_trait]
impl SinkHarness for Files {
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink> {
        let store = Embedded::open(&self.0.join(format!("{store}.db")), Arc::new(SystemClock)).unwrap();
        Arc::new(EmbeddedSink::new(store, function, table))
    }

    fn merges(&self) -> bool {
        true
    }

    fn unstorable(&self) -> Option<(Table, RecordBatch)> {
        let column: ArrayRef = Arc::new(TimestampSecondArray::from(vec![i64::MAX]));
        let far =
            Column { name: "far".into(), data_type: column.data_type().clone(), nullable: true, role: Role::Value };
        let table = Table { name: "unstorable".into(), columns: vec![far], combine: None, view: None };
        let row = rows(&table, vec![column]);
        Some((table, row))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_sink() {
    let folder = tempfile::tempdir().unwrap();
    conformance::sink(&Files(folder.path().to_owned())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_log_and_a_source() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(&folder.path().join("log.db"), Arc::new(SystemClock)).unwrap();
    let log = LogUnderTest {
        log: store.clone(),
        producer: store.clone(),
        topics: store.clone(),
        prefix: "suite.".to_owned(),
    };
    conformance::log(&log).await;
    conformance::source(&SourceUnderTest { source: store, log }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(&folder.path().join("letters.db"), Arc::new(SystemClock)).unwrap();
    conformance::dead_letters(store.as_ref()).await;
}
