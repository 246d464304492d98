//! Several writers at once.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BinaryArray, Int64Array, RecordBatch},
    compute::concat_batches,
};
use async_trait::async_trait;
use millstream_core::{Combine, Error, Fence, Result, Sink, Table};
use millstream_testkit::rows::{rows, texts};

use crate::support::{Database, Way, connect, counts, moved, partition, ready, write};

const WRITERS: i32 = 4;
const WRITES: i64 = 30;
const KEYS: i64 = 200;

/// Every key once, from the smallest or from the largest on; with the writer's number as sketch.
fn every_key(table: &Table, writer: i32, backwards: bool) -> RecordBatch {
    let mut keys: Vec<i64> = (0..KEYS).collect();
    if backwards {
        keys.reverse();
    }
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(keys)), Arc::new(Int64Array::from(vec![1; KEYS as usize]))];
    if table.columns.len() == 3 {
        columns.push(Arc::new(BinaryArray::from_iter_values(vec![[writer as u8]; KEYS as usize])));
    }
    rows(table, columns)
}

/// Keeps the rows' order, so that it is the statement that must order them. Its rows have no key twice.
struct AsTheyCome;

#[async_trait]
impl Combine for AsTheyCome {
    async fn combine(&self, rows: &[RecordBatch]) -> Result<RecordBatch> {
        Ok(concat_batches(&rows[0].schema(), rows).unwrap())
    }

    async fn finish(&self, _: &RecordBatch) -> Result<(RecordBatch, Vec<usize>)> {
        Err(Error::stop("a sink finishes nothing"))
    }
}

/// Writers of their own partitions and processes write the same keys in different orders.
async fn write_all(database: &Database, table: &Table) {
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (sink, table) = (database.sink(table), table.clone());
        sink.prepare(true).await.unwrap();
        writers.push(tokio::spawn(async move {
            let mut fence = sink.create_fence(&partition(writer), Fence::starting_at(0)).await.unwrap();
            for _ in 0..WRITES {
                let to = moved(&fence, fence.next_offset + KEYS);
                sink.write(&partition(writer), &fence, &to, &[every_key(&table, writer, writer % 2 == 1)])
                    .await
                    .unwrap();
                fence = to;
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    // A server process counts its deadlocks when it ends.
    let others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()";
    database.execute(&format!("SELECT pg_terminate_backend(pid) {others}")).await;
    database.wait_until(&format!("SELECT count(*) {others}"), "0").await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(database.ask(deadlocks).await, "0");
}

pub async fn partitions_with_the_same_keys_never_deadlock(way: Way) {
    let database = Database::create(way).await;
    let table = Table { combine: Some(Arc::new(AsTheyCome)), ..counts(false) };
    write_all(&database, &table).await;
    let held = database.sink(&table).snapshot().await.unwrap();
    assert_eq!(held.fences.len(), WRITERS as usize);
    let n = i64::from(WRITERS) * WRITES;
    let expected = rows(
        &table,
        vec![Arc::new((0..KEYS).collect::<Int64Array>()), Arc::new(Int64Array::from(vec![n; KEYS as usize]))],
    );
    assert_eq!(texts(&held.rows), texts(&[expected]));
    database.drop().await;
}

pub async fn sketches_of_two_partitions_merge(way: Way) {
    let database = Database::create(way).await;
    let table = counts(true);
    write_all(&database, &table).await;
    let held = database.sink(&table).snapshot().await.unwrap();
    let n = i64::from(WRITERS) * WRITES;
    let all: Vec<u8> = (0..WRITERS as u8).collect();
    let expected = rows(
        &table,
        vec![
            Arc::new((0..KEYS).collect::<Int64Array>()),
            Arc::new(Int64Array::from(vec![n; KEYS as usize])),
            Arc::new(BinaryArray::from_iter_values(vec![all; KEYS as usize])),
        ],
    );
    assert_eq!(texts(&held.rows), texts(&[expected]));
    database.drop().await;
}

pub async fn a_zombie_waits_for_the_lock_and_inserts_nothing(way: Way) {
    for table in [counts(false), counts(true)] {
        let database = Database::create(way).await;
        let zombie = database.sink(&table);
        let start = ready(&zombie).await;
        // The owner has moved the fence, and has not committed yet.
        let owner = connect(&database.direct_url()).await;
        owner.batch_execute("BEGIN; UPDATE millstream_fences SET next_offset = 7").await.unwrap();
        let task = tokio::spawn({
            let (zombie, rows) = (zombie.clone(), every_key(&table, 0, false));
            async move { write(&zombie, &start, &[rows]).await }
        });
        database
            .wait_until("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'", "1")
            .await;
        owner.batch_execute("COMMIT").await.unwrap();
        match task.await.unwrap() {
            Err(Error::Fenced { current: Some(7) }) => {}
            other => panic!("a zombie must be fenced at 7, got {other:?}"),
        }
        assert_eq!(database.ask("SELECT count(*) FROM counts").await, "0");
        database.drop().await;
    }
}

pub async fn instances_that_start_at_once_create_one_table(way: Way) {
    let database = Database::create(way).await;
    let table = counts(false);
    let starts: Vec<_> = (0..6)
        .map(|_| {
            let sink = database.sink(&table);
            tokio::spawn(async move { sink.prepare(true).await })
        })
        .collect();
    for start in starts {
        start.await.unwrap().unwrap();
    }
    let indexes = "SELECT count(*) FROM pg_index WHERE indrelid = 'counts'::regclass";
    assert_eq!(database.ask(indexes).await, "1", "one index, made once");
    database.drop().await;
}
