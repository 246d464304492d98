use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use futures::TryStreamExt;
use millstream_core::{
    Claim, Error, Fence, Holding, Owner, OwnerRecord, PartitionBy, Result, Sink, Table, TakeRows, TopicPartition, fault,
};
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, path::Path};
use tokio::sync::OnceCell;

use crate::{
    chain::{Chain, WRITER, other_owner},
    failure::not_there_after_all,
    file,
    names::{Layout, Names},
    store_error,
    table::{self, Change},
    writer::Writer,
};

/// A table of Parquet files that one function appends to; the crate's docs say how it keeps each row there once.
pub struct LakeSink {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) names: Names,
    pub(crate) function: String,
    pub(crate) table: Table,
    schema: SchemaRef,
    /// How its folders follow time; none for as the table is.
    partition_by: Option<PartitionBy>,
    writer: Writer,
    /// What the table's objects are called, once it has been looked up.
    layout: OnceCell<(Layout, PartitionBy)>,
    /// The state of each partition's chain as last seen: a hint that may be stale. One entry per partition.
    chains: Mutex<HashMap<TopicPartition, Chain>>,
}

/// One write needs at most a turn marker and its file, and another writer may win either; more steps than this mean a bug.
const MAX_STEPS: usize = 3;

/// How many times a table is declared while others declare it too.
const MAX_DECLARATIONS: usize = 5;

impl LakeSink {
    /// A sink for `table` beneath the folder `root` of `store` (empty for its top), written by `function` alone.
    pub fn new(store: Arc<dyn ObjectStore>, root: impl Into<Path>, function: &str, table: Table) -> Self {
        Self {
            store,
            names: Names::new(root.into(), &table.name),
            function: function.to_owned(),
            schema: table.schema(),
            table,
            partition_by: None,
            writer: Writer::new(),
            layout: OnceCell::new(),
            chains: Mutex::default(),
        }
    }

    /// The same sink, whose table's folders are by this. A table that exists keeps its own, and refuses another at
    /// [`Sink::prepare`].
    #[must_use]
    pub fn partition_by(mut self, by: PartitionBy) -> Self {
        self.partition_by = Some(by);
        self
    }

    /// The same table, as another function's sink.
    pub(crate) fn of(&self, function: &str) -> Self {
        Self {
            store: Arc::clone(&self.store),
            names: self.names.clone(),
            function: function.to_owned(),
            table: self.table.clone(),
            schema: Arc::clone(&self.schema),
            partition_by: self.partition_by,
            writer: Writer::new(),
            layout: OnceCell::new(),
            chains: Mutex::default(),
        }
    }
}

#[async_trait]
impl Sink for LakeSink {
    async fn prepare(&self, create: bool) -> Result<()> {
        self.prepare_by(if create { Change::Add } else { Change::None }).await
    }

    async fn adopt(&self, owner: &Owner, record: Option<&OwnerRecord>) -> Result<Option<OwnerRecord>> {
        self.prepare_by(Change::Adapt).await?;
        self.put_owner(owner, &Claim::Adopt(record.cloned())).await
    }

