use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, TimestampMicrosecondArray},
    datatypes::{DataType, Field},
};
use async_trait::async_trait;

use crate::{Batch, Result};

/// Names and meaning of the columns that every topic has in addition to its own fields.
pub mod meta {
    /// The topic's name.
    pub const TOPIC: &str = "_topic";
    /// The partition's number.
    pub const PARTITION: &str = "_partition";
    /// The record's offset.
    pub const OFFSET: &str = "_offset";
    /// Kafka's timestamp.
    pub const TIMESTAMP: &str = "_timestamp";
    /// The record's key as text (null where there is none or it is not UTF-8).
    pub const KEY: &str = "_key";
    /// The record's headers (null where no record of the batch has any): see [`headers_type`].
    pub const HEADERS: &str = "_headers";
    /// Event time, then position, as bytes that compare like them: how `first_value` and `last_value` decide.
    pub const ORDER: &str = "_order";
}

/// All [`meta`] columns.
pub const META_COLUMNS: [&str; 7] =
    [meta::TOPIC, meta::PARTITION, meta::OFFSET, meta::TIMESTAMP, meta::KEY, meta::HEADERS, meta::ORDER];

/// The type of a record's headers: a map of names to bytes, in which names may repeat, as [`Batch::headers`] has them.
pub fn headers_type() -> DataType {
    let key = Field::new("keys", DataType::Utf8, false);
    let value = Field::new("values", DataType::Binary, true);
    let entry = Field::new("entries", DataType::Struct(vec![key, value].into()), false);
    DataType::Map(Arc::new(entry), false)
}

/// A record that can't be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Which record of the batch, from 0.
    pub index: usize,
    /// Why, for a person.
    pub reason: String,
}

/// A batch, decoded.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// One row per good record, in order.
    pub rows: RecordBatch,
    /// Which record of the batch each row came from, ascending.
    pub index: Vec<usize>,
    /// Each row's event time, UTC: the declared field, or Kafka's timestamp.
    pub event_time: TimestampMicrosecondArray,
    /// The other records.
    pub bad: Vec<Bad>,
}

/// Bytes to columns, for one topic. Pure: equal input gives equal output.
pub trait Decode: Send + Sync {
    /// Decodes all records. A bad record never costs its neighbours.
    ///
    /// # Errors
    /// `Stop` on a configuration error. Bad records are returned as [`Bad`], not as an error.
    fn decode(&self, batch: &Batch) -> Result<Decoded>;
}

/// Columns to bytes, for one topic. Pure: equal input gives equal output.
pub trait Encode: Send + Sync {
    /// One value per row.
    ///
    /// # Errors
    /// `Stop` if the columns are not those that it encodes, `Poison` for a value that the format can't hold.
    fn encode(&self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>>;
}

/// Columns to the rows of a table. Pure: equal input gives equal output, and the output of a batch is, after merging,
/// that of its parts.
#[async_trait]
pub trait Transform: Send + Sync {
    /// Transforms the decoded rows of `topic` into rows of the function's table. All rows of a record are in the result of
    /// one call, in no order that can be relied on (a join or a union mixes the rows of several records): a sink that
    /// numbers rows within their record sorts them first, by position and by their values.
    ///
    /// # Errors
    /// `Poison` when a row makes an expression fail (the runner narrows it down), `Stop` on a defect of the set-up.
    async fn apply(&self, topic: &str, rows: RecordBatch) -> Result<Vec<RecordBatch>>;
}

/// Keeps the columns of a decoded batch together while rows are left out.
impl Decoded {
    /// Only what the batch's records give for which `wanted` is true: rows and bad records. One entry per record of the batch.
    ///
    /// # Errors
    /// `Stop` on a length mismatch, which is a defect.
    pub fn only(mut self, wanted: &[bool]) -> Result<Self> {
        let is_wanted = |index: usize| wanted.get(index).copied().unwrap_or(false);
        self.bad.retain(|bad| is_wanted(bad.index));
        let keep = self.index.iter().map(|index| is_wanted(*index)).collect::<Vec<_>>();
        self.filter(&keep.into())
    }

    /// Without the rows for which `keep` is false; `keep` has one entry per row.
    ///
    /// # Errors
    /// `Stop` on a length mismatch, which is a defect.
    pub fn filter(self, keep: &arrow::array::BooleanArray) -> Result<Self> {
        let stop = |error| crate::Error::stop("internal: decoded columns differ in length").caused_by(error);
        let rows = arrow::compute::filter_record_batch(&self.rows, keep).map_err(stop)?;
        let time: ArrayRef = arrow::compute::filter(&self.event_time, keep).map_err(stop)?;
        let event_time = arrow::array::AsArray::as_primitive(&time).clone();
        let index =
            self.index.into_iter().zip(keep.values()).filter_map(|(index, keep)| keep.then_some(index)).collect();
        Ok(Self { rows, index, event_time, bad: self.bad })
    }
}
