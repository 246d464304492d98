use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use arrow::{
    array::{Array, RecordBatch},
    compute::concat_batches,
};
use async_trait::async_trait;
use deadpool_postgres::Object;
use millstream_core::{Error, Fence, Result, Sink, Snapshot, Table, TopicPartition, WHOLE_TOPIC, fault};
use tokio_postgres::{
    IsolationLevel, Row,
    types::{ToSql, Type},
};

use crate::{
    connect::{Pool, QUERY_LIMIT},
    decode,
    encode::Parameter,
    error, schema,
    statement::{FENCE_PARAMETERS, SketchStatements, Statements},
};

/// How often a write is sent that the server rolls back because it met another writer.
const MAX_ATTEMPTS: usize = 5;
/// The most that one write may carry; PostgreSQL refuses messages of 1 GiB.
const MAX_WRITE_BYTES: usize = 512 << 20;

const FENCE_COLUMNS: &str = "start_offset, next_offset, last_timestamp_ms, max_event_time_us, upstream::text, \
     topic_id";
const ONE_FENCE: &str = "function = $1 AND topic = $2 AND generation = $3 AND partition = $4";

/// A table in PostgreSQL, and the fences of the function that writes to it.
///
/// A write is one statement in one round trip. Only a table with a [`millstream_core::Merge::Sketch`] needs a transaction
/// of four.
pub struct PostgresSink {
    pool: Pool,
    function: String,
    table: Table,
    statements: Statements,
    /// How many offsets the smallest write of a partition had whose time was up; none once as many were written. One entry
    /// per partition.
    too_slow: Mutex<HashMap<TopicPartition, i64>>,
}

type Parameters<'a> = Vec<(&'a (dyn ToSql + Sync), Type)>;

impl PostgresSink {
    /// The sink of `function` (as `pipeline.function`) for `table`. Connects to nothing yet.
    ///
    /// # Errors
    /// `Stop` when the table has a column of a type that PostgreSQL can't hold.
    pub fn new(pool: Pool, function: &str, table: Table) -> Result<Self> {
        let statements = Statements::of(&table).map_err(|error| error.context(format!("table {}", table.name)))?;
        Ok(Self { pool, function: function.to_owned(), table, statements, too_slow: Mutex::default() })
    }

    /// What is being done, for messages.
    fn writing(&self) -> String {
        format!("writing to table {}", self.table.name)
    }

    /// All rows as one batch, one row per key where they merge; none when there are no rows.
    async fn gathered(&self, rows: &[RecordBatch]) -> Result<Option<RecordBatch>> {
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
        if moved(&answer, 0)? { Ok(()) } else { Err(self.fenced(movement.partition).await) }
    }