    async fn misfits(&self) -> Result<Vec<String>> {
        let (layout, by) = self.layout().await?;
        table::check(&self.table, layout, by)?;
        let there = file::read_footer(&*self.store, &self.names.declaration(layout)).await?;
        Ok(there.map_or_else(Vec::new, |there| table::differences(&there.schema, &self.schema, Change::Adapt)))
    }

    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        Ok(self.read_chain(partition).await?.map(|chain| chain.fence))
    }

    async fn create_fence(&self, partition: &TopicPartition, fence: Fence) -> Result<Fence> {
        let (path, bytes) = (self.names.fence(partition), self.fence_bytes(&Chain::starting_at(fence))?);
        match self.store.put_opts(&path, bytes.into(), PutMode::Create.into()).await {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(store_error("creating the fence", path, error)),
        }
        match self.any_fence_object(partition).await? {
            Some((other, _)) if other.function != self.function => {
                Err(other_owner(&other.function, &self.function, &path))
            }
            Some(_) => self.fence(partition).await?.ok_or_else(|| not_there_after_all(path)),
            None => Err(not_there_after_all(path)),
        }
    }

    async fn write(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()> {
        if to.next_offset <= from.next_offset {
            return Err(Error::stop(format!("lake: internal: a write to {partition} that does not move the fence")));
        }
        let rows = table::conform(rows, &self.schema)?;
        let Some(mut chain) = self.cached_chain(partition).await? else { return Err(Error::Fenced { current: None }) };
        let (_, by) = self.layout().await?;
        for _ in 0..MAX_STEPS {
            if chain.fence.next_offset != from.next_offset {
                return Err(Error::Fenced { current: Some(chain.fence.next_offset) });
            }
            let next = chain.step_to(to, by);
            if !self.put_step(partition, &chain, &next, &rows).await? {
                chain = self.follow(partition, chain).await?;
                continue;
            }
            self.keep(partition, &next);
            if !next.turned {
                self.move_fence(partition, &next).await?;
                fault::point("lake.after_fence");
                return Ok(());
            }
            chain = next;
        }
        Err(Error::retry(format!("lake: the chain of {partition} did not settle at offset {}", from.next_offset)))
    }

    async fn holding(&self) -> Result<Holding> {
        self.find_holding().await
    }

    async fn claim(&self, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>> {
        self.put_owner(owner, claim).await
    }

    /// Files have no term: see the crate's docs.
    fn begin_term(&self, _term: i64) {}

    async fn scan(&self, take: TakeRows) -> Result<Vec<(TopicPartition, Fence)>> {
        let mut chains = BTreeMap::new();
        for partition in self.partitions().await? {
            if let Some(chain) = self.look_at_chain(&partition).await? {
                chains.insert(partition, chain);
            }
        }
        let mut files = self.list(self.names.table()).await?;
        files.retain(|path| self.names.is_data(path));
        // Files written since the fences were read are not part of this snapshot. Every other file counts, even one that no
        // chain leads to: an outside reader sees it as well.
        let mut newer = HashSet::new();
        for partition in self.partitions().await? {
            match chains.get(&partition) {
                Some(chain) => {
                    let mut at = chain.clone();
                    while let Some((path, next)) = self.step_after(&partition, &at).await? {
                        newer.insert(path);
                        at = next;
                    }
                }
                None => files.retain(|path| self.names.partition_of_step(path).as_ref() != Some(&partition)),
            }
        }
        for path in files.iter().filter(|path| !newer.contains(*path)) {
            for batch in file::read_file(&*self.store, path).await? {
                take(file::widen(&batch, &self.schema, path)?)?;
            }
        }
        Ok(chains.into_iter().map(|(partition, chain)| (partition, chain.fence)).collect())
    }
}

impl LakeSink {
    /// See [`Sink::prepare`] and [`Sink::adopt`].
    async fn prepare_by(&self, change: Change) -> Result<()> {
        let create = change != Change::None;
        let (layout, by) = self.layout().await?;
        table::check(&self.table, layout, by)?;
        let path = self.names.declaration(layout);
        let declare = |by: PartitionBy| file::encode(&self.schema, &[], vec![(PARTITION_BY, by.name().to_owned())]);
        for _ in 0..MAX_DECLARATIONS {
            let there = file::read_footer(&*self.store, &path).await?;
            let by = there.as_ref().map_or(by, |there| partition_by(&there.marks));
            if let Some(there) = &there {
                self.check_declared(there, by, change)?;
            }
            if !create {
                let table = self.names.table();
                return there.map(drop).ok_or_else(|| {
                    Error::stop(format!(
                        "lake: there is no table at {table}, and it may not be created here: run `millstream up`"
                    ))
                });
            }
            // Written each time, changed or not: it proves that the folder can be written to before the first record is read.
            let mode = there.map_or(PutMode::Create, |there| PutMode::Update(there.version));
            if self.put_declaration(&path, declare(by).await?, mode).await? {
                return self.prove_put_if_absent(&path, declare(by).await?).await;
            }
        }
        Err(Error::retry(format!("lake: others write the columns at {path} all the time")))
    }

    /// Fails unless this sink's rows fit a table that was declared so, and whose folders are `by` this.
    fn check_declared(&self, there: &file::Footer, by: PartitionBy, change: Change) -> Result<()> {
        table::check_fit(&there.schema, &self.schema, self.names.table(), change)?;
        match self.partition_by.filter(|wanted| *wanted != by) {
            None => Ok(()),
            Some(wanted) => {
                let (table, wanted, by) = (self.names.table(), wanted.name(), by.name());
                Err(Error::stop(format!(
                    "lake: `partition_by` is {wanted}, and the folders of the table at {table} were begun by {by}: readers \
                     can't take both for one table; write to a table of another name, or set `partition_by: {by}`"
                )))
            }
        }
    }

    /// False when another process has declared the table meanwhile. In a folder, which has no compare-and-swap, the later
    /// declaration stays.
    async fn put_declaration(&self, path: &Path, bytes: Vec<u8>, mode: PutMode) -> Result<bool> {
        let mut put = self.store.put_opts(path, bytes.clone().into(), mode.into()).await;
        if let Err(StoreError::NotImplemented { .. }) = put {
            put = self.store.put(path, bytes.into()).await;
        }
        match put {
            Ok(_) => Ok(true),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(false),
            Err(error) => Err(store_error("writing the table's columns", path, error)),
        }
    }

    /// Puts an object that is there, which must fail: a store that overwrites it in spite of `If-None-Match` would let two writers
    /// replace each other's files without a word.
    async fn prove_put_if_absent(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        match self.store.put_opts(path, bytes.into(), PutMode::Create.into()).await {
            Err(StoreError::AlreadyExists { .. }) => Ok(()),
            Ok(_) => Err(Error::stop(format!(
                "lake: the store has overwritten {path}, which was to be put only if nothing is there (`If-None-Match: *`): rows would be \
                 lost there. Use a store that keeps this condition"
            ))),
            Err(error) => Err(store_error("putting what is there as", path, error)),
        }
    }

    /// The layout of the existing table and its folders, or those of a new one if there is no table yet.
    pub(crate) async fn layout(&self) -> Result<(Layout, PartitionBy)> {
        let find = || async {
            for layout in [Layout::Current, Layout::Dated] {
                if let Some(there) = file::read_footer(&*self.store, &self.names.declaration(layout)).await? {
                    return Ok((layout, partition_by(&there.marks)));
                }
            }
            Ok((Layout::Current, self.partition_by.unwrap_or_default()))
        };
        self.layout.get_or_try_init(find).await.copied()
    }

    /// Where the chain stands as far as this sink knows. That may be stale; then the next name is taken already.
    async fn cached_chain(&self, partition: &TopicPartition) -> Result<Option<Chain>> {
        let known = self.cache().get(partition).cloned();
        if known.is_some() { Ok(known) } else { self.read_chain(partition).await }
    }

    /// Where the chain stands now: from the fence object along the names to the end. `None` without a fence object.
    pub(crate) async fn read_chain(&self, partition: &TopicPartition) -> Result<Option<Chain>> {
        let Some((chain, _)) = self.fence_object(partition).await? else { return Ok(None) };
        self.follow(partition, chain).await.map(Some)
    }

    /// The same without writing: the fence object stays where it is.
    pub(crate) async fn look_at_chain(&self, partition: &TopicPartition) -> Result<Option<Chain>> {
        let Some((chain, _)) = self.fence_object(partition).await? else { return Ok(None) };
        self.end_of(partition, chain).await.map(Some)
    }

    async fn end_of(&self, partition: &TopicPartition, chain: Chain) -> Result<Chain> {
        let mut end = chain;
        while let Some((_, next)) = self.step_after(partition, &end).await? {
            end = next;
        }
        Ok(end)
    }

    /// Walks from `chain` to the chain's end, keeps it and moves the fence object there. Each step moves forward, so there
    /// is an end.
    async fn follow(&self, partition: &TopicPartition, chain: Chain) -> Result<Chain> {
        let from = chain.fence.next_offset;
        let end = self.end_of(partition, chain).await?;
        if end.fence.next_offset > from {
            self.move_fence(partition, &end).await?;
        }
        self.keep(partition, &end);
        Ok(end)
    }

    /// The object that follows `at` and the state after it, if there is one yet.
    async fn step_after(&self, partition: &TopicPartition, at: &Chain) -> Result<Option<(Path, Chain)>> {
        let path = self.name(partition, at).await?;
        let Some(footer) = file::read_footer(&*self.store, &path).await? else { return Ok(None) };
        let next = Chain::from_marks(&footer.marks, &self.function, at, &path)?;
        Ok(Some((path, next)))
    }

    /// Puts the step from `at` to `next` unless there is one already; says whether the one that is there is this one.
    async fn put_step(
        &self,
        partition: &TopicPartition,
        at: &Chain,
        next: &Chain,
        rows: &[RecordBatch],
    ) -> Result<bool> {
        let path = self.name(partition, at).await?;
        let rows = if next.turned { &[] } else { rows };
        let (mut marks, name) = (next.to_marks(&self.function)?, self.writer.next_put());
        marks.push((WRITER, name.clone()));
        let bytes = file::encode(&self.schema, rows, marks).await?;
        fault::point("lake.before_file");
        let put = self.store.put_opts(&path, bytes.into(), PutMode::Create.into()).await;
        fault::point("lake.after_file");
        match put {
            Ok(_) => Ok(true),
            Err(StoreError::AlreadyExists { .. }) => match file::read_footer(&*self.store, &path).await? {
                Some(footer) => Ok(footer.marks.get(WRITER) == Some(&name)),
                None => Err(not_there_after_all(path)),
            },
            Err(error) => Err(store_error("writing", path, error)),
        }
    }

    async fn name(&self, partition: &TopicPartition, at: &Chain) -> Result<Path> {
        Ok(self.names.step(self.layout().await?.0, partition, at.date.as_deref(), at.fence.next_offset))
    }

    pub(crate) async fn list(&self, folder: &Path) -> Result<Vec<Path>> {
        let objects = self.store.list(Some(folder)).map_ok(|object| object.location);
        objects.try_collect().await.map_err(|error| store_error("listing", folder, error))
    }

    pub(crate) fn cache(&self) -> MutexGuard<'_, HashMap<TopicPartition, Chain>> {
        // A panic while the lock was held can't have left half an entry.
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, partition: &TopicPartition, chain: &Chain) {
        self.cache().insert(partition.clone(), chain.clone());
    }
}

/// In the table's declaration: how its folders follow time. A table without it was begun by date.
const PARTITION_BY: &str = "millstream.partition_by";

fn partition_by(marks: &HashMap<String, String>) -> PartitionBy {
    let is_by_hour = marks.get(PARTITION_BY).is_some_and(|by| by == PartitionBy::Hour.name());
    if is_by_hour { PartitionBy::Hour } else { PartitionBy::Date }
}

impl fmt::Debug for LakeSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeSink").field("function", &self.function).field("table", self.names.table()).finish()
    }
}
