use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use arrow::{
    array::{Array, RecordBatch},
    compute::concat_batches,
};
use async_trait::async_trait;
use deadpool_postgres::Object;
use millstream_core::{
    Claim, Error, Fence, Holding, OddRow, Owner, OwnerRecord, Replace, Result, Sink, Table, TakeOddRow, TakeRows,
    TopicPartition, WHOLE_TOPIC, fault, term_ended,
};
use tokio_postgres::{IsolationLevel, types::Type};

use crate::{
    connect::Pool,
    decode,
    encode::Parameter,
    error,
    fence::{FENCE_COLUMNS, Movement, Parameters, fence_of, has_moved, parameters, partition_and_fence},
    limits::QUERY_LIMIT,
    owner::Owned,
    schema,
    statement::{SketchStatements, Statements},
};

/// How many times a write is sent that the server rolls back because it met another writer.
const MAX_ATTEMPTS: usize = 5;

/// The most that one write may carry; PostgreSQL refuses messages of 1 GiB.
const MAX_WRITE_BYTES: usize = 512 << 20;

const ONE_FENCE: &str = "function = $1 AND topic = $2 AND generation = $3 AND partition = $4";

/// A table in PostgreSQL, and the fences of the function that writes to it.
///
/// A write is one statement in one round trip. Only a table with a [`millstream_core::Merge::Sketch`] needs a transaction
/// of four.
pub struct PostgresSink {
    pub(crate) pool: Pool,
    pub(crate) function: String,
    pub(crate) table: Table,
    statements: Statements,
    /// For each partition, the number of offsets of the smallest write whose time was up; no entry once a write of as many
    /// offsets has succeeded. One entry per partition.
    too_slow: Mutex<HashMap<TopicPartition, i64>>,
    /// See [`millstream_core::OwnerRecord::term`].
    term: AtomicI64,
}

impl PostgresSink {
    /// The sink of `function` (as `pipeline.function`) for `table`. Connects to nothing yet.
    ///
    /// # Errors
    /// `Stop` when the table has a column of a type that PostgreSQL can't hold.
    pub fn new(pool: Pool, function: &str, table: Table) -> Result<Self> {
        let statements = Statements::of(&table).map_err(|error| error.context(format!("table {}", table.name)))?;
        Ok(Self {
            pool,
            function: function.to_owned(),
            table,
            statements,
            too_slow: Mutex::default(),
            term: AtomicI64::new(0),
        })
    }
}

#[async_trait]
impl Sink for PostgresSink {
    async fn prepare(&self, create: bool) -> Result<()> {
        schema::prepare(&self.pool, &self.table, create, self.term()).await
    }

    async fn adopt(&self, owner: &Owner, record: Option<&OwnerRecord>) -> Result<Option<OwnerRecord>> {
        schema::adopt(&self.owned(), owner, record).await
    }

