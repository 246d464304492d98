//! A bare Cassandra driver that inserts rows.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use scylla::{
    client::session_builder::SessionBuilder,
    value::{CqlDecimal, CqlTimestamp},
};

use crate::Failure;

const PARTITIONS: i64 = 3;
/// How many inserts of a partition are in flight at once: as many as the event store's.
const AT_ONCE: usize = 128;
/// Rows in a partition of the table: as in the event store.
const BUCKET: i64 = 10_000;

/// Inserts `rows` rows of the shape of an event store's, and waits to be killed.
///
/// # Errors
/// Those of the driver.
pub async fn insert(cassandra: &str, keyspace: &str, rows: u64) -> Result<(), Failure> {
    let session = SessionBuilder::new().known_node(cassandra).build().await?;
    session
        .query_unpaged(
            format!(
                "CREATE TABLE {keyspace}.kept (topic text, generation int, part int, bucket bigint, \"offset\" bigint, time timestamp, \
                 branch text, currency text, amount decimal, at bigint, PRIMARY KEY ((topic, generation, part, bucket), \"offset\"))"
            ),
            (),
        )
        .await?;
    let insert = format!(
        "INSERT INTO {keyspace}.kept (topic, generation, part, bucket, \"offset\", time, branch, currency, amount, at) VALUES \
         (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    );
    let mut insert = session.prepare(insert).await?;
    insert.set_is_idempotent(true);
    let (session, insert) = (Arc::new(session), Arc::new(insert));
    let one = move |partition: i64, offset: i64| {
        let (session, insert) = (Arc::clone(&session), Arc::clone(&insert));
        async move {
            let row = offset * PARTITIONS + partition;
            let amount =
                CqlDecimal::from_signed_be_bytes_slice_and_exponent(&(row as u32 % 1_000_000).to_be_bytes(), 2);
            let time = CqlTimestamp(1_767_225_600_000 + row / 10);
            let at_us = 1_767_225_600_000_000 + row * 100;
            let values =
                ("w4", 1_i32, partition as i32, offset / BUCKET, offset, time, "Amsterdam", "EUR", amount, at_us);
            session.execute_unpaged(&insert, values).await.map(drop)
        }
    };
    // Each partition in a task of its own, as the event store writes them.
    let tasks = (0..PARTITIONS).map(|partition| {
        let (one, offsets) = (one.clone(), 0..(rows as i64 - partition + PARTITIONS - 1) / PARTITIONS);
        let inserts = stream::iter(offsets.map(move |offset| one(partition, offset)));
        tokio::spawn(inserts.buffer_unordered(AT_ONCE).try_collect::<()>())
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    println!("inserted {rows} rows");
    loop {
        std::thread::park();
    }
}