    /// A write whose time was up may have met a lock or a failover, and pass the next time. From the second on it is taken
    /// for too large, and so is every other one, until as many records have been written in time.
    fn paced(&self, movement: &Movement<'_>, outcome: Result<()>) -> Result<()> {
        let offsets = movement.to.next_offset - movement.from;
        let mut too_slow = self.too_slow.lock().unwrap_or_else(PoisonError::into_inner);
        let known = too_slow.get(movement.partition).copied();
        match outcome {
            Err(error) if error::took_too_long(&error) => {
                too_slow.insert(movement.partition.clone(), known.map_or(offsets, |known| known.min(offsets)));
                match error {
                    Error::Retry(fault) if known.is_some() => Err(Error::TooLarge(fault)),
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

    /// Merges what the database can't, under the locks of the rows. False when the fence is not where it should be.
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
        if !moved(&answer, width)? {
            return Ok(false);
        }
        if answer[0].get::<_, Option<bool>>(width + 1).is_some() {
            let there = decode::batch(&answer, &self.table.schema(), 0)?;
            let merged = self.combined(&[there, rows.clone()]).await?;
            let columns = self.columns_of(&merged)?;
            transaction.query_typed(&statements.replace, &parameters(&columns)).await.map_err(failed)?;
        }
        fault::point("postgres.before_commit");
        transaction.commit().await.map_err(failed)?;
        fault::point("postgres.after_commit");
        Ok(true)
    }

    async fn combined(&self, rows: &[RecordBatch]) -> Result<RecordBatch> {
        let none =
            || Error::stop(format!("internal: table {} has states and nothing to combine them", self.table.name));
        self.table.combine.as_ref().ok_or_else(none)?.combine(rows).await
    }

    /// The error for a fence that did not move. Nothing was changed, so a failed look at it is no reason for another one.
    async fn fenced(&self, partition: &TopicPartition) -> Error {
        let current = self.fence(partition).await.ok().flatten().map(|fence| fence.next_offset);
        Error::Fenced { current }
    }
}

#[async_trait]
impl Sink for PostgresSink {
    async fn prepare(&self, create: bool) -> Result<()> {
        schema::prepare(&self.pool, &self.table, create).await
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
        let upstream = upstream_text(&fence)?;
        let sql = "INSERT INTO millstream_fences (function, topic, generation, partition, start_offset, next_offset, \
             last_timestamp_ms, max_event_time_us, upstream, topic_id) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10) \
             ON CONFLICT DO NOTHING";
        // The same ten parameters as a movement from where the function starts to where the fence is.
        let movement = Movement {
            function: &self.function,
            partition,
            generation: i64::from(partition.generation),
            from: fence.start_offset,
            to: &fence,
            upstream,
        };
        self.pool.query(what, sql, &movement.parameters(&[])).await?;
        let lost = || Error::retry(format!("{}: it was removed at once", self.pool.doing(what)));
        self.fence(partition).await?.ok_or_else(lost)
    }

    async fn write(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()> {
        let rows = self.gathered(rows).await?;
        if let Some(rows) = &rows {
            self.table.check_storable(rows).map_err(|error| error.context(self.pool.doing(&self.writing())))?;
        }
        let movement = Movement {
            function: &self.function,
            partition,
            generation: i64::from(partition.generation),
            from: from.next_offset,
            to,
            upstream: upstream_text(to)?,
        };
        let mut attempt = 1;
        loop {
            let outcome = match (&rows, &self.statements.sketch) {
                (Some(rows), Some(statements)) => self.write_sketches(&movement, rows, statements).await,
                (rows, _) => self.write_once(&movement, rows.as_ref()).await,
            };
            match outcome {
                Err(error) if attempt < MAX_ATTEMPTS && error::met_another_writer(&error) => {
                    tracing::info!(table = self.table.name, %partition, attempt, "two writers met; writing again");
                    attempt += 1;
                }
                outcome => return self.paced(&movement, outcome),
            }
        }
    }

    async fn snapshot(&self) -> Result<Snapshot> {
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
            let rows = decode::read(&self.pool, &what, &*transaction, &read_rows, &schema).await?;
            transaction.commit().await.map_err(failed)?;
            Ok((fences, rows))
        };
        let read: Result<_> = work.await;
        if read.is_err() {
            // Rows may still be under way: such a connection is not used again.
            drop(Object::take(client));
        }
        let (fences, rows) = read?;
        Ok(Snapshot { fences: fences.iter().map(partition_and_fence).collect::<Result<_>>()?, rows })
    }
}

/// A fence on its way from one offset to the next.
struct Movement<'a> {
    function: &'a str,
    partition: &'a TopicPartition,
    generation: i64,
    from: i64,
    to: &'a Fence,
    upstream: String,
}

impl Movement<'_> {
    /// The parameters $1 to $10 of every statement that touches a fence, and the columns behind them.
    fn parameters<'a>(&'a self, columns: &'a [Parameter]) -> Parameters<'a> {
        let fence: [(&(dyn ToSql + Sync), Type); FENCE_PARAMETERS] = [
            (&self.function, Type::TEXT),
            (&self.partition.topic, Type::TEXT),
            (&self.generation, Type::INT8),
            (&self.partition.partition, Type::INT4),
            (&self.from, Type::INT8),
            (&self.to.next_offset, Type::INT8),
            (&self.to.last_timestamp_ms, Type::INT8),
            (&self.to.max_event_time_us, Type::INT8),
            (&self.upstream, Type::TEXT),
            (&self.to.topic_id, Type::TEXT),
        ];
        fence.into_iter().chain(parameters(columns)).collect()
    }
}

fn parameters(columns: &[Parameter]) -> Parameters<'_> {
    columns.iter().map(|column| (column as &(dyn ToSql + Sync), column.sql_type())).collect()
}

/// Did the fence move? The count stands in column `index` of the first row of the answer.
fn moved(answer: &[Row], index: usize) -> Result<bool> {
    let count = answer.first().and_then(|row| row.try_get::<_, i64>(index).ok());
    count.map(|count| count == 1).ok_or_else(|| Error::stop("internal: a write answered nothing"))
}

fn fence_of(row: &Row) -> Result<Fence> {
    let upstream: BTreeMap<String, (i64, i32)> = serde_json::from_str(&row.get::<_, String>(4))
        .map_err(|error| Error::stop("the column upstream of millstream_fences can't be read").caused_by(error))?;
    Ok(Fence {
        start_offset: row.get(0),
        next_offset: row.get(1),
        last_timestamp_ms: row.get(2),
        max_event_time_us: row.get(3),
        upstream,
        topic_id: row.get(5),
    })
}

fn partition_and_fence(row: &Row) -> Result<(TopicPartition, Fence)> {
    let generation = u32::try_from(row.get::<_, i64>(7))
        .map_err(|error| Error::stop("the column generation of millstream_fences can't be read").caused_by(error))?;
    Ok((TopicPartition::new(row.get::<_, String>(6), generation, row.get(8)), fence_of(row)?))
}

fn upstream_text(fence: &Fence) -> Result<String> {
    serde_json::to_string(&fence.upstream)
        .map_err(|error| Error::stop("internal: upstream positions are no JSON").caused_by(error))
}
