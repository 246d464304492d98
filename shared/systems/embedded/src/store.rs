use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use millstream_core::{
    Compression, DeadLetters, Error, Feed, Log, LogStore, Producer, Result, Sink, Table, TableStore, TextRows,
    TopicPartition,
};

use crate::{Embedded, EmbeddedSink, feed::EmbeddedFeed};

/// A table with more rows is not read whole to answer a question.
const MAX_ROWS: u64 = 5_000_000;

#[async_trait]
impl TableStore for Embedded {
    fn place(&self) -> String {
        self.connections.path().display().to_string()
    }

    fn sink(&self, function: &str, table: Table) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(EmbeddedSink::new(Arc::new(self.clone()), function, table)))
    }

    async fn read_reference(&self, name: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        self.read_table(name, Arc::clone(schema)).await
    }

    async fn read_by_key(&self, name: &str, schema: &SchemaRef, by: &str, keys: &ArrayRef) -> Result<Vec<RecordBatch>> {
        self.read_table_by(name, Arc::clone(schema), by, keys).await
    }

    async fn read_all_by_key(&self, name: &str, schema: &SchemaRef, by: &str) -> Result<Vec<RecordBatch>> {
        self.read_all_by(name, Arc::clone(schema), by).await
    }

    async fn read_public(&self, table: &Table, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let name = table.public_name();
        match self.row_count(name).await? {
            0..=MAX_ROWS => self.read_table(name, Arc::clone(schema)).await,
            rows => Err(Error::stop(format!(
                "table {name} has {rows} rows; a query holds whole tables in memory, at most {MAX_ROWS} rows each"
            ))),
        }
    }

    async fn newest_rows(&self, table: &Table, limit: usize) -> Result<Option<TextRows>> {
        let (columns, rows) = self.newest_rows(table.public_name(), limit).await?;
        Ok(Some(TextRows { columns, rows }))
    }

    async fn count_rows(&self, table: &Table) -> Result<Option<u64>> {
        self.row_count(table.public_name()).await.map(Some)
    }

    fn feed(&self, feed: Feed) -> Result<Arc<dyn Log>> {
        Ok(Arc::new(EmbeddedFeed::new(self.clone(), feed)))
    }

    fn how_to_reset(&self, _function: &str, _name: &str) -> String {
        "`millstream reset` removes it".to_owned()
    }
}

#[async_trait]
impl LogStore for Embedded {
    fn place(&self) -> String {
        TableStore::place(self)
    }

    /// Records are stored as they are, whatever `compression` says.
    fn producer(&self, _compression: Compression) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(self.clone()))
    }

    fn dead_letters(&self) -> Option<Arc<dyn DeadLetters>> {
        Some(Arc::new(self.clone()))
    }

    async fn group_offsets(&self, group: &str, topic: &str, generation: u32) -> Result<Vec<Option<i64>>> {
        let mut offsets = Vec::new();
        for partition in 0..self.partitions(topic).await? {
            offsets.push(self.group_offset(group, &TopicPartition::new(topic, generation, partition)).await?);
        }
        Ok(offsets)
    }
}
