//! Databases and tables for the tests.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use arrow::{array::RecordBatch, datatypes::DataType};
use millstream_core::{Column, Combine, Fence, Merge, Result, Role, Sink, Table, TopicPartition};
use millstream_postgres::{Pool, PostgresSink, pool};
use millstream_testkit::{TestCombine, database_url};
use tokio_postgres::NoTls;

/// How a test reaches the server.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    Direct,
    PgBouncer,
    /// Directly, encrypted, with the server's certificate checked.
    Tls,
}

impl Way {
    fn url(self) -> String {
        match self {
            Self::Direct => setting("MILLSTREAM_TEST_POSTGRES"),
            Self::PgBouncer => setting("MILLSTREAM_TEST_PGBOUNCER"),
            Self::Tls => with_parameters(
                &setting("MILLSTREAM_TEST_POSTGRES"),
                &format!("sslmode=verify-full&sslrootcert={}", setting("MILLSTREAM_TEST_CA")),
            ),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the address of a service comes from the environment")]
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `tests/services start postgres pgbouncer` and source the file that it names")
    })
}

/// A database that one test has for itself.
pub struct Database {
    way: Way,
    name: String,
}

impl Database {
    /// Creates an empty one.
    pub async fn create(way: Way) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let database = Self { way, name: format!("millstream_test_{}_{number}", std::process::id()) };
        // An earlier run with the same process id may have left one.
        database.drop().await;
        let name = &database.name;
        execute(&Way::Direct.url(), &format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        database
    }

    /// Removes it, even while clients are connected.
    pub async fn drop(&self) {
        execute(&Way::Direct.url(), &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).await;
    }

    /// Its URL by the way of this test.
    pub fn url(&self) -> String {
        database_url(&self.way.url(), &self.name).unwrap()
    }

    /// Its URL without PgBouncer.
    pub fn direct_url(&self) -> String {
        database_url(&Way::Direct.url(), &self.name).unwrap()
    }

    pub fn pool(&self) -> Pool {
        pool(&self.url(), 4).unwrap()
    }

    /// A sink with a pool of its own, as another process has.
    pub fn sink(&self, table: &Table) -> Arc<PostgresSink> {
        Arc::new(PostgresSink::new(self.pool(), "test.function", table.clone()).unwrap())
    }

    /// Runs statements on a connection of their own.
    pub async fn execute(&self, sql: &str) {
        execute(&self.direct_url(), sql).await;
    }

    /// The first column of the first row of an answer, as text.
    pub async fn ask(&self, sql: &str) -> String {
        let client = connect(&self.direct_url()).await;
        let answer = client.query_typed(&format!("SELECT ({sql})::text"), &[]).await.unwrap();
        answer[0].get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// Waits until `sql` answers `expected`; panics after 10 s.
    pub async fn wait_until(&self, sql: &str, expected: &str) {
        let polls = async {
            while self.ask(sql).await != expected {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), polls).await;
        assert!(ended.is_ok(), "{sql} never became {expected}");
    }
}

/// The URL with these parameters and no others.
pub fn with_parameters(url: &str, parameters: &str) -> String {
    format!("{}?{parameters}", url.split('?').next().unwrap_or(url))
}

/// A connection for the test itself.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn execute(url: &str, sql: &str) {
    connect(url).await.batch_execute(sql).await.unwrap();
}

/// Lets the table go on under another plan.
pub async fn adopt(sink: &PostgresSink) -> Result<()> {
    millstream_testkit::adopt(sink, "test.function").await
}

pub fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("transaction", 1, number)
}

pub fn moved(from: &Fence, next_offset: i64) -> Fence {
    Fence { next_offset, ..from.clone() }
}

pub fn column(name: &str, data_type: DataType, role: Role) -> Column {
    Column { name: name.to_owned(), data_type, nullable: true, role }
}

/// A table that merges if a column has a role in merging.
pub fn table(name: &str, columns: Vec<Column>) -> Table {
    let merges = columns.iter().any(|column| column.role != Role::Value);
    let combine = merges.then(|| Arc::new(TestCombine::new(&columns)) as Arc<dyn Combine>);
    Table { name: name.to_owned(), columns, combine, view: None }
}

/// How often each key came, and which bytes came with it.
pub fn counts(with_sketch: bool) -> Table {
    let mut columns =
        vec![column("key", DataType::Int64, Role::Key), column("n", DataType::Int64, Role::State(Merge::Sum))];
    if with_sketch {
        columns.push(column("seen", DataType::Binary, Role::State(Merge::Sketch)));
    }
    table("counts", columns)
}

/// Prepares, and creates the fence of partition 0 at offset 0.
pub async fn ready(sink: &PostgresSink) -> Fence {
    sink.prepare(true).await.unwrap();
    sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap()
}

/// Writes rows as one record each, to partition 0.
pub async fn write(sink: &PostgresSink, from: &Fence, rows: &[RecordBatch]) -> Result<Fence> {
    let records: usize = rows.iter().map(RecordBatch::num_rows).sum();
    let to = moved(from, from.next_offset + records as i64);
    sink.write(&partition(0), from, &to, rows).await.map(|()| to)
}
