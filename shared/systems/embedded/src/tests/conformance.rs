use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::array::{ArrayRef, RecordBatch, TimestampSecondArray};
use async_trait::async_trait;
use millstream_core::{Column, Role, Sink, SystemClock, Table};
use millstream_testkit::{
    conformance::{DeadLettersCheck, LogCheck, LogUnderTest, SinkCheck, SinkHarness, SourceCheck, SourceUnderTest},
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

    fn unstorable(&self) -> Option<(Table, RecordBatch)> {
        let column: ArrayRef = Arc::new(TimestampSecondArray::from(vec![i64::MAX]));
        let far =
            Column { name: "far".into(), data_type: column.data_type().clone(), nullable: true, role: Role::Value };
        let table = Table { name: "unstorable".into(), columns: vec![far], combine: None, view: None };
        let row = rows(&table, vec![column]);
        Some((table, row))
    }
}

async fn keeps_rows(check: SinkCheck) {
    let folder = tempfile::tempdir().unwrap();
    check.run(&Files(folder.path().to_owned())).await;
}

async fn is_a_log(check: LogCheck) {
    let folder = tempfile::tempdir().unwrap();
    check.run(&under_test(folder.path()).log).await;
}

async fn is_a_source(check: SourceCheck) {
    let folder = tempfile::tempdir().unwrap();
    check.run(&under_test(folder.path())).await;
}

async fn keeps_dead_letters(check: DeadLettersCheck) {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(&folder.path().join("letters.db"), Arc::new(SystemClock)).unwrap();
    check.run(store.as_ref()).await;
}

fn under_test(folder: &Path) -> SourceUnderTest {
    let source = Embedded::open(&folder.join("log.db"), Arc::new(SystemClock)).unwrap();
    let (log, producer, topics) = (source.clone(), source.clone(), source.clone());
    SourceUnderTest { source, log: LogUnderTest { log, producer, topics, prefix: "suite.".to_owned() } }
}

mod sink {
    millstream_testkit::sink_tests!(super::keeps_rows);
    millstream_testkit::merging_sink_tests!(super::keeps_rows);
}

mod log {
    millstream_testkit::log_tests!(super::is_a_log);
}

mod source {
    millstream_testkit::source_tests!(super::is_a_source);
}

mod letters {
    millstream_testkit::dead_letter_tests!(super::keeps_dead_letters);
}
