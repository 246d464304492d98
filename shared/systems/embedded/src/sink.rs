use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_core::{Fence, Result, Sink, Snapshot, Table, TopicPartition};

use crate::{
    Embedded,
    checked_rows::CheckedRows,
    fences,
    tables::Stored,
    write::{Change, FenceStep},
};

/// One table of the file, written by one function. Every write is one SQLite transaction: the fence, the rows, and where
/// the table holds states also the finished rows that readers look at.
///
/// A table that is appended to gets its rows as they come. For a table that merges, the rows with the same keys are read,
/// combined and written back while the write holds SQLite's write lock, so that two writers never miss each other's rows.
pub struct EmbeddedSink {
    pub(crate) store: Arc<Embedded>,
    function: Arc<str>,
    table: Table,
    states: Arc<Stored>,
    finished: Option<Arc<Stored>>,
}

impl EmbeddedSink {
    /// The sink of `function` (`pipeline.function`: the fences' name) into `table` of the file.
    pub fn new(store: Arc<Embedded>, function: &str, table: Table) -> Self {
        let states = Arc::new(Stored::states(&table));
        let finished = Stored::finished(&table).map(Arc::new);
        Self { store, function: function.into(), table, states, finished }
    }
}

#[async_trait]
impl Sink for EmbeddedSink {
    async fn prepare(&self, create: bool) -> Result<()> {
        let (states, finished) = (self.states.clone(), self.finished.clone());
        let prepare = move |connection: &rusqlite::Connection| {
            states.prepare(connection, create)?;
            finished.map_or(Ok(()), |finished| finished.prepare(connection, create))
        };
        if create { self.store.connections.write(prepare).await } else { self.store.connections.read(prepare).await }
    }

    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        let (function, partition) = (self.function.clone(), partition.clone());
        self.store.connections.read(move |connection| fences::find(connection, &function, &partition)).await
    }

    async fn create_fence(&self, partition: &TopicPartition, fence: Fence) -> Result<Fence> {
        let (function, partition, now) = (self.function.clone(), partition.clone(), self.store.now());
        let create = move |connection: &_| fences::create(connection, &function, &partition, &fence, &now);
        self.store.connections.write(create).await
    }

    async fn write(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()> {
        let change = Change {
            connections: self.store.connections.clone(),
            states: self.states.clone(),
            finished: self.finished.clone(),
            step: FenceStep {
                function: self.function.clone(),
                partition: partition.clone(),
                from: from.next_offset,
                to: to.clone(),
                now: self.store.now(),
            },
        };
        let written = async {
            let rows = rows.iter().filter(|rows| rows.num_rows() > 0);
            rows.clone().try_for_each(|rows| self.table.check_storable(rows))?;
            let rows: Vec<_> = rows.map(|rows| CheckedRows::new(&self.states, rows.clone())).collect::<Result<_>>()?;
            match &self.table.combine {
                Some(combine) if !rows.is_empty() => change.merge(combine, rows).await,
                _ => change.append(rows).await,
            }
        };
        written.await.map_err(|error| error.context(format!("table `{}`, {partition}", self.table.public_name())))
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        let (function, states) = (self.function.clone(), self.states.clone());
        self.store
            .connections
            .read(move |connection| {
                let fences = fences::list(connection, &function)?;
                Ok(Snapshot { fences, rows: states.read_all(connection)? })
            })
            .await
    }
}
