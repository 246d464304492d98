use std::sync::Arc;

use millstream_core::{
    Clock, DeadLetter, DeadLetters, Error, Log, ManualClock, NewRecord, Producer, TopicPartition, Topics, Watermarks,
};

use super::{NOW_US, ROOMY, open, record};
use crate::Embedded;

#[tokio::test]
async fn what_was_answered_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_topic("t", 1, &[]).await.unwrap();
    store.send("t", vec![record(0, "a"), record(0, "b")]).await.unwrap();
    // What a killed process leaves: the files as they are, never closed.
    let killed = tempfile::tempdir().unwrap();
    for file in ["store.db", "store.db-wal"] {
        std::fs::copy(folder.path().join(file), killed.path().join(file)).unwrap();
    }
    let again = open(killed.path());
    let batch = again.read(&TopicPartition::new("t", 1, 0), 0..9, ROOMY).await.unwrap();
    assert_eq!(batch.values().iter().flatten().collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!(batch.timestamps_ms().value(0), ManualClock::at_us(NOW_US).now_ms());
}

#[tokio::test]
async fn other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let clock = || Arc::new(ManualClock::default());
    let stops = |name: &str, says: &str| match Embedded::open(&folder.path().join(name), clock()) {
        Err(Error::Stop(cause)) => assert!(cause.to_string().contains(says), "{cause}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("{name} was opened"),
    };
    std::fs::write(folder.path().join("text"), "no database, but long enough to have a header\n".repeat(100)).unwrap();
    stops("text", "not a SQLite file");
    stops("no/such/folder", "folder exists");

    let raw = |name: &str, sql: &str| {
        let connection = rusqlite::Connection::open(folder.path().join(name)).unwrap();
        connection.execute_batch(sql).unwrap();
    };
    raw("foreign", "CREATE TABLE t (a)");
    stops("foreign", "another program");
    drop(Embedded::open(&folder.path().join("newer"), clock()).unwrap());
    raw("newer", "PRAGMA user_version = 99");
    stops("newer", "layout 99");
}

/// A file of layout 1 is brought up to date in place: its topics get ids, its fences have none yet.
#[tokio::test]
async fn a_file_of_an_older_version_is_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let partition = TopicPartition::new("t", 1, 0);
    let store = open(folder.path());
    store.create_topic("t", 1, &[]).await.unwrap();
    store.send("t", vec![record(0, "a")]).await.unwrap();
    drop(store);
    let older = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    older
        .execute_batch(
            "DROP INDEX millstream_dead_letters_newest; DROP TABLE millstream_senders; ALTER TABLE millstream_topics DROP COLUMN uuid; ALTER TABLE millstream_fences DROP COLUMN topic_id;
             ALTER TABLE millstream_fences DROP COLUMN rows; ALTER TABLE millstream_fences DROP COLUMN term;
             DROP TABLE millstream_owners;
             INSERT INTO millstream_fences VALUES ('p.f', 't', 1, 0, 0, 1, 5, NULL, '{}', '');
             PRAGMA user_version = 1",
        )
        .unwrap();
    drop(older);
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..4).map(|_| scope.spawn(|| drop(open(folder.path())))).collect();
        opened.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let store = open(folder.path());
    let id = store.topic_id("t").await.unwrap();
    assert!(id.as_ref().is_some_and(|id| id.len() == 32), "{id:?}");
    assert_eq!(open(folder.path()).topic_id("t").await.unwrap(), id, "it is given once");
    let fences = store.fences("p.f").await.unwrap();
    assert_eq!((fences[0].0.clone(), fences[0].1.next_offset, fences[0].1.topic_id.clone()), (partition, 1, None));
    assert_eq!(store.watermarks(&fences[0].0).await.unwrap().high, 1);
    let file = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    let has_index = "SELECT count(*) FROM sqlite_master WHERE name = 'millstream_dead_letters_newest'";
    let indexes = || file.query_row(has_index, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(indexes(), 1);
    // As another process of version 1 leaves it, and as the first migration did.
    file.execute_batch("UPDATE millstream_topics SET uuid = NULL; DROP INDEX millstream_dead_letters_newest").unwrap();
    assert!(open(folder.path()).topic_id("t").await.unwrap().is_some());
    assert_eq!(indexes(), 1);
}

