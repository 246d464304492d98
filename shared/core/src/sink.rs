use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use async_trait::async_trait;

use crate::{Claim, Error, Fence, Holding, Owner, OwnerRecord, Replace, Result, TopicPartition};

/// The number of the partition under which a sink keeps what it knows of a topic as a whole: see [`Sink::begin_topic`].
pub const WHOLE_TOPIC: i32 = -1;

/// What a sink holds of one function at one instant.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The fence of every partition that has one ([`WHOLE_TOPIC`] is not a partition).
    pub fences: Vec<(TopicPartition, Fence)>,
    /// The rows of the table, in its columns' order and types; in no order of rows.
    pub rows: Vec<RecordBatch>,
}

/// What takes rows that are read, batch by batch.
pub type TakeRows = Arc<dyn Fn(RecordBatch) -> Result<()> + Send + Sync>;

/// A row with values that are not of their columns' types: another program has written it.
#[derive(Clone, Debug)]
pub struct OddRow {
    /// The row, in columns that may be null: NULL where a value can't be read.
    pub row: RecordBatch,
    /// The places of the columns with such values, each with what is there, for people.
    pub unreadable: Vec<(usize, String)>,
}

/// What takes rows that can't be read.
pub type TakeOddRow = Arc<dyn Fn(OddRow) -> Result<()> + Send + Sync>;

/// One table (or folder of files, or cache) that one function writes to, with the fences of that function.
///
/// A value of this trait is bound to one function and one [`crate::Table`]. The runner calls it, for several partitions
/// at once but for one partition one call at a time; other processes (zombies among them) may call at any moment. The
/// host retries; a sink itself retries nothing but what it knows to have changed nothing (a serialization failure).
#[async_trait]
pub trait Sink: Send + Sync {
    /// Makes the table and the fences' place ready: creates what is missing if `create`, and checks what is there.
    /// Called once at start and by `millstream up`; may be called again at any time.
    ///
    /// # Errors
    /// `Stop` when the table is missing and may not be created, or has columns that don't fit; says which.
    async fn prepare(&self, create: bool) -> Result<()>;

    /// Lets the table go on under `owner`, and makes of it what the changed plan needs: [`Sink::prepare`] with `create`, then
    /// [`Sink::claim`] with [`Claim::Adopt`]. In between, it carries out what the table can take without a loss: columns that are
    /// new and may be null are added, columns get wider types (see [`crate::is_wider`]), and what readers see is computed again
    /// from the states. A store with transactions does all of it in one: no writer of the old plan ever meets the changed table,
    /// and nothing has changed when the claim is not made. Called by `millstream adopt`.
    ///
    /// # Errors
    /// `Stop` when the table can't become what the plan needs; says why, and nothing was changed. Those of [`Sink::claim`].
    async fn adopt(&self, owner: &Owner, record: Option<&OwnerRecord>) -> Result<Option<OwnerRecord>> {
        self.prepare(true).await?;
        self.claim(owner, &Claim::Adopt(record.cloned())).await
    }

