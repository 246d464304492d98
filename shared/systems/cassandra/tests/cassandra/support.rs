//! Keyspaces and tables for the tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, TimeUnit},
};
use millstream_cassandra::{Cassandra, Gate};
use millstream_core::{
    Clock as _, Column, Connect as _, Env, Fence, Role, Sink, SystemClock, Table, TableStore as _, TopicPartition, meta,
};
use scylla::{
    client::{session::Session, session_builder::SessionBuilder},
    statement::unprepared::Statement,
    value::Row,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::stand_in::{self, Service};

#[expect(clippy::disallowed_methods, reason = "the address of a service comes from the environment")]
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `tests/services start cassandra` and source the file that it names")
    })
}

/// Defining tables is the slow part of a small node, and the tests do nothing so much.
static AT_ONCE: Semaphore = Semaphore::const_new(4);

pub async fn wait_for_my_turn() -> SemaphorePermit<'static> {
    AT_ONCE.acquire().await.unwrap()
}

/// A keyspace that one test has for itself.
pub struct Keyspace {
    pub name: String,
    service: Service,
    by_hand: Session,
}

impl Keyspace {
    /// Creates an empty one.
    pub async fn create(service: Service) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", SystemClock.now_us());
        let by_hand = SessionBuilder::new()
            .known_node(setting("MILLSTREAM_TEST_CASSANDRA"))
            .fetch_schema_metadata(false)
            .refresh_metadata_on_auto_schema_agreement(false);
        let keyspace = Self { name, service, by_hand: by_hand.build().await.unwrap() };
        keyspace
            .query("CREATE KEYSPACE $ WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
            .await;
        keyspace
    }

    pub async fn drop(&self) {
        self.query("DROP KEYSPACE $").await;
    }

    pub fn env(&self) -> Env {
        Env::of([
            ("MILLSTREAM_CASSANDRA_CONTACT_POINTS", setting("MILLSTREAM_TEST_CASSANDRA")),
            ("MILLSTREAM_CASSANDRA_KEYSPACE", self.name.clone()),
            ("MILLSTREAM_CASSANDRA_PROFILE", self.service.profile().to_owned()),
            ("MILLSTREAM_CASSANDRA_TLS", "false".to_owned()),
        ])
    }

    /// With connections of its own, as another process has.
    pub fn store(&self) -> Cassandra {
        match stand_in::of(self.service) {
            None => Cassandra::open(&self.env()).unwrap().unwrap(),
            Some(gate) => self.store_behind(gate),
        }
    }

    pub fn store_behind(&self, gate: Arc<dyn Gate>) -> Cassandra {
        Cassandra::open_behind(&self.env(), gate).unwrap().unwrap()
    }

    pub fn sink(&self, table: &Table) -> Arc<dyn Sink> {
        self.store().sink(FUNCTION, table.clone()).unwrap()
    }

    /// Rows of a statement by hand, in which `$` stands for the keyspace.
    pub async fn query(&self, cql: &str) -> Vec<Row> {
        let mut statement = Statement::new(cql.replace('$', &self.name));
        statement.set_request_timeout(Some(Duration::from_secs(30)));
        let result = self.by_hand.query_unpaged(statement, ()).await.unwrap();
        if !result.is_rows() {
            return Vec::new();
        }
        result.into_rows_result().unwrap().rows::<Row>().unwrap().map(Result::unwrap).collect()
    }
}

pub const FUNCTION: &str = "bank.logins";

/// Who logged in, what was noted, and where it comes from.
pub fn logins() -> Table {
    let column = |name: &str, data_type, role| Column { name: name.into(), data_type, nullable: true, role };
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns = vec![
        column("user", DataType::Utf8, Role::Entity),
        column("note", DataType::Utf8, Role::Value),
        column(meta::OFFSET, DataType::Int64, Role::Carried),
        column(meta::TIMESTAMP, time, Role::Carried),
    ];
    Table { name: "logins".into(), columns, combine: None, view: None }
}

/// Rows of [`logins`]: user, note, offset, and the time in milliseconds.
pub fn rows(rows: &[(&str, Option<&str>, i64, i64)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.3 * 1_000)).with_timezone("UTC"),
        ),
    ];
    RecordBatch::try_new(logins().schema(), columns).unwrap()
}

pub fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("login", 1, number)
}

/// Writes from a fence, which is created if there is none, to an offset.
pub async fn write(sink: &dyn Sink, partition: &TopicPartition, from: i64, to: i64, batch: RecordBatch) -> Fence {
    let from = sink.create_fence(partition, Fence::starting_at(from)).await.unwrap();
    let to = Fence { next_offset: to, ..from.clone() };
    sink.write(partition, &from, &to, &[batch]).await.unwrap();
    to
}