#[test]
fn many_open_a_new_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..8).map(|_| scope.spawn(|| drop(open(folder.path())))).collect();
        opened.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[tokio::test]
async fn offsets_outlive_their_records() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let partition = TopicPartition::new("t", 1, 1);
    store.create_topic("t", 2, &[]).await.unwrap();
    store.send("t", (0..10).map(|value| record(1, value)).collect()).await.unwrap();
    store.delete_records("t", 1, 4).await.unwrap();
    assert_eq!(store.watermarks(&partition).await.unwrap(), Watermarks { low: 4, high: 10 });
    match store.read(&partition, 3..10, ROOMY).await {
        Err(Error::Stop(cause)) => assert!(cause.to_string().contains("begins at offset 4"), "{cause}"),
        other => panic!("{other:?}"),
    }
    store.delete_records("t", 1, 99).await.unwrap();
    let positions = store.send("t", vec![record(1, "next")]).await.unwrap();
    assert_eq!((positions[0].offset, store.watermarks(&partition).await.unwrap().low), (10, 10));

    let id = store.topic_id("t").await.unwrap();
    store.delete_topic("t").await.unwrap();
    assert!(matches!(store.watermarks(&partition).await, Err(Error::Stop(_))));
    store.create_topic("t", 2, &[]).await.unwrap();
    assert_eq!(store.watermarks(&partition).await.unwrap(), Watermarks { low: 0, high: 0 });
    assert!(store.topic_id("t").await.unwrap() != id, "another topic of the same name");
}

#[tokio::test]
async fn records_without_key_go_round_and_a_send_is_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_topic("t", 3, &[]).await.unwrap();
    for _ in 0..2 {
        store.send("t", vec![NewRecord::default(); 3]).await.unwrap();
    }
    for partition in 0..3 {
        let held = store.watermarks(&TopicPartition::new("t", 1, partition)).await.unwrap();
        assert_eq!(held, Watermarks { low: 0, high: 2 });
    }
    assert!(matches!(store.send("t", vec![record(0, "a"), record(3, "b")]).await, Err(Error::Stop(_))));
    assert_eq!(store.watermarks(&TopicPartition::new("t", 1, 0)).await.unwrap().high, 2);
}

#[tokio::test]
async fn dead_letters_are_kept_once_for_every_process() {
    let folder = tempfile::tempdir().unwrap();
    let letter = |function: &str, offset, reason: &str| DeadLetter {
        function: function.to_owned(),
        position: TopicPartition::new("t", 1, 0).at(offset),
        timestamp_ms: 5,
        key: None,
        value: Some(b"\xff".to_vec()),
        headers: vec![("trace".to_owned(), vec![0, 255])],
        value_bytes: 1,
        reason: reason.to_owned(),
    };
    let letters = [letter("p.f", 10, "first"), letter("p.f", 9, "b"), letter("p.g", 10, "c")];
    open(folder.path()).put(&letters).await.unwrap();
    let store = open(folder.path());
    store.put(&[letter("p.f", 10, "second")]).await.unwrap();
    // The clock stands still: then the position decides.
    let newest_first = [letters[2].clone(), letters[0].clone(), letters[1].clone()];
    assert_eq!(store.list(None, 10).await.unwrap(), newest_first);
    assert_eq!(store.list(Some("p.f"), 10).await.unwrap(), newest_first[1..]);
    assert_eq!(store.count("p.f").await.unwrap(), Some(2));
    assert_eq!(store.count("p.g").await.unwrap(), Some(1));
}

#[tokio::test]
async fn a_lock_that_is_never_given_back_is_a_retry() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_topic("t", 1, &[]).await.unwrap();
    let other = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    match store.send("t", vec![record(0, "a")]).await {
        Err(Error::Retry(cause)) => assert!(cause.to_string().contains("another process"), "{cause}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.partitions("t").await.unwrap(), 1, "readers don't wait for writers");
    other.execute_batch("ROLLBACK").unwrap();
    store.send("t", vec![record(0, "a")]).await.unwrap();
}
