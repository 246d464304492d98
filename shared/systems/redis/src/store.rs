use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use millstream_core::{Address, Connect, Env, Error, Result, Sink, Table, TableStore, TextRows};

use crate::{
    Reader, ReaderSettings, RedisSink,
    connection::Connection,
    settings::{ADDRESS, Settings},
};

/// A server or a cluster, as a store of tables.
#[derive(Clone, Debug)]
pub struct Redis {
    connection: Arc<Connection>,
}

impl Redis {
    /// The server or cluster of `url`, with the settings that `MILLSTREAM_REDIS_URL` would have.
    ///
    /// # Errors
    /// `Stop` when the address can't be read; the message holds no part of it.
    pub fn at(url: &str) -> Result<Self> {
        let opened = Self::open(&Env::of([(ADDRESS.variable, url)]))?;
        opened.ok_or_else(|| Error::stop(format!("{} is `embedded`, which is no server", ADDRESS.variable)))
    }

    /// What reads a table by its entities, and from elsewhere what isn't there.
    pub fn reader(&self, table: &str, settings: ReaderSettings) -> Reader {
        Reader::new(Arc::clone(&self.connection), table, settings)
    }
}

impl Connect for Redis {
    const ADDRESS: Address = ADDRESS;

    fn check(env: &Env) -> Result<bool> {
        Ok(Settings::find(env)?.is_some())
    }

    fn open(env: &Env) -> Result<Option<Self>> {
        Ok(Settings::find(env)?.map(|settings| Self { connection: Arc::new(Connection::new(settings)) }))
    }
}

#[async_trait]
impl TableStore for Redis {
    fn place(&self) -> String {
        "Redis".to_owned()
    }

    fn sink(&self, function: &str, table: Table) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(RedisSink::new(Arc::clone(&self.connection), function, table)?))
    }

    async fn read_reference(&self, name: &str, _schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        Err(Error::stop(format!(
            "reference `{name}` is in Redis, which is a cache and no source: read it from where its rows come from"
        )))
    }

    async fn read_public(&self, table: &Table, _schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let (name, variable) = (table.public_name(), ADDRESS.variable);
        let ask = match table.entity() {
            Some(entity) => format!("HGETALL '{name}:{{{}}}'", entity.name.to_uppercase()),
            None => format!("SUBSCRIBE {name}"),
        };
        Err(Error::stop(format!(
            "`{name}` is in Redis ({variable}), which answers questions itself: redis-cli -u \"${variable}\" {ask}"
        )))
    }

    async fn newest_rows(&self, _table: &Table, _limit: usize) -> Result<Option<TextRows>> {
        Ok(None)
    }

    fn how_to_reset(&self, function: &str, name: &str) -> String {
        format!(
            "remove the keys that redis-cli --scan --pattern '{name}:{{*}}' and --pattern 'millstream:{{{function}}}:*' show, \
             and the key millstream:{{{name}}}:table"
        )
    }
}
