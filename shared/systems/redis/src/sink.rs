use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_core::{
    Claim, Error, Fence, Holding, Owner, OwnerRecord, Result, Sink, Table, TakeOddRow, TakeRows, TopicPartition, fault,
};

use crate::{connection::Connection, keys, owner::record_text, scan::Scan, scripts::WRITTEN, table};

/// A table in Redis that one function fills; the crate's docs say how.
pub struct RedisSink {
    pub(crate) connection: Arc<Connection>,
    pub(crate) function: String,
    pub(crate) table: Table,
    /// The column of the rows' offsets.
    pub(crate) offset: usize,
    /// The column that names what a row is about.
    pub(crate) entity: Option<usize>,
    term: AtomicI64,
    /// The owner as it was last seen: what is put back after the store has lost it.
    pub(crate) record: Mutex<Option<OwnerRecord>>,
    /// Does the store know that the table has had rows?
    is_written: AtomicBool,
}

impl RedisSink {
    pub(crate) fn new(connection: Arc<Connection>, function: &str, table: Table) -> Result<Self> {
        let (offset, entity) = table::check(&table)?;
        Ok(Self {
            connection,
            function: function.to_owned(),
            table,
            offset,
            entity,
            term: AtomicI64::new(0),
            record: Mutex::default(),
            is_written: AtomicBool::new(false),
        })
    }

    /// The same table, as another function's sink.
    pub(crate) fn of(&self, function: &str) -> Self {
        Self {
            connection: Arc::clone(&self.connection),
            function: function.to_owned(),
            table: self.table.clone(),
            offset: self.offset,
            entity: self.entity,
            term: AtomicI64::new(self.term()),
            record: Mutex::default(),
            is_written: AtomicBool::new(false),
        }
    }

    pub(crate) fn term(&self) -> i64 {
        self.term.load(Ordering::Relaxed)
    }

    /// What a command is for.
    pub(crate) fn writing(&self) -> String {
        format!("writing table {}", self.table.name)
    }

    /// What a command is for.
    pub(crate) fn reading(&self) -> String {
        format!("reading table {}", self.table.name)
    }

    /// A store that was emptied while this process runs has lost the table's columns and its owner with the fence.
    async fn restore(&self) -> Result<()> {
        self.is_written.store(false, Ordering::Relaxed);
        self.declare().await?;
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(record) = record.filter(|record| record.term == self.term()) else { return Ok(()) };
        let mut command = redis::cmd("HSETNX");
        command.arg(keys::table(&self.table.name)).arg("record").arg(record_text(&record)?);
        self.connection.ask::<i64>("recording the owner", &command).await.map(drop)
    }

    async fn note_rows(&self) -> Result<()> {
        if !self.is_written.load(Ordering::Relaxed) {
            self.connection.run::<i64>(&self.writing(), &WRITTEN.key(keys::table(&self.table.name))).await?;
            self.is_written.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn scan_to(&self, take: TakeRows, odd: Option<TakeOddRow>) -> Result<Vec<(TopicPartition, Fence)>> {
        let fences = self.fences().await?;
        let doing = self.connection.doing(&self.reading());
        let mut scan = Scan { table: &self.table, doing, fences: &fences, take, odd };
        match self.entity {
            Some(_) => self.scan_newest(&mut scan).await?,
            None => self.scan_streams(&mut scan).await?,
        }
        Ok(fences)
    }
}

#[async_trait]
impl Sink for RedisSink {
    async fn prepare(&self, create: bool) -> Result<()> {
        self.prepare_table(create).await
    }

    async fn adopt(&self, owner: &Owner, record: Option<&OwnerRecord>) -> Result<Option<OwnerRecord>> {
        if let Some(misfit) = self.find_misfits().await?.into_iter().next() {
            return Err(Error::stop(format!("redis: table {} can't be adopted: {misfit}", self.table.name)));
        }
        self.make_claim(owner, &Claim::Adopt(record.cloned()), true).await
    }

    async fn misfits(&self) -> Result<Vec<String>> {
        self.find_misfits().await
    }

    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        self.read_fence(partition).await
    }

    async fn create_fence(&self, partition: &TopicPartition, fence: Fence) -> Result<Fence> {
        let held = self.create(partition, &fence).await?;
        self.restore().await?;
        Ok(held)
    }

    async fn write(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()> {
        let rows = self.read_rows(rows)?;
        let standing = self.look(partition, from).await?;
        fault::point("redis.before_rows");
        if !rows.is_empty() {
            match self.entity {
                Some(entity) => self.write_newest(partition, &rows, entity).await?,
                None => self.append(partition, &standing, &rows).await?,
            }
            self.note_rows().await?;
        }
        fault::point("redis.after_rows");
        self.move_fence(partition, &standing, to).await?;
        fault::point("redis.after_fence");
        Ok(())
    }

    async fn holding(&self) -> Result<Holding> {
        self.find_holding().await
    }

    async fn claim(&self, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>> {
        self.make_claim(owner, claim, false).await
    }

    fn begin_term(&self, term: i64) {
        self.term.store(term, Ordering::Relaxed);
    }

    async fn scan(&self, take: TakeRows) -> Result<Vec<(TopicPartition, Fence)>> {
        self.scan_to(take, None).await
    }

    async fn scan_with_odd(&self, take: TakeRows, odd: TakeOddRow) -> Result<Vec<(TopicPartition, Fence)>> {
        self.scan_to(take, Some(odd)).await
    }
}

impl fmt::Debug for RedisSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSink")
            .field("function", &self.function)
            .field("table", &self.table.name)
            .finish_non_exhaustive()
    }
}
