mod replace;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use arrow::{
    array::{AsArray, RecordBatch, new_null_array},
    compute::cast,
    datatypes::{Field, Int64Type},
};
use async_trait::async_trait;
use millstream_core::{
    Claim, Column, Error, Fence, Holding, Owner, OwnerRecord, Replace, Result, Role, Rows, Sink, Table, TakeRows,
    TopicPartition, WHOLE_TOPIC, is_wider, meta, term_ended,
};

use crate::{Call, Journal, rows::texts};

/// What a [`MemorySink`] does instead of its next write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// `Retry`, and nothing was changed.
    RetryBefore,
    /// `Retry`, but the write was made: the unknown outcome of a lost connection.
    RetryAfter,
    /// `TooLarge`, and nothing was changed.
    TooLargeBefore,
    /// `TooLarge`, but the write was made: its time was up before its answer came.
    TooLargeAfter,
    /// `Fenced` without a cause, and nothing was changed.
    Fenced,
    /// `Stop`, and nothing was changed.
    Stop,
}

type Refusal = Arc<dyn Fn(&[String]) -> bool + Send + Sync>;

/// Tables and fences in memory, which any number of [`MemorySink`]s share as processes share a database.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    contents: Arc<tokio::sync::Mutex<Contents>>,
    without_transactions: bool,
}

/// Function, table and partition.
type Place = (String, String, TopicPartition);

#[derive(Debug, Default)]
struct Contents {
    tables: HashMap<String, (Vec<Column>, Vec<RecordBatch>)>,
    fences: BTreeMap<Place, Fence>,
    /// By table.
    owners: BTreeMap<String, OwnerRecord>,
    /// The terms of fences that have one, by function and partition.
    terms: BTreeMap<(String, TopicPartition), i64>,
    /// Where there are no transactions: each row under its offset and its number among the rows of that offset.
    by_position: BTreeMap<(Place, i64, usize), RecordBatch>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty one that is to its sinks what an event store on Cassandra's API is: they append rows one by one, under keys
    /// made of the position, and then the fence, which never goes back. Between any two of these steps another process may
    /// run, or this one die. Readers stop at the fence.
    pub fn without_transactions() -> Self {
        Self { without_transactions: true, ..Self::default() }
    }

    /// A sink of `function` into `table` of this store.
    pub fn sink(&self, function: &str, table: Table) -> MemorySink {
        MemorySink {
            store: self.clone(),
            function: function.to_owned(),
            table,
            failures: Mutex::default(),
            refusal: Mutex::default(),
            most_rows: Mutex::new(usize::MAX),
            journal: Journal::new(),
            term: AtomicI64::new(0),
        }
    }
}

/// A [`Sink`] in memory whose writes can be made to fail.
pub struct MemorySink {
    store: MemoryStore,
    function: String,
    table: Table,
    failures: Mutex<VecDeque<Failure>>,
    refusal: Mutex<Option<Refusal>>,
    most_rows: Mutex<usize>,
    journal: Journal,
    term: AtomicI64,
}

impl MemorySink {
    /// A sink with a store of its own, and its table there already.
    pub fn new(function: &str, table: Table) -> Self {
        let store = MemoryStore::new();
        if let Ok(mut contents) = store.contents.try_lock() {
            contents.tables.insert(table.name.clone(), (table.columns.clone(), Vec::new()));
        }
        store.sink(function, table)
    }

    /// Writes what it does into `journal`, which [`crate::MemoryDeadLetters`] may share.
    #[must_use]
    pub fn with_journal(mut self, journal: &Journal) -> Self {
        self.journal = journal.clone();
        self
    }

    /// The next write does this instead; several wait in line, one per write.
    pub fn fail_next(&self, failure: Failure) {
        self.failures.lock().unwrap().push_back(failure);
    }

    /// Every write with a row for which this holds is `Poison`; the row is given as [`crate::rows::texts`] shows it.
    pub fn poison_if(&self, refusal: impl Fn(&[String]) -> bool + Send + Sync + 'static) {
        *self.refusal.lock().unwrap() = Some(Arc::new(refusal));
    }

    /// Every write with more rows is `TooLarge`.
    pub fn takes_at_most(&self, rows: usize) {
        *self.most_rows.lock().unwrap() = rows;
    }

    /// The rows as text, sorted.
    pub async fn texts(&self) -> Vec<Vec<String>> {
        texts(&self.rows(&*self.store.contents.lock().await))
    }

