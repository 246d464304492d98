use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use azure_core::http::HttpClient;
use azure_data_cosmos::{CosmosRuntime, Query};
use millstream_core::{Address, Connect, Env, Error, Feed, Log, Result, Sink, Table, TableStore, TakeRows, TextRows};

use crate::{
    by_key,
    client::{Client, Transport},
    feed::CosmosFeed,
    fences::FENCES,
    layout::to_key,
    owners::OWNERS,
    read::{PAGE_ROWS, Row},
    selected::{Selected, row_of},
    settings::{ADDRESS, DATABASE, Settings},
    sink::CosmosSink,
};

/// The most that is held in memory of a table that is read whole.
const MAX_READ_BYTES: usize = 128 << 20;

/// A database of an account, as a store of tables.
#[derive(Debug)]
pub struct Cosmos {
    client: Arc<Client>,
}

impl Cosmos {
    /// The same as [`Connect::open`], on another network than the process's own: for tests. `runtime` carries all requests but
    /// the one that asks what the account is like, which `http` carries.
    ///
    /// # Errors
    /// Those of [`Connect::open`].
    pub fn open_on(env: &Env, runtime: CosmosRuntime, http: Arc<dyn HttpClient>) -> Result<Option<Self>> {
        Self::open_by(env, Some(Transport { runtime, http }))
    }

    fn open_by(env: &Env, transport: Option<Transport>) -> Result<Option<Self>> {
        let settings = Settings::find(env)?;
        Ok(settings.map(|settings| Self { client: Arc::new(Client::new(settings, transport)) }))
    }

    /// All items of a container, and a column that none of them has.
    async fn read_whole(&self, container: &str, schema: &SchemaRef) -> Result<(Vec<RecordBatch>, Option<String>)> {
        let what = format!("reading table {container}");
        let selected = Selected::of(&self.client.doing(&what), schema)?;
        let (mut held, mut unseen) = (Held::new(container), selected.names().map(str::to_owned).collect::<Vec<_>>());
        let take = |items: Vec<Row>| {
            let rows: Vec<_> = items.into_iter().filter_map(row_of).collect();
            unseen.retain(|name| !rows.iter().any(|row| row.contains_key(name)));
            held.push(selected.decode(rows)?)?;
            Ok(ControlFlow::Continue(()))
        };
        self.client.query(&what, container, None, Query::from("SELECT * FROM c"), PAGE_ROWS, take).await?;
        Ok((held.batches, unseen.into_iter().next()))
    }
}

impl Connect for Cosmos {
    const ADDRESS: Address = ADDRESS;

    fn check(env: &Env) -> Result<bool> {
        Ok(Settings::find(env)?.is_some())
    }

    fn open(env: &Env) -> Result<Option<Self>> {
        Self::open_by(env, None)
    }
}

#[async_trait]
impl TableStore for Cosmos {
    fn place(&self) -> String {
        format!("Cosmos at {}", self.client.place())
    }

    fn sink(&self, function: &str, table: Table) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(CosmosSink::new(Arc::clone(&self.client), function, table)?))
    }

    async fn read_reference(&self, name: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let what = self.client.doing(&format!("reading table {name}"));
        if !self.client.list_containers().await?.contains_key(name) {
            return Err(Error::stop(format!("{what}: there is no such container")));
        }
        let (batches, unseen) = self.read_whole(name, schema).await?;
        // No item at all has every column, or none.
        let is_empty = batches.iter().all(|batch| batch.num_rows() == 0);
        match unseen.filter(|_| !is_empty) {
            Some(column) => Err(Error::stop(format!("{what}: no item of it has a property {column}"))),
            None => Ok(batches),
        }
    }

    async fn read_by_key(&self, name: &str, schema: &SchemaRef, by: &str, keys: &ArrayRef) -> Result<Vec<RecordBatch>> {
        by_key::read(&self.client, name, schema, by, keys).await
    }

    async fn read_all_by_key(&self, name: &str, schema: &SchemaRef, by: &str) -> Result<Vec<RecordBatch>> {
        let (newest, _) = by_key::newest_by(&self.client, name, schema, by).await?;
        Ok(self.read_whole(&newest, schema).await?.0)
    }

    async fn read_public(&self, table: &Table, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let name = table.public_name();
        let owner = self.client.owner(name).await?.ok_or_else(|| {
            Error::stop(format!("{}: no function fills it", self.client.doing(&format!("reading table {name}"))))
        })?;
        let held = Arc::new(Mutex::new(Held::new(name)));
        let taken = Arc::clone(&held);
        let take: TakeRows = Arc::new(move |rows| taken.lock().unwrap_or_else(PoisonError::into_inner).push(rows));
        self.sink(&owner.stored.record.owner.function, table.clone())?.scan(take).await?;
        let rows = std::mem::take(&mut held.lock().unwrap_or_else(PoisonError::into_inner).batches);
        rows.iter().map(|rows| project(rows, schema, name)).collect()
    }

    /// Rows are in order within a partition of the topic alone: which are the newest, only a look at all of them would tell.
    async fn newest_rows(&self, _table: &Table, _limit: usize) -> Result<Option<TextRows>> {
        Ok(None)
    }

    fn feed(&self, feed: Feed) -> Result<Arc<dyn Log>> {
        Ok(Arc::new(CosmosFeed::new(Arc::clone(&self.client), feed)?))
    }

    fn how_to_reset(&self, function: &str, name: &str) -> String {
        format!(
            "stop all processes of the function, and then, in the database of {DATABASE} (Data Explorer, or `az cosmosdb sql container \
             delete`): delete the containers {name} and {name}_newest; in {OWNERS} delete the item with the id {}; and in {FENCES} \
             delete the items with the pk {}",
            to_key(name),
            to_key(function)
        )
    }
}

fn project(rows: &RecordBatch, schema: &SchemaRef, table: &str) -> Result<RecordBatch> {
    let misfit = |error| Error::stop(format!("Cosmos: table {table} has other columns")).caused_by(error);
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
                "Cosmos: table {} has more than {} MiB, which is more than is held in memory",
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
    use crate::settings::KEY;

    #[test]
    fn a_store_opens_without_connecting_and_tells_no_secret() {
        assert!(Cosmos::open(&Env::default()).unwrap().is_none());
        let env =
            Env::of([(ADDRESS.variable, "https://me.documents.azure.com"), (DATABASE, "bank"), (KEY, "aHVudGVyMg==")]);
        let opened = Cosmos::open(&env).unwrap().unwrap();
        assert_eq!(opened.place(), "Cosmos at me.documents.azure.com/bank");
        assert!(!format!("{opened:?}").contains("aHVudGVyMg"));
        let how = opened.how_to_reset("bank.logins", "logins");
        assert!(
            how.contains("the id logins") && how.contains("the pk bank.logins") && how.contains("logins_newest"),
            "{how}"
        );
    }
}
