use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use millstream_core::{Address, Connect, Env, Error, Feed, Log, Result, Sink, Table, TableStore, TakeRows, TextRows};

use crate::{
    by_key,
    client::Client,
    feed::CassandraFeed,
    fences::FENCES,
    owners::OWNERS,
    read::PAGE_ROWS,
    selected::Selected,
    settings::{ADDRESS, KEYSPACE, Settings},
    sink::CassandraSink,
    statement::Gate,
};

/// The most that is held in memory of a table that is read whole.
const MAX_READ_BYTES: usize = 128 << 20;

/// A keyspace, as a store of tables.
#[derive(Debug)]
pub struct Cassandra {
    client: Arc<Client>,
}

impl Cassandra {
    /// The same as [`Connect::open`], with a gate before every statement: for tests.
    ///
    /// # Errors
    /// Those of [`Connect::open`].
    pub fn open_behind(env: &Env, gate: Arc<dyn Gate>) -> Result<Option<Self>> {
        let settings = Settings::find(env)?;
        Ok(settings.map(|settings| Self { client: Arc::new(Client::new(settings, Some(gate))) }))
    }
}

impl Cassandra {
    async fn read_whole(&self, name: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let selected = Selected::of(&self.client, name, schema).await?;
        let mut held = Held::new(name);
        let take = |rows| {
            held.push(selected.decode(rows)?)?;
            Ok(ControlFlow::Continue(()))
        };
        let _all = self.client.pages(&selected.what, &selected.cql, &[], PAGE_ROWS, take).await?;
        Ok(held.batches)
    }
}

impl Connect for Cassandra {
    const ADDRESS: Address = ADDRESS;

    fn check(env: &Env) -> Result<bool> {
        Ok(Settings::find(env)?.is_some())
    }

    fn open(env: &Env) -> Result<Option<Self>> {
        let settings = Settings::find(env)?;
        Ok(settings.map(|settings| Self { client: Arc::new(Client::new(settings, None)) }))
    }
}

#[async_trait]
impl TableStore for Cassandra {
    fn place(&self) -> String {
        format!("Cassandra at {}", self.client.place())
    }

    fn sink(&self, function: &str, table: Table) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(CassandraSink::new(Arc::clone(&self.client), function, table)?))
    }

    async fn read_reference(&self, name: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        self.read_whole(name, schema).await
    }

    async fn read_all_by_key(&self, name: &str, schema: &SchemaRef, by: &str) -> Result<Vec<RecordBatch>> {
        self.read_whole(&by_key::table_by(&self.client, name, by).await?, schema).await
    }

    async fn read_by_key(&self, name: &str, schema: &SchemaRef, by: &str, keys: &ArrayRef) -> Result<Vec<RecordBatch>> {
        by_key::read(&self.client, name, schema, by, keys).await
    }

    async fn read_public(&self, table: &Table, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let name = table.public_name();
        let owner = self.client.owner(name).await?.ok_or_else(|| {
            Error::stop(format!("{}: no function fills it", self.client.doing(&format!("reading table {name}"))))
        })?;
        let held = Arc::new(Mutex::new(Held::new(name)));
        let taken = Arc::clone(&held);
        let take: TakeRows = Arc::new(move |rows| taken.lock().unwrap_or_else(PoisonError::into_inner).push(rows));
        self.sink(&owner.record.owner.function, table.clone())?.scan(take).await?;
        let rows = std::mem::take(&mut held.lock().unwrap_or_else(PoisonError::into_inner).batches);
        rows.iter().map(|rows| project(rows, schema, name)).collect()
    }

    /// Rows are in order within a partition of the topic alone: which are the newest, only a look at all of them would tell.
    async fn newest_rows(&self, _table: &Table, _limit: usize) -> Result<Option<TextRows>> {
        Ok(None)
    }

    fn feed(&self, feed: Feed) -> Result<Arc<dyn Log>> {
        Ok(Arc::new(CassandraFeed::new(Arc::clone(&self.client), feed)?))
    }

    /// By compare-and-swap, as these rows are written: plain writes are not in one order with it.
    fn how_to_reset(&self, function: &str, name: &str) -> String {
        let function = function.replace('\'', "''");
        format!(
            "stop all processes of the function, and then, in the keyspace of {KEYSPACE}: DROP TABLE IF EXISTS \"{name}_newest\"; \
             DROP TABLE \"{name}\"; DELETE FROM {OWNERS} WHERE table_name = '{name}' IF EXISTS; and for each row of SELECT \
             topic, generation, partition FROM {FENCES} WHERE function = '{function}': DELETE FROM {FENCES} WHERE function = \
             '{function}' AND topic = '…' AND generation = … AND partition = … IF EXISTS. Keep each IF EXISTS: a plain DELETE \
             has the time of this computer's clock, and deletes nothing if that is behind the cluster's"
        )
    }
}

fn project(rows: &RecordBatch, schema: &SchemaRef, table: &str) -> Result<RecordBatch> {
    let misfit = |error| Error::stop(format!("Cassandra: table {table} has other columns")).caused_by(error);
    let places = schema.fields().iter().map(|field| rows.schema().index_of(field.name()));
    rows.project(&places.collect::<Result<Vec<_>, _>>().map_err(misfit)?).map_err(misfit)
}

/// Rows in memory, up to a bound.
struct Held {
    table: String,
    batches: Vec<RecordBatch>,
    bytes: usize,
}

impl Held {
    fn new(table: &str) -> Self {
        Self { table: table.to_owned(), batches: Vec::new(), bytes: 0 }
    }

    fn push(&mut self, rows: RecordBatch) -> Result<()> {
        self.bytes += rows.get_array_memory_size();
        if self.bytes > MAX_READ_BYTES {
            return Err(Error::stop(format!(
                "Cassandra: table {} has more than {} MiB, which is more than is held in memory",
                self.table,
                MAX_READ_BYTES >> 20
            )));
        }
        self.batches.push(rows);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::PASSWORD;

    #[test]
    fn a_store_opens_without_connecting_and_tells_no_secret() {
        assert!(Cassandra::open(&Env::default()).unwrap().is_none());
        let env = Env::of([
            (ADDRESS.variable, "db"),
            (KEYSPACE, "bank"),
            ("MILLSTREAM_CASSANDRA_USER", "me"),
            (PASSWORD, "hunter2"),
        ]);
        let opened = Cassandra::open(&env).unwrap().unwrap();
        assert_eq!(opened.place(), "Cassandra at db:9042/bank");
        assert!(!format!("{opened:?}").contains("hunter2"));
        let how = opened.how_to_reset("bank.o'neill", "t");
        assert!(how.contains("function = 'bank.o''neill'"), "{how}");
        let deletes: Vec<_> = how.split("DELETE FROM ").skip(1).collect();
        assert_eq!(deletes.len(), 2);
        assert!(deletes.iter().all(|delete| delete.contains(" IF EXISTS")), "{how}");
    }
}
