use std::sync::Arc;

use arrow::{
    array::{Int64Array, RecordBatch, StringArray},
    datatypes::DataType,
};
use millstream_core::{
    Column, DeadLetter, DeadLetters as _, Error, Fence, Log as _, Producer as _, Result, Role, Sink as _, Table,
    TopicPartition, Topics as _,
};

use super::{ROOMY, open, record};
use crate::{Embedded, EmbeddedSink};

/// Lets the file grow to no more than `pages`, as a full disk does.
async fn limit(store: &Embedded, pages: i64) {
    let limit = move |connection: &rusqlite::Connection| {
        let set = format!("PRAGMA max_page_count = {pages}");
        Ok(connection.query_row(&set, [], |row| row.get::<_, i64>(0))?)
    };
    store.connections.write(limit).await.unwrap();
}

fn is_told<T: std::fmt::Debug>(outcome: Result<T>) {
    match outcome {
        Err(Error::Retry(cause)) => {
            let said = cause.to_string();
            assert!(said.contains("store.db: the disk is full, make room on it"), "{said}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn on_a_full_disk_everything_is_tried_again_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let partition = TopicPartition::new("t", 1, 0);
    let column = |name: &str, data_type| Column { name: name.into(), data_type, nullable: true, role: Role::Value };
    let columns = vec![column("word", DataType::Utf8), column("n", DataType::Int64)];
    let table = Table { name: "words".into(), columns, combine: None, view: None };
    let large = "x".repeat(1 << 20);
    let words = StringArray::from(vec![large.as_str()]);
    let rows =
        RecordBatch::try_new(table.schema(), vec![Arc::new(words), Arc::new(Int64Array::from(vec![1]))]).unwrap();
    let letter = DeadLetter {
        function: "p.words".into(),
        position: partition.at(0),
        timestamp_ms: 0,
        key: None,
        value: Some(large.clone().into_bytes()),
        headers: vec![],
        value_bytes: large.len(),
        reason: "bad".into(),
    };
    store.create_topic("t", 1, &[]).await.unwrap();
    let sink = EmbeddedSink::new(store.clone(), "p.words", table);
    sink.prepare(true).await.unwrap();
    let from = sink.create_fence(&partition, Fence::starting_at(0)).await.unwrap();
    let to = Fence { next_offset: 1, rows: 1, ..from.clone() };

    // No file can be smaller than it is: this is the present size.
    limit(&store, 1).await;
    for _ in 0..2 {
        is_told(store.send("t", vec![record(0, &large)]).await);
        is_told(store.put(std::slice::from_ref(&letter)).await);
        is_told(sink.write(&partition, &from, &to, std::slice::from_ref(&rows)).await);
    }
    assert_eq!(
        sink.fence(&partition).await.unwrap(),
        Some(from.clone()),
        "reading goes on, and the fence has not moved"
    );
    assert_eq!(store.watermarks(&partition).await.unwrap().high, 0);
    assert_eq!((store.row_count("words").await.unwrap(), store.count("p.words").await.unwrap()), (0, Some(0)));

    limit(&store, 1 << 20).await;
    store.send("t", vec![record(0, &large)]).await.unwrap();
    store.put(std::slice::from_ref(&letter)).await.unwrap();
    sink.write(&partition, &from, &to, &[rows]).await.unwrap();
    let read = store.read(&partition, 0..9, ROOMY).await.unwrap();
    assert_eq!((read.range(), read.values().value(0)), (0..1, large.as_bytes()));
    assert_eq!(sink.fence(&partition).await.unwrap(), Some(to));
    assert_eq!((store.row_count("words").await.unwrap(), store.count("p.words").await.unwrap()), (1, Some(1)));
}
