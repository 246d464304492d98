use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::SchemaRef,
};
use async_trait::async_trait;

use crate::{
    Address, Compression, DeadLetters, Encode, Env, Error, Log, PartitionBy, Producer, Result, Sink, Source, Table,
    Topics,
};

/// How a system is opened: its crate reads the system's variables, and no other crate knows them.
///
/// Called by assembly, once for each system that a pipeline uses.
pub trait Connect: Sized {
    /// The variable that says where the system is.
    const ADDRESS: Address;

    /// Checks all variables of the system, and opens nothing: is there an address among them? There is none when
    /// [`Connect::ADDRESS`] is not set or is `embedded`.
    ///
    /// # Errors
    /// `Stop` with the name of the variable that is wrong, and never with its value.
    fn check(env: &Env) -> Result<bool>;

    /// Opens the system at its address, without waiting for it to answer; `None` when there is no address.
    ///
    /// # Errors
    /// Those of [`Connect::check`], and `Stop` when the client can't be made.
    fn open(env: &Env) -> Result<Option<Self>>;
}

/// A system that holds tables: a database, a lake, a cache. One value is one place, and shares its connections with all
/// that it gives out.
///
/// Opened by assembly, which finds the system by its name in the pipeline file. It is asked by functions at their start
/// (for a sink, for references) and by the commands that show tables to a person. A store connects when it is first
/// asked, and not when it is opened. Callers retry; a store itself does not.
#[async_trait]
pub trait TableStore: Send + Sync {
    /// What to call this place in front of a person, such as `PostgreSQL` or a folder. No secrets.
    fn place(&self) -> String;

    /// The sink of `function` (as `pipeline.function`) for `table`. Connects to nothing. The audit also asks for the sink
    /// of what readers see (the view's columns without states), and only takes its [`Sink::snapshot`].
    ///
    /// # Errors
    /// `Stop` when the store can't hold such a table.
    fn sink(&self, function: &str, table: Table) -> Result<Arc<dyn Sink>>;

    /// The same for a function whose pipeline file says which folders its files go to. The sink refuses at
    /// [`Sink::prepare`] what does not fit a table that exists.
    ///
    /// # Errors
    /// `Stop` from a store without files, and those of [`TableStore::sink`].
    fn sink_in_folders(&self, function: &str, table: Table, _by: PartitionBy) -> Result<Arc<dyn Sink>> {
        Err(Error::stop(format!(
            "internal: {function} writes table {} in folders, and {} has none",
            table.name,
            self.place()
        )))
    }

    /// Connects ahead. Called when a function starts, while its statement is planned. What fails here fails
    /// again for the next caller, who is told.
    async fn warm_up(&self) {}

