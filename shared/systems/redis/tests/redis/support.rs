//! Databases, tables and rows for the tests.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::DataType,
};
use millstream_core::{
    Column, Fence, Result, Role, Sink, Table, TableStore as _, TopicPartition, meta, timestamp_type,
};
use millstream_redis::Redis;
use redis::{FromRedisValue, aio::MultiplexedConnection};

#[expect(clippy::disallowed_methods, reason = "the address of a service comes from the environment")]
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `tests/services start redis` and source the file that it names")
    })
}

/// A database that one test has for itself.
#[derive(Clone, Debug)]
pub struct Database {
    pub url: String,
}

impl Database {
    pub async fn create() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Another run on the same server has other ones.
        let number = 1 + std::process::id() % 8 * 500 + NUMBER.fetch_add(1, Ordering::Relaxed);
        let database = Self { url: format!("{}/{number}", setting("MILLSTREAM_TEST_REDIS")) };
        database.ask::<()>("FLUSHDB", &[]).await;
        database
    }

    /// A sink with a connection of its own, as another process has.
    pub fn sink(&self, table: &Table) -> Arc<dyn Sink> {
        Redis::at(&self.url).unwrap().sink("test.function", table.clone()).unwrap()
    }

    pub async fn connect(&self) -> MultiplexedConnection {
        redis::Client::open(&*self.url).unwrap().get_multiplexed_async_connection().await.unwrap()
    }

    /// Asks the server itself.
    pub async fn ask<T: FromRedisValue>(&self, command: &str, arguments: &[&str]) -> T {
        redis::cmd(command).arg(arguments).query_async(&mut self.connect().await).await.unwrap()
    }

    /// The fields of a hash.
    pub async fn hash(&self, key: &str) -> BTreeMap<String, String> {
        self.ask("HGETALL", &[key]).await
    }
}

/// The newest balance of each account.
pub fn balances() -> Table {
    let column = |name: &str, data_type, nullable, role| Column { name: name.into(), data_type, nullable, role };
    let columns = vec![
        column("account", DataType::Utf8, false, Role::Entity),
        column("amount", DataType::Int64, true, Role::Value),
        column("note", DataType::Utf8, true, Role::Value),
        column(meta::OFFSET, DataType::Int64, false, Role::Carried),
        column(meta::TIMESTAMP, timestamp_type(), true, Role::Carried),
    ];
    Table { name: "balance".into(), columns, combine: None, view: None }
}

/// The same rows without an entity.
pub fn alerts() -> Table {
    let mut table = Table { name: "alert".into(), ..balances() };
    table.columns[0].role = Role::Value;
    table
}

/// An account, an amount, a note and an offset.
pub type Row<'a> = (&'a str, Option<i64>, Option<&'a str>, i64);

pub fn rows(of: &[Row<'_>]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(of.iter().map(|row| row.0))),
        Arc::new(Int64Array::from_iter(of.iter().map(|row| row.1))),
        Arc::new(StringArray::from_iter(of.iter().map(|row| row.2))),
        Arc::new(Int64Array::from_iter_values(of.iter().map(|row| row.3))),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(
                of.iter().map(|row| 1_800_000_000_000_000 + row.3 % 1_000_000 * 1_000),
            )
            .with_timezone("UTC"),
        ),
    ];
    RecordBatch::try_new(balances().schema(), columns).unwrap()
}

pub fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("transaction", 1, number)
}

pub fn moved(from: &Fence, next_offset: i64) -> Fence {
    Fence { next_offset, ..from.clone() }
}

/// Prepares, and creates the fence of partition 0 at offset 0.
pub async fn ready(sink: &dyn Sink) -> Fence {
    sink.prepare(true).await.unwrap();
    sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap()
}

/// Writes rows to partition 0, up to the offset behind the last one.
pub async fn write(sink: &dyn Sink, from: &Fence, of: &[Row<'_>]) -> Result<Fence> {
    let to = moved(from, of.last().map_or(from.next_offset, |row| row.3 + 1));
    sink.write(&partition(0), from, &to, &[rows(of)]).await.map(|()| to)
}

/// The rows of a snapshot, as text and sorted.
pub async fn held(sink: &dyn Sink) -> Vec<Vec<String>> {
    millstream_testkit::rows::texts(&sink.snapshot().await.unwrap().rows)
}

pub fn texts(of: &[Row<'_>]) -> Vec<Vec<String>> {
    millstream_testkit::rows::texts(&[rows(of)])
}
