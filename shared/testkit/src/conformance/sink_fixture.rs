//! The tables and rows that the checks of sinks use.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use millstream_core::{Column, Combine, Fence, Role, Sink, Table, TopicPartition, meta};

use super::SinkHarness;
use crate::{
    TestCombine,
    rows::{rows, texts},
};

/// Opens and prepares.
pub(super) async fn open(harness: &dyn SinkHarness, store: &str, table: Table) -> Arc<dyn Sink> {
    let sink = harness.open(store, "suite.function", table).await;
    sink.prepare(true).await.unwrap();
    sink
}

/// The partition that most checks use.
pub(super) fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("transaction", 1, number)
}

/// The fence after `from` has moved to `next_offset`.
pub(super) fn moved(from: &Fence, next_offset: i64) -> Fence {
    Fence { next_offset, last_timestamp_ms: Some(1_700_000_000_000 + next_offset), ..from.clone() }
}

/// Everything that the sink holds, as text.
pub(super) async fn held(sink: &dyn Sink) -> Vec<Vec<String>> {
    texts(&sink.snapshot().await.unwrap().rows)
}

/// A table that rows are appended to: `_offset` and `text`.
pub(super) fn plain_table() -> Table {
    let column = |name: &str, data_type| Column { name: name.into(), data_type, nullable: true, role: Role::Value };
    let columns = vec![column(meta::OFFSET, DataType::Int64), column("text", DataType::Utf8)];
    Table { name: "plain".into(), columns, combine: None, view: None }
}

/// One row per offset.
pub(super) fn plain_rows(offsets: impl IntoIterator<Item = i64>) -> RecordBatch {
    let offsets: Int64Array = offsets.into_iter().collect::<Vec<_>>().into();
    let texts: ArrayRef =
        Arc::new(StringArray::from_iter_values(offsets.values().iter().map(|at| format!("row {at}"))));
    rows(&plain_table(), vec![Arc::new(offsets), texts])
}

/// A column that may hold nulls.
pub(super) fn column(name: &str, data_type: DataType, role: Role) -> Column {
    Column { name: name.into(), data_type, nullable: true, role }
}

/// A table whose rows merge by the roles of its columns.
pub(super) fn merging(name: &str, columns: Vec<Column>) -> Table {
    let combine = Some(Arc::new(TestCombine::new(&columns)) as Arc<dyn Combine>);
    Table { name: name.into(), columns, combine, view: None }
}