    /// All rows of `name`, which need not be a function's table: what a reference is loaded from. At least the columns of
    /// `schema` come back, by name; the caller checks and converts their types. Called at the start of a function and
    /// whenever a reference is refreshed.
    ///
    /// # Errors
    /// `Stop` when there is nothing of this name, a column is missing, or it is more than is held in memory; `Retry` when
    /// the store can't be reached.
    async fn read_reference(&self, name: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>>;

    /// The rows of `name` with one of `keys` in its column `by`, each once: what a reference with `lookup` is asked for before each
    /// batch. At least the columns of `schema` come back, as [`TableStore::read_reference`] gives them. The keys are distinct, have
    /// the type that `schema` has for `by`, and none is null. Without keys it checks that the table can be asked, at the start of
    /// a function.
    ///
    /// # Errors
    /// `Stop` when there is nothing of this name, a column is missing, or its rows can't be found by this column; `Retry` when
    /// the store can't be reached: a missing answer is never a missing row. `TooLarge` for more rows than are held in memory.
    async fn read_by_key(
        &self,
        name: &str,
        _schema: &SchemaRef,
        _by: &str,
        _keys: &ArrayRef,
    ) -> Result<Vec<RecordBatch>> {
        Err(Error::stop(format!(
            "`{name}` can't be asked by key: {} only gives it whole. Leave `lookup` out",
            self.place()
        )))
    }

    /// All rows that [`TableStore::read_by_key`] finds by the column `by`: what an audit joins instead of asking.
    ///
    /// # Errors
    /// Those of both.
    async fn read_all_by_key(&self, name: &str, schema: &SchemaRef, _by: &str) -> Result<Vec<RecordBatch>> {
        self.read_reference(name, schema).await
    }

    /// The bytes of the file `name`, for a reference that is not a table: CSV.
    ///
    /// # Errors
    /// `Stop` from a store without files, when there is none of this name, or it is larger than is held in memory; `Retry` when
    /// the store can't be reached.
    async fn read_file(&self, name: &str) -> Result<Vec<u8>> {
        Err(Error::stop(format!("there is no file `{name}` in {}: it holds tables", self.place())))
    }

    /// All rows of a function's table as its readers see them, with the columns of `schema` in its order: what
    /// `millstream query` asks.
    ///
    /// # Errors
    /// `Stop` when it is not there or too large; also from a store that answers questions itself, with how to ask it.
    /// `Retry` when the store can't be reached.
    async fn read_public(&self, table: &Table, schema: &SchemaRef) -> Result<Vec<RecordBatch>>;

    /// The newest rows of a function's table as its readers see them, newest first and at most `limit`; `None` from a store
    /// that would have to read all of it. Called twice a second by the live view of `millstream dev`.
    ///
    /// # Errors
    /// `Stop` when there is no such table; `Retry` when the store can't be reached.
    async fn newest_rows(&self, table: &Table, limit: usize) -> Result<Option<TextRows>>;

    /// How many rows readers see; `None` from a store where counting costs too much for a view that asks every two seconds.
    ///
    /// # Errors
    /// As for [`TableStore::newest_rows`].
    async fn count_rows(&self, _table: &Table) -> Result<Option<u64>> {
        Ok(None)
    }

    /// The rows of a function's table as a log, up to the function's fence and never past it: its change feed. The partitions,
    /// offsets and timestamps are those of the records that the rows were made of. The log answers for partitions of any
    /// topic's name, and takes their generation for that of the topic that the function reads.
    ///
    /// # Errors
    /// `Stop` from a store that doesn't keep rows by their position.
    fn feed(&self, feed: Feed) -> Result<Arc<dyn Log>> {
        Err(Error::stop(format!(
            "table {} is in {}, which has no change feed: it doesn't keep where its rows come from",
            feed.table.name,
            self.place()
        )))
    }

    /// How a person removes the table `name` of `function` and its fences, for a new beginning. `millstream reset` says it of
    /// every store that is not embedded, and leaves the table alone.
    fn how_to_reset(&self, function: &str, name: &str) -> String;
}

/// A table that is read as a log: see [`TableStore::feed`].
#[derive(Clone)]
pub struct Feed {
    /// The function that fills the table, as `pipeline.function`: its fences say how far the feed goes.
    pub function: String,
    /// The table.
    pub table: Table,
    /// The one topic that the function reads.
    pub topic: String,
    /// Makes the value of a record of a row, of the columns that are not carried.
    pub encode: Arc<dyn Encode>,
}

/// Rows as text for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextRows {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The cells of each row, as many as there are columns; a null is `null`.
    pub rows: Vec<Vec<String>>,
}

/// A system that holds topics. As a [`Producer`] it compresses as [`Compression::default`] says.
///
/// Opened by assembly, once per process. Functions, hosts and the command line share it; callers retry.
#[async_trait]
pub trait LogStore: Source + Topics + Producer {
    /// What to call this place in front of a person, such as `Kafka at host:port`. No secrets.
    fn place(&self) -> String;

    /// What appends to topics, compressed as their records should be. Producers of the same compression share a client.
    /// Called for each generator and by `millstream produce`.
    ///
    /// # Errors
    /// `Stop` when the settings can't be right.
    fn producer(&self, compression: Compression) -> Result<Arc<dyn Producer>>;

    /// Like [`LogStore::producer`], for a function's own topics: of the records of a send that failed, those of each partition
    /// that were written are the first ones, without a gap, however the log answers.
    ///
    /// # Errors
    /// `Stop` when the settings can't be right.
    fn ordered_producer(&self, compression: Compression) -> Result<Arc<dyn Producer>> {
        self.producer(compression)
    }

    /// The log's own place for dead letters; `None` from a log that has none, whose dead letters go to a topic.
    fn dead_letters(&self) -> Option<Arc<dyn DeadLetters>> {
        None
    }

    /// What a consumer group has committed of a topic, by partition; `None` where it has committed nothing. For people to
    /// look at (`millstream topics`): the fences are what counts.
    ///
    /// # Errors
    /// `Stop` when the topic does not exist, `Retry` when the log can't be reached.
    async fn group_offsets(&self, group: &str, topic: &str, generation: u32) -> Result<Vec<Option<i64>>>;
}