    fn key(&self, partition: &TopicPartition) -> Place {
        (self.function.clone(), self.table.name.clone(), partition.clone())
    }

    /// What a reader sees.
    fn rows(&self, contents: &Contents) -> Vec<RecordBatch> {
        if !self.store.without_transactions {
            return contents.tables.get(&self.table.name).map_or_else(Vec::new, |(_, rows)| rows.clone());
        }
        let below_the_fence = |((place, offset, _), _): &(&(Place, i64, usize), &RecordBatch)| {
            place.0 == self.function
                && place.1 == self.table.name
                && contents.fences.get(place).is_some_and(|fence| *offset < fence.next_offset)
        };
        contents.by_position.iter().filter(below_the_fence).map(|(_, row)| row.clone()).collect()
    }

    fn check_term(&self, contents: &Contents) -> Result<()> {
        let (term, record) = (self.term.load(Ordering::Relaxed), contents.owners.get(self.table.public_name()));
        if term == 0 || record.is_some_and(|record| record.term == term) {
            return Ok(());
        }
        Err(term_ended(self.table.public_name(), record))
    }

    fn refuses(&self, rows: &[RecordBatch]) -> bool {
        let refusal = self.refusal.lock().unwrap().clone();
        refusal.is_some_and(|refusal| texts(rows).iter().any(|row| refusal(row)))
    }

    /// Rows one by one, then the fence. A read before the rows decides `Fenced`, which a zombie may outrun.
    async fn append_by_position(
        &self,
        partition: &TopicPartition,
        from: &Fence,
        to: &Fence,
        rows: &[RecordBatch],
    ) -> Result<()> {
        let place = self.key(partition);
        let current = self.store.contents.lock().await.fences.get(&place).map(|fence| fence.next_offset);
        if current != Some(from.next_offset) {
            return Err(Error::Fenced { current });
        }
        if self.refuses(rows) {
            return Err(Error::poison(format!("a row can't be stored in table {} (injected)", self.table.name)));
        }
        let mut last = (i64::MIN, 0);
        for batch in rows {
            let offsets = batch.column_by_name(meta::OFFSET).expect("a table with the position of its rows");
            for (row, offset) in offsets.as_primitive::<Int64Type>().values().iter().enumerate() {
                last = if *offset == last.0 { (*offset, last.1 + 1) } else { (*offset, 0) };
                tokio::task::yield_now().await;
                let mut contents = self.store.contents.lock().await;
                contents.by_position.insert((place.clone(), last.0, last.1), batch.slice(row, 1));
            }
        }
        tokio::task::yield_now().await;
        let mut contents = self.store.contents.lock().await;
        if contents.fences.get(&place).is_none_or(|fence| fence.next_offset < to.next_offset) {
            contents.fences.insert(place, to.clone());
        }
        self.wrote(partition, from, to, rows);
        Ok(())
    }

    fn wrote(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) {
        self.journal.add(Call::Write {
            partition: partition.clone(),
            from: from.next_offset,
            to: to.next_offset,
            rows: rows.iter().map(RecordBatch::num_rows).sum(),
        });
    }

