use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_core::{
    Claim, Combine, Fence, Holding, Owner, OwnerRecord, Replace, Result, Sink, Table, TakeOddRow, TakeRows,
    TopicPartition,
};

use crate::{
    Embedded,
    checked_rows::CheckedRows,
    fences,
    owner::{self, Owned},
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
    /// See [`millstream_core::OwnerRecord::term`].
    term: AtomicI64,
}

impl EmbeddedSink {
    /// The sink of `function` (`pipeline.function`: the fences' name) into `table` of the file.
    pub fn new(store: Arc<Embedded>, function: &str, table: Table) -> Self {
        let states = Arc::new(Stored::states(&table));
        let finished = Stored::finished(&table).map(Arc::new);
        Self { store, function: function.into(), table, states, finished, term: AtomicI64::new(0) }
    }

    pub(crate) fn stored(&self) -> (Arc<Stored>, Option<Arc<Stored>>) {
        (self.states.clone(), self.finished.clone())
    }

    pub(crate) fn combine(&self) -> Option<&Arc<dyn Combine>> {
        self.table.combine.as_ref()
    }

    pub(crate) fn now(&self) -> String {
        self.store.now()
    }

    pub(crate) fn owned(&self) -> Owned {
        let public = self.finished.as_ref().unwrap_or(&self.states);
        Owned {
            function: self.function.clone(),
            public: public.name.as_str().into(),
            table: self.states.name.as_str().into(),
        }
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

    async fn adopt(&self, owner: &Owner, record: Option<&OwnerRecord>) -> Result<Option<OwnerRecord>> {
        self.adopt_tables(owner, Claim::Adopt(record.cloned())).await
    }

    async fn misfits(&self) -> Result<Vec<String>> {
        self.find_misfits().await
    }

    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        let (function, partition) = (self.function.clone(), partition.clone());
        self.store.connections.read(move |connection| fences::find(connection, &function, &partition)).await
    }

    async fn create_fence(&self, partition: &TopicPartition, fence: Fence) -> Result<Fence> {
        let (owned, partition, now) = (self.owned(), partition.clone(), self.store.now());
        let term = self.term.load(Ordering::Relaxed);
        let create = move |connection: &_| {
            owner::check_term(connection, &owned.public, term)?;
            fences::create(connection, &owned.function, term, &partition, &fence, &now)
        };
        self.store.connections.write(create).await
    }

    async fn write(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()> {
        let change = Change {
            connections: self.store.connections.clone(),
            states: self.states.clone(),
            finished: self.finished.clone(),
            step: FenceStep {
                function: self.function.clone(),
                table: self.owned().public,
                term: self.term.load(Ordering::Relaxed),
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

    async fn holding(&self) -> Result<Holding> {
        let owned = self.owned();
        self.store.connections.read(move |connection| owned.holding(connection)).await
    }

    async fn claim(&self, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>> {
        let (owned, owner, claim, now) = (self.owned(), owner.clone(), claim.clone(), self.store.now());
        self.store.connections.write(move |connection| owned.claim(connection, &owner, &claim, &now)).await
    }

    fn begin_term(&self, term: i64) {
        self.term.store(term, Ordering::Relaxed);
    }

    fn replace(&self) -> Option<&dyn Replace> {
        Some(self)
    }

    async fn scan(&self, take: TakeRows) -> Result<Vec<(TopicPartition, Fence)>> {
        let (function, states) = (self.function.clone(), self.states.clone());
        self.store
            .connections
            .read(move |connection| {
                let fences = fences::list(connection, &function)?;
                states.scan(connection, &mut |rows| take(rows))?;
                Ok(fences)
            })
            .await
    }

    async fn scan_with_odd(&self, take: TakeRows, odd: TakeOddRow) -> Result<Vec<(TopicPartition, Fence)>> {
        let (function, states) = (self.function.clone(), self.states.clone());
        self.store
            .connections
            .read(move |connection| {
                let fences = fences::list(connection, &function)?;
                states.scan_with_odd(connection, &mut |rows| take(rows), &mut |row| odd(row))?;
                Ok(fences)
            })
            .await
    }
}