    async fn misfits(&self) -> Result<Vec<String>> {
        let mut misfits = schema::misfits(&self.pool, &self.table).await?;
        misfits.extend(self.holding().await?.conflict(&self.function));
        Ok(misfits)
    }

    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        let generation = i64::from(partition.generation);
        let parameters: Parameters<'_> = vec![
            (&self.function, Type::TEXT),
            (&partition.topic, Type::TEXT),
            (&generation, Type::INT8),
            (&partition.partition, Type::INT4),
        ];
        let sql = format!("SELECT {FENCE_COLUMNS} FROM millstream_fences WHERE {ONE_FENCE}");
        let rows = self.pool.query("reading a fence", &sql, &parameters).await?;
        rows.first().map(fence_of).transpose()
    }

    async fn create_fence(&self, partition: &TopicPartition, fence: Fence) -> Result<Fence> {
        let what = "creating a fence";
        // In a term that has ended, no fence begins. The lock makes a claim wait that would end it.
        let sql = "WITH owned AS MATERIALIZED (SELECT 1 FROM millstream_owners WHERE table_name = $13 AND term = $12 FOR SHARE) \
             INSERT INTO millstream_fences (function, topic, generation, partition, start_offset, next_offset, \
             last_timestamp_ms, max_event_time_us, upstream, topic_id, rows, term) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10, $11, $12 \
             WHERE $12 = 0 OR EXISTS (SELECT FROM owned) ON CONFLICT DO NOTHING";
        // The same parameters as a move from where the function starts to where the fence is.
        let movement = Movement::new(&self.function, self.term(), partition, fence.start_offset, &fence)?;
        let table = self.table.public_name();
        let mut parameters = movement.parameters(&[]);
        parameters.push((&table, Type::TEXT));
        self.pool.query(what, sql, &parameters).await?;
        match self.fence(partition).await? {
            Some(fence) => Ok(fence),
            None => match self.ended().await {
                Some(ended) => Err(ended),
                None => Err(Error::retry(format!("{}: it was removed at once", self.pool.doing(what)))),
            },
        }
    }

    async fn write(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()> {
        let rows = self.gather(rows).await?;
        if let Some(rows) = &rows {
            self.table.check_storable(rows).map_err(|error| error.context(self.pool.doing(&self.writing())))?;
        }
        let movement = Movement::new(&self.function, self.term(), partition, from.next_offset, to)?;
        let mut attempt = 1;
        loop {
            let outcome = match (&rows, &self.statements.sketch) {
                (Some(rows), Some(statements)) => self.write_sketches(&movement, rows, statements).await,
                (rows, _) => self.write_once(&movement, rows.as_ref()).await,
            };
            match outcome {
                Err(error) if attempt < MAX_ATTEMPTS && error::met_another_writer(&error) => {
                    tracing::info!(table = self.table.name, %partition, attempt, "two writers met; retrying");
                    attempt += 1;
                }
                // What stands at the table's name by now may be of another plan: no record is at fault then.
                Err(error @ (Error::Stop(_) | Error::Poison(_))) => return Err(self.ended().await.unwrap_or(error)),
                outcome => return self.judge_time(&movement, outcome),
            }
        }
    }

    async fn holding(&self) -> Result<Holding> {
        self.owned().holding().await
    }

    async fn claim(&self, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>> {
        self.owned().claim(owner, claim).await
    }

    fn begin_term(&self, term: i64) {
        self.term.store(term, Ordering::Relaxed);
    }

    fn replace(&self) -> Option<&dyn Replace> {
        Some(self)
    }

    async fn scan(&self, take: TakeRows) -> Result<Vec<(TopicPartition, Fence)>> {
        self.read_all(take, None).await
    }

    async fn scan_with_odd(&self, take: TakeRows, odd: TakeOddRow) -> Result<Vec<(TopicPartition, Fence)>> {
        self.read_all(take, Some(odd)).await
    }
}

impl PostgresSink {
    /// Gives all rows to `take`, or to `odd` those with values that don't fit.
    async fn read_all(&self, take: TakeRows, odd: Option<TakeOddRow>) -> Result<Vec<(TopicPartition, Fence)>> {
        let what = format!("reading table {}", self.table.name);
        let failed = |error| error::of_postgres(self.pool.doing(&what), &error);
        let schema = self.table.schema();
        let read_rows = decode::select(&self.table.name, &schema, |_| false)?;
        let read_fences = format!(
            "SELECT {FENCE_COLUMNS}, topic, generation, partition FROM millstream_fences \
             WHERE function = $1 AND partition <> {WHOLE_TOPIC}"
        );
        let mut client = self.pool.client(&what).await?;
        let work = async {
            let transaction = client
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true)
                .start()
                .await
                .map_err(failed)?;
            let fences =
                transaction.query_typed(&read_fences, &[(&self.function, Type::TEXT)]).await.map_err(failed)?;
            let mut take = |rows| take(rows);
            let mut take_odd = odd.map(|odd| move |row| odd(row));
            let odd = take_odd.as_mut().map(|odd| odd as &mut (dyn FnMut(OddRow) -> Result<()> + Send));
            decode::read_with_odd(&self.pool, &what, &*transaction, (&read_rows, None), &schema, &mut take, odd)
                .await?;
            transaction.commit().await.map_err(failed)?;
            Ok(fences)
        };
        let read: Result<_> = work.await;
        if read.is_err() {
            // Rows may still be under way: such a connection is not used again.
            drop(Object::take(client));
        }
        read?.iter().map(partition_and_fence).collect()
    }

    /// What is being done, for messages.
    fn writing(&self) -> String {
        format!("writing to table {}", self.table.name)
    }

    /// All rows as one batch, one row per key where they merge; `None` when there are no rows.
    async fn gather(&self, rows: &[RecordBatch]) -> Result<Option<RecordBatch>> {
        if rows.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(None);
        }
        if let Some(odd) = rows.iter().find(|batch| batch.num_columns() != self.table.columns.len()) {
            let (have, want) = (odd.num_columns(), self.table.columns.len());
            return Err(Error::stop(format!("internal: rows of {have} columns for a table of {want}")));
        }
        match &self.table.combine {
            Some(combine) => combine.combine(rows).await.map(Some),
            None => concat_batches(&rows[0].schema(), rows)
                .map(Some)
                .map_err(|error| Error::stop("internal: the batches of one write differ in type").caused_by(error)),
        }
    }

    /// One parameter per column.
    fn columns_of(&self, rows: &RecordBatch) -> Result<Vec<Parameter>> {
        let bytes: usize =
            rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum();
        if bytes > MAX_WRITE_BYTES {
            return Err(Error::poison(format!(
                "the rows of one write have {bytes} bytes, more than {MAX_WRITE_BYTES}"
            )));
        }
        self.table.columns.iter().zip(rows.columns()).map(|(column, values)| Parameter::new(column, values)).collect()
    }

    async fn write_once(&self, movement: &Movement<'_>, rows: Option<&RecordBatch>) -> Result<()> {
        let columns = rows.map(|rows| self.columns_of(rows)).transpose()?.unwrap_or_default();
        let sql = if rows.is_some() { &self.statements.write } else { &self.statements.move_fence };
        fault::point("postgres.before_commit");
        let answer = self.pool.query(&self.writing(), sql, &movement.parameters(&columns)).await?;
        fault::point("postgres.after_commit");
        if has_moved(&answer, 0)? { Ok(()) } else { Err(self.fenced(movement.partition).await) }
    }

    /// A write whose time was up may have met a lock or a failover, and may succeed the next time. From the second time on, it
    /// and every other write of the partition counts as too large, until as many records have been written in time.
    fn judge_time(&self, movement: &Movement<'_>, outcome: Result<()>) -> Result<()> {
        let offsets = movement.to.next_offset - movement.from;
        let mut too_slow = self.too_slow.lock().unwrap_or_else(PoisonError::into_inner);
        let known = too_slow.get(movement.partition).copied();
        match outcome {
            Err(error) if error::took_too_long(&error) => {
                too_slow.insert(movement.partition.clone(), known.map_or(offsets, |known| known.min(offsets)));
                match error {
                    Error::Retry(cause) if known.is_some() => Err(Error::TooLarge(cause)),
                    error => Err(error),
                }
            }
            Ok(()) if known.is_some_and(|known| offsets >= known) => {
                too_slow.remove(movement.partition);
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn write_sketches(
        &self,
        movement: &Movement<'_>,
        rows: &RecordBatch,
        statements: &SketchStatements,
    ) -> Result<()> {
        let what = self.writing();
        let mut client = self.pool.client(&what).await?;
        let work = self.merge_outside(&mut client, movement, rows, statements);
        let outcome = self.pool.within(QUERY_LIMIT, &what, work).await;
        if self.pool.settle(client, outcome).await? { Ok(()) } else { Err(self.fenced(movement.partition).await) }
    }

    /// Merges what the database can't, while it holds the locks of the rows. False when the fence is not where it should be.
    async fn merge_outside(
        &self,
        client: &mut Object,
        movement: &Movement<'_>,
        rows: &RecordBatch,
        statements: &SketchStatements,
    ) -> Result<bool> {
        let failed = |error| error::of_postgres(self.pool.doing(&self.writing()), &error);
        let columns = self.columns_of(rows)?;
        let transaction =
            client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await.map_err(failed)?;
        let answer = transaction.query_typed(&statements.lock, &movement.parameters(&columns)).await.map_err(failed)?;
        let width = self.table.columns.len();
        if !has_moved(&answer, width)? {
            return Ok(false);
        }
        if answer[0].get::<_, Option<bool>>(width + 1).is_some() {
            let there = decode::batch(&answer, &self.table.schema(), 0)?;
            let merged = self.combine(&[there, rows.clone()]).await?;
            let columns = self.columns_of(&merged)?;
            transaction.query_typed(&statements.replace, &parameters(&columns)).await.map_err(failed)?;
        }
        fault::point("postgres.before_commit");
        transaction.commit().await.map_err(failed)?;
        fault::point("postgres.after_commit");
        Ok(true)
    }

    async fn combine(&self, rows: &[RecordBatch]) -> Result<RecordBatch> {
        let none =
            || Error::stop(format!("internal: table {} has states and nothing to combine them", self.table.name));
        self.table.combine.as_ref().ok_or_else(none)?.combine(rows).await
    }

    fn term(&self) -> i64 {
        self.term.load(Ordering::Relaxed)
    }

    pub(crate) fn owned(&self) -> Owned<'_> {
        Owned { pool: &self.pool, function: &self.function, table: &self.table }
    }

    /// The error for a term that has ended; none when it goes on, or when that can't be found out now.
    async fn ended(&self) -> Option<Error> {
        let term = self.term();
        if term == 0 {
            return None;
        }
        let record = self.owned().record().await.ok()?;
        let goes_on = record.as_ref().is_some_and(|record| record.term == term);
        (!goes_on).then(|| term_ended(self.table.public_name(), record.as_ref()))
    }

    /// The error for a fence that did not move. Nothing was changed, so a failed read of the fence changes nothing either.
    async fn fenced(&self, partition: &TopicPartition) -> Error {
        if let Some(ended) = self.ended().await {
            return ended;
        }
        let current = self.fence(partition).await.ok().flatten().map(|fence| fence.next_offset);
        Error::Fenced { current }
    }
}
