//! Fences as rows of `millstream_fences`, and as parameters of statements.

use millstream_core::{Error, Fence, Result, TopicPartition};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use crate::{encode::Parameter, statement::FENCE_PARAMETERS};

/// What [`fence_of`] reads.
pub(crate) const FENCE_COLUMNS: &str = "start_offset, next_offset, last_timestamp_ms, max_event_time_us, upstream::text, \
     topic_id, rows";

pub(crate) type Parameters<'a> = Vec<(&'a (dyn ToSql + Sync), Type)>;

/// A move of a fence from one offset to the next.
pub(crate) struct Movement<'a> {
    function: &'a str,
    pub(crate) partition: &'a TopicPartition,
    generation: i64,
    pub(crate) from: i64,
    pub(crate) to: &'a Fence,
    upstream: String,
    term: i64,
}

impl<'a> Movement<'a> {
    pub(crate) fn new(
        function: &'a str,
        term: i64,
        partition: &'a TopicPartition,
        from: i64,
        to: &'a Fence,
    ) -> Result<Self> {
        let generation = i64::from(partition.generation);
        Ok(Self { function, partition, generation, from, to, upstream: to.upstream_text()?, term })
    }

    /// The parameters $1 to $12 of every statement that touches a fence, followed by the columns.
    pub(crate) fn parameters<'b>(&'b self, columns: &'b [Parameter]) -> Parameters<'b> {
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
            (&self.to.rows, Type::INT8),
            (&self.term, Type::INT8),
        ];
        fence.into_iter().chain(parameters(columns)).collect()
    }
}

pub(crate) fn parameters(columns: &[Parameter]) -> Parameters<'_> {
    columns.iter().map(|column| (column as &(dyn ToSql + Sync), column.sql_type())).collect()
}

/// Did the fence move? The count stands in column `index` of the first row of the answer.
pub(crate) fn has_moved(answer: &[Row], index: usize) -> Result<bool> {
    let count = answer.first().and_then(|row| row.try_get::<_, i64>(index).ok());
    count.map(|count| count == 1).ok_or_else(|| Error::stop("internal: a write answered nothing"))
}

/// A fence from a row of [`FENCE_COLUMNS`].
pub(crate) fn fence_of(row: &Row) -> Result<Fence> {
    Ok(Fence {
        start_offset: row.get(0),
        next_offset: row.get(1),
        last_timestamp_ms: row.get(2),
        max_event_time_us: row.get(3),
        upstream: Fence::parse_upstream(row.get(4))?,
        topic_id: row.get(5),
        rows: row.get(6),
    })
}

/// The same, followed by topic, generation and partition.
pub(crate) fn partition_and_fence(row: &Row) -> Result<(TopicPartition, Fence)> {
    let generation = u32::try_from(row.get::<_, i64>(8))
        .map_err(|error| Error::stop("the column generation of millstream_fences can't be read").caused_by(error))?;
    Ok((TopicPartition::new(row.get::<_, String>(7), generation, row.get(9)), fence_of(row)?))
}