    async fn commit(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()> {
        if self.store.without_transactions {
            return self.append_by_position(partition, from, to, rows).await;
        }
        let mut contents = self.store.contents.lock().await;
        self.check_term(&contents)?;
        let key = self.key(partition);
        let current = contents.fences.get(&key).map(|fence| fence.next_offset);
        let (own, held) = (self.term.load(Ordering::Relaxed), contents.terms.get(&(key.0.clone(), key.2.clone())));
        if current != Some(from.next_offset) || held.is_some_and(|held| *held != own) {
            return Err(Error::Fenced { current });
        }
        if self.refuses(rows) {
            return Err(Error::poison(format!("a row can't be stored in table {} (injected)", self.table.name)));
        }
        let Some((_, held)) = contents.tables.get_mut(&self.table.name) else {
            return Err(Error::stop(format!("table {} is missing: call prepare first", self.table.name)));
        };
        let new: Vec<_> = rows.iter().filter(|rows| rows.num_rows() > 0).cloned().collect();
        match &self.table.combine {
            Some(combine) if !new.is_empty() => *held = vec![combine.combine(&[held.clone(), new].concat()).await?],
            _ => held.extend(new),
        }
        contents.fences.insert(key, to.clone());
        self.wrote(partition, from, to, rows);
        Ok(())
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn prepare(&self, create: bool) -> Result<()> {
        let mut contents = self.store.contents.lock().await;
        let name = &self.table.name;
        match contents.tables.get(name) {
            None if create => {
                contents.tables.insert(name.clone(), (self.table.columns.clone(), Vec::new()));
                Ok(())
            }
            None => Err(Error::stop(format!("table {name} is missing: create it, or allow the function to"))),
            Some((columns, _)) => match columns.iter().zip(&self.table.columns).find(|(old, new)| old != new) {
                Some((old, _)) => Err(Error::stop(format!("table {name}: column {} does not fit", old.name))),
                None if columns.len() != self.table.columns.len() => {
                    Err(Error::stop(format!("table {name} has {} columns", columns.len())))
                }
                None => Ok(()),
            },
        }
    }

    async fn misfits(&self) -> Result<Vec<String>> {
        Ok(self.misfits_in(&*self.store.contents.lock().await))
    }

    async fn holding(&self) -> Result<Holding> {
        let contents = self.store.contents.lock().await;
        let rows = match contents.tables.get(&self.table.name) {
            None => Rows::Missing,
            Some((_, rows)) if rows.iter().any(|rows| rows.num_rows() > 0) => Rows::Present,
            Some(_) if contents.by_position.keys().any(|(place, ..)| place.1 == self.table.name) => Rows::Present,
            Some(_) => Rows::Empty,
        };
        let own = contents
            .fences
            .iter()
            .filter(|((function, _, partition), _)| *function == self.function && partition.partition != WHOLE_TOPIC);
        let public = self.table.public_name();
        let others = contents.owners.values().filter(|record| record.table != public);
        Ok(Holding {
            record: contents.owners.get(public).cloned(),
            others: others.filter(|record| record.owner.function == self.function).cloned().collect(),
            fences: own.map(|((_, _, partition), fence)| (partition.clone(), fence.clone())).collect(),
            rows,
        })
    }

    async fn claim(&self, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>> {
        self.claim_in(&mut *self.store.contents.lock().await, owner, claim)
    }

    async fn adopt(&self, owner: &Owner, record: Option<&OwnerRecord>) -> Result<Option<OwnerRecord>> {
        let mut contents = self.store.contents.lock().await;
        if let Some(misfit) = self.misfits_in(&contents).into_iter().next() {
            return Err(Error::stop(misfit));
        }
        let adopted = self.claim_in(&mut contents, owner, &Claim::Adopt(record.cloned()))?;
        if adopted.is_some() {
            self.adapt(&mut contents)?;
        }
        Ok(adopted)
    }

    fn begin_term(&self, term: i64) {
        self.term.store(term, Ordering::Relaxed);
    }

    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        Ok(self.store.contents.lock().await.fences.get(&self.key(partition)).cloned())
    }

    async fn create_fence(&self, partition: &TopicPartition, fence: Fence) -> Result<Fence> {
        let mut contents = self.store.contents.lock().await;
        self.check_term(&contents)?;
        contents
            .terms
            .entry((self.function.clone(), partition.clone()))
            .or_insert_with(|| self.term.load(Ordering::Relaxed));
        Ok(contents.fences.entry(self.key(partition)).or_insert(fence).clone())
    }

    async fn write(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()> {
        let (failure, most) = (self.failures.lock().unwrap().pop_front(), *self.most_rows.lock().unwrap());
        if rows.iter().map(RecordBatch::num_rows).sum::<usize>() > most {
            return Err(Error::too_large(format!("more than {most} rows (injected)")));
        }
        match failure {
            None => {
                rows.iter().try_for_each(|rows| self.table.check_storable(rows))?;
                self.commit(partition, from, to, rows).await
            }
            Some(Failure::RetryBefore) => Err(Error::retry("the connection was lost before the commit (injected)")),
            Some(Failure::RetryAfter) => {
                self.commit(partition, from, to, rows).await?;
                Err(Error::retry("the connection was lost after the commit (injected)"))
            }
            Some(Failure::TooLargeBefore) => Err(Error::too_large("the time was up (injected)")),
            Some(Failure::TooLargeAfter) => {
                self.commit(partition, from, to, rows).await?;
                Err(Error::too_large("the time was up, though the write was made (injected)"))
            }
            Some(Failure::Fenced) => Err(Error::Fenced { current: None }),
            Some(Failure::Stop) => Err(Error::stop("a person must act (injected)")),
        }
    }

    fn replace(&self) -> Option<&dyn Replace> {
        (!self.store.without_transactions).then_some(self)
    }

    async fn scan(&self, take: TakeRows) -> Result<Vec<(TopicPartition, Fence)>> {
        let contents = self.store.contents.lock().await;
        let own = contents.fences.iter().filter(|((function, table, partition), _)| {
            *function == self.function && *table == self.table.name && partition.partition != WHOLE_TOPIC
        });
        self.rows(&contents).into_iter().try_for_each(|rows| take(rows))?;
        Ok(own.map(|((_, _, partition), fence)| (partition.clone(), fence.clone())).collect())
    }
}

impl MemorySink {
    fn claim_in(&self, contents: &mut Contents, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>> {
        let public = self.table.public_name().to_owned();
        let found = contents.owners.get(&public).cloned();
        let (expected, term, since) = match claim {
            Claim::First => (None, None, "first"),
            Claim::Renew(record) => (Some(record), Some(record.term), record.since.as_str()),
            Claim::Adopt(record) => (record.as_ref(), None, "adopted"),
            Claim::Rebuild(record) => (record.as_ref(), None, "rebuilt"),
        };
        if found.as_ref() != expected {
            return Ok(None);
        }
        let highest = contents.terms.values().chain(contents.owners.values().map(|record| &record.term)).max();
        let term = term.unwrap_or_else(|| highest.map_or(1, |highest| highest + 1));
        if let (Claim::Adopt(_), Some(found)) = (claim, &found) {
            let (old, new) = (&found.owner.function, &owner.function);
            if old != new && contents.fences.keys().any(|place| place.0 == *new) {
                return Err(Error::stop(format!("{new} and {old} both have fences")));
            }
            let renamed = |place: Place| if place.0 == *old { (new.clone(), place.1, place.2) } else { place };
            let fences = std::mem::take(&mut contents.fences);
            contents.fences = fences.into_iter().map(|(place, fence)| (renamed(place), fence)).collect();
            let rows = std::mem::take(&mut contents.by_position);
            contents.by_position =
                rows.into_iter().map(|((place, at, row), rows)| ((renamed(place), at, row), rows)).collect();
        }
        if claim.begins_term() {
            contents.owners.retain(|table, record| *table == public || record.owner.function != owner.function);
        }
        let places: Vec<_> = contents.fences.keys().filter(|place| place.0 == owner.function).cloned().collect();
        for place in places.into_iter().filter(|_| claim.begins_term()) {
            contents.terms.insert((place.0.clone(), place.2.clone()), term);
            if let (Claim::Adopt(_), Some(fence)) = (claim, contents.fences.get_mut(&place)) {
                fence.rows = 0;
            }
        }
        let (since, adopted) = (since.to_owned(), claim.is_adopted());
        let record = OwnerRecord { table: public.clone(), owner: owner.clone(), term, since, adopted };
        contents.owners.insert(public, record.clone());
        Ok(Some(record))
    }

    fn misfits_in(&self, contents: &Contents) -> Vec<String> {
        let Some((columns, _)) = contents.tables.get(&self.table.name) else { return Vec::new() };
        let fits = |new: &&Column| match columns.iter().find(|old| old.name == new.name) {
            Some(old) if old.role != new.role => false,
            Some(old) => old == *new || is_wider(&old.data_type, &new.data_type, &new.role),
            None => new.nullable && new.role != Role::Key,
        };
        let misfits = self.table.columns.iter().filter(|new| !fits(new));
        misfits.map(|new| format!("table {}: column {} does not fit", self.table.name, new.name)).collect()
    }

    /// Gives the table the columns and types of this sink's; columns that it lacks are null.
    fn adapt(&self, contents: &mut Contents) -> Result<()> {
        let schema = self.table.schema();
        let table = contents.tables.entry(self.table.name.clone());
        let (columns, rows) = table.or_insert_with(|| (self.table.columns.clone(), Vec::new()));
        let broken = |error| Error::stop("rows can't be adapted").caused_by(error);
        for batch in rows {
            let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
                Some(there) => cast(there, field.data_type()),
                None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            };
            let adapted = schema.fields().iter().map(column).collect::<Result<_, _>>().map_err(broken)?;
            *batch = RecordBatch::try_new(schema.clone(), adapted).map_err(broken)?;
        }
        columns.clone_from(&self.table.columns);
        Ok(())
    }
}
