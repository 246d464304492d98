use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use millstream_core::{Address, Connect, Env, Error, Result, Sink, Table, TableStore, TextRows};

use crate::{Pool, PostgresSink, by_key::ByKey, newest_rows, pool, read_table};

/// Says where the database is.
const ADDRESS: Address = Address { variable: "MILLSTREAM_POSTGRES_URL", example: "postgres://…" };

/// Connections that one process keeps: one per partition that is written at a time, and some for the rest.
const MAX_CONNECTIONS: usize = 8;

/// A database, as a store of tables.
#[derive(Clone, Debug)]
pub struct Postgres {
    pool: Pool,
    by_key: Arc<ByKey>,
}

impl Connect for Postgres {
    const ADDRESS: Address = ADDRESS;

    fn check(env: &Env) -> Result<bool> {
        Ok(Self::open(env)?.is_some())
    }

    fn open(env: &Env) -> Result<Option<Self>> {
        let Some(url) = env.find_address(ADDRESS)? else { return Ok(None) };
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme)) {
            return Err(Error::stop(format!(
                "{} must look like postgres://user:password@host:5432/database, or be `embedded`; it starts with something \
                 else",
                ADDRESS.variable
            )));
        }
        Ok(Some(Self { pool: pool(url.expose(), MAX_CONNECTIONS)?, by_key: Arc::default() }))
    }
}

#[async_trait]
impl TableStore for Postgres {
    fn place(&self) -> String {
        "PostgreSQL".to_owned()
    }

    fn sink(&self, function: &str, table: Table) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(PostgresSink::new(self.pool.clone(), function, table)?))
    }

    async fn warm_up(&self) {
        // The next caller takes it from the pool, or connects itself and meets what has failed.
        let _ = self.pool.client("connecting").await;
    }

    async fn read_reference(&self, name: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        read_table(&self.pool, name, schema).await
    }

    async fn read_by_key(&self, name: &str, schema: &SchemaRef, by: &str, keys: &ArrayRef) -> Result<Vec<RecordBatch>> {
        self.by_key.read(&self.pool, name, schema, by, keys).await
    }

    async fn read_public(&self, table: &Table, _schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let (name, variable) = (table.public_name(), ADDRESS.variable);
        Err(Error::stop(format!(
            "`{name}` is in PostgreSQL ({variable}), which answers questions itself: psql \"${variable}\""
        )))
    }

    async fn newest_rows(&self, table: &Table, limit: usize) -> Result<Option<TextRows>> {
        let (columns, rows) = newest_rows(&self.pool, table, limit).await?;
        Ok(Some(TextRows { columns, rows }))
    }

    fn how_to_reset(&self, function: &str, name: &str) -> String {
        format!(
            "DROP the table {name} (or the view {name} and the table {name}_state), DELETE FROM millstream_fences WHERE \
             function = '{function}', and DELETE FROM millstream_owners WHERE table_name = '{name}'"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(value: &str) -> Result<Option<Postgres>, String> {
        Postgres::open(&Env::of([(ADDRESS.variable, value)])).map_err(|error| {
            assert!(matches!(error, Error::Stop(_)), "{error:?}");
            error.to_string()
        })
    }

    #[test]
    fn only_a_url_of_postgres_is_an_address() {
        assert!(Postgres::open(&Env::default()).unwrap().is_none() && open("embedded").unwrap().is_none());
        let opened = open("postgres://me:hunter2@db/bank").unwrap().unwrap();
        assert!(!format!("{opened:?} {}", opened.place()).contains("hunter2"));
        assert!(open("").unwrap_err().starts_with("MILLSTREAM_POSTGRES_URL is set and empty"));
        let key = "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=hunter2";
        for value in ["me:hunter2@db", "amqp://me:hunter2@db:5432", key] {
            let expected = "MILLSTREAM_POSTGRES_URL must look like postgres://user:password@host:5432/database, or be \
                            `embedded`; it starts with something else";
            assert_eq!(open(value).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_url_may_be_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, "postgres://me:hunter2@db/bank\n").unwrap();
        assert!(open(&format!("file://{}", file.display())).unwrap().is_some());
        std::fs::write(&file, "hunter2").unwrap();
        assert!(!open(&format!("file://{}", file.display())).unwrap_err().contains("hunter2"));
    }
}
