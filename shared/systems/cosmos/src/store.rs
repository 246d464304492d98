use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::{
    array::RecordBatch,
    datatypes::{Field, Schema, SchemaRef},
};
use async_trait::async_trait;
use azure_core::http::HttpClient;
use azure_data_cosmos::{CosmosRuntime, Query};
use millstream_core::{
    Address, Connect, Env, Error, Feed, Log, Result, Sink, Table, TableStore, TakeRows, TextRows, type_name,
};
use serde_json::Value;

use crate::{
    client::{Client, Transport},
    feed::CosmosFeed,
    fences::FENCES,
    form::Form,
    layout::to_key,
    owners::OWNERS,
    read::{PAGE_ROWS, Row},
    schema::COLUMNS,
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
        let mut forms = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let form = Form::of(field.data_type()).ok_or_else(|| {
                let (column, data_type) = (field.name(), type_name(field.data_type()));
                Error::stop(format!("{what}: column {column} is a {data_type}, which no item can have"))
            });
            forms.push(form?);
        }
        let fields = schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true));
        let nullable = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let (mut held, mut seen) = (Held::new(name), vec![false; forms.len()]);
        let take = |items: Vec<Row>| {
            let mut rows: Vec<_> = items.into_iter().filter_map(row_of).collect();
            let mut columns = Vec::with_capacity(forms.len());
            for ((form, field), seen) in forms.iter().zip(nullable.fields()).zip(&mut seen) {
                let values = rows.iter_mut().map(|row| row.remove(field.name()));
                let values = values.inspect(|value| *seen |= value.is_some()).map(Option::unwrap_or_default).collect();
                columns.push(form.decode(field.name(), values, field.data_type())?);
            }
            let batch = RecordBatch::try_new(Arc::clone(&nullable), columns);
            held.push(batch.map_err(|error| Error::stop(format!("{what}: internal")).caused_by(error))?)?;
            Ok(ControlFlow::Continue(()))
        };
        let query = Query::from("SELECT * FROM c");
        self.client.query(&format!("reading table {name}"), name, None, query, PAGE_ROWS, take).await?;
        // No item at all has every column, or none.
        let is_empty = held.batches.iter().all(|batch| batch.num_rows() == 0);
        match nullable.fields().iter().zip(seen).find(|(_, seen)| !seen && !is_empty) {
            Some((field, _)) => Err(Error::stop(format!("{what}: no item of it has a property {}", field.name()))),
            None => Ok(held.batches),
        }
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

/// The columns of an item: those of `row` where there is such an object, as functions write it, and else its own properties.
fn row_of(mut item: Row) -> Option<Row> {
    if item.get("pk").and_then(Value::as_str) == Some(COLUMNS) {
        return None;
    }
    match item.remove("row") {
        Some(Value::Object(row)) => Some(row),
        Some(other) => {
            item.insert("row".to_owned(), other);
            Some(item)
        }
        None => Some(item),
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