    /// What keeps [`Sink::adopt`] from making the table what the plan needs, each thing for a person; none when nothing does.
    /// Changes nothing. Called by `millstream check --deployed`, and at a start that stops.
    ///
    /// # Errors
    /// Those of the store; `Stop` for a table that the store can't hold.
    async fn misfits(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// What keeps `owner`'s plan from going on where the table's previous plan was interrupted, each thing for a person. Changes
    /// nothing. Asked together with [`Sink::misfits`].
    ///
    /// # Errors
    /// Those of the store.
    async fn unsettled(&self, _owner: &Owner) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Finishes what a process before was interrupted in, if the store isn't atomic and can't simply write it again. Called by
    /// the runner before it reads the fence of a partition, and by a redrive that ends what another one has begun.
    ///
    /// # Errors
    /// Those of [`Sink::write`], but for `Fenced` and `Poison`.
    async fn settle(&self, _partition: &TopicPartition) -> Result<()> {
        Ok(())
    }

    /// The fence of a partition; `None` when none was ever created, which is never read as zero.
    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>>;

    /// Creates the fence if there is none, and returns the fence that exists afterwards. If two writers create it at once,
    /// both get the same fence.
    async fn create_fence(&self, partition: &TopicPartition, fence: Fence) -> Result<Fence>;

    /// How many partitions `topic` had when the function began to read it: the first call stores `partitions`, and every
    /// call returns the stored number. If two processes call first at once, both get the same number.
    ///
    /// It is kept as the fence of [`WHOLE_TOPIC`], so that every sink has it.
    ///
    /// # Errors
    /// Those of [`Sink::create_fence`].
    async fn begin_topic(&self, topic: &str, generation: u32, partitions: i32) -> Result<i32> {
        let whole = TopicPartition::new(topic, generation, WHOLE_TOPIC);
        let kept = self.create_fence(&whole, Fence::starting_at(partitions.into())).await?;
        i32::try_from(kept.start_offset)
            .map_err(|error| Error::stop(format!("the fence of {whole} is damaged in the sink")).caused_by(error))
    }

    /// Makes `rows` visible and moves the fence from `from` to `to` in one atomic step. All rows come from the records
    /// in `from.next_offset..to.next_offset`; there may be none (every record was filtered or dead-lettered), and the
    /// fence still moves. Rows have the columns of the table in its order and types; for a table that merges,
    /// they are partial states and several may have the same key.
    ///
    /// A store without transactions makes the step atomic for readers who read no further than the fence: rows first, under
    /// keys that are a function of their position, then the fence, which never goes back. Two writers at one fence may both
    /// get `Ok`, because they wrote the same. It finds the position in the column [`crate::meta::OFFSET`],
    /// which such a table has, and in the order of rows with equal offsets.
    ///
    /// # Errors
    /// - `Fenced`: the fence is not at `from`, and nothing was changed by this call. (After an unknown outcome an earlier
    ///   attempt of this very write may be what moved it.)
    /// - `Retry`: the outcome may be unknown; the caller reads the fence before it does anything else.
    /// - `Poison`: nothing was changed; some row can't be stored in this table. The runner narrows it down.
    /// - `Stop`: nothing was changed; a person must act. Also if the fence is of another term: the table has another owner or
    ///   another plan by now.
    async fn write(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()>;

    /// What the store holds of the table and of the function, whether anything is there or not. Called at a start, before
    /// [`Sink::prepare`] creates anything.
    ///
    /// # Errors
    /// `Retry` when the store can't be reached.
    async fn holding(&self) -> Result<Holding>;

    /// Records `owner` as the owner of the table, in one atomic step with the term of the fences. `None` if the record in the
    /// store is no longer the one that `claim` speaks of, because another process has changed it: the caller looks again.
    /// Called at a start, after [`Sink::prepare`].
    ///
    /// # Errors
    /// `Stop` when the fences of both functions exist, so that those of one would be lost; `Retry` when the outcome may be
    /// unknown.
    async fn claim(&self, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>>;

    /// From now on, this sink writes in `term`, which is that of the record that [`Sink::claim`] or [`Sink::holding`] gave.
    /// Before that, it writes in term 0, which only a table without an owner has (and tests).
    fn begin_term(&self, term: i64);

    /// How this table takes the place of another one; `None` from a store that has no such step.
    fn replace(&self) -> Option<&dyn Replace> {
        None
    }

    /// Gives all rows to `take`, in the columns' order and types and in no order of rows, and returns the fence of every
    /// partition that has one (without [`WHOLE_TOPIC`]): both as of one instant. Rows are not collected in memory. Called by an
    /// audit; the caller starts again after an error.
    ///
    /// # Errors
    /// Those of the store, and of `take`.
    async fn scan(&self, take: TakeRows) -> Result<Vec<(TopicPartition, Fence)>>;

    /// Like [`Sink::scan`], but rows with values that are not of their columns' types are no error: they are given to `odd`.
    /// Called by an audit of what readers see. A store that can't hold such values has none.
    ///
    /// # Errors
    /// Those of [`Sink::scan`], and of `odd`.
    async fn scan_with_odd(&self, take: TakeRows, _odd: TakeOddRow) -> Result<Vec<(TopicPartition, Fence)>> {
        self.scan(take).await
    }

    /// [`Sink::scan`] with all rows in memory: for tables that are known to be small.
    ///
    /// # Errors
    /// Those of [`Sink::scan`].
    async fn snapshot(&self) -> Result<Snapshot> {
        let rows = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&rows);
        let take: TakeRows = Arc::new(move |batch| {
            taken.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
            Ok(())
        });
        let fences = self.scan(take).await?;
        let rows = std::mem::take(&mut *rows.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Snapshot { fences, rows })
    }
}
