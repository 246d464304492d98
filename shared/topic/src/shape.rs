use std::sync::Arc;

use arrow::array::ArrayRef;
use millstream_core::{Clock, Decode, Encode, Producer, Result};

/// How a function's rows are the records of a topic.
#[derive(Clone)]
pub struct Shape {
    /// The topic that it writes to.
    pub topic: String,
    /// The topic's generation in the pipeline file.
    pub generation: u32,
    /// How many partitions it gets if it is created.
    pub partitions: i32,
    /// What the record's key is made of; it decides the partition. Without it, records have no key, and those that are made of
    /// one partition go to one partition.
    pub key: Option<Key>,
    /// The column whose value is a record's timestamp. Where it is null, and without it, a record has that of the one that it is
    /// made of.
    pub timestamp: Option<String>,
    /// The column whose value is the number of a record's partition. Where it is null, and without it, the key decides.
    pub partition: Option<String>,
    /// May the same records of the source give others the next time? Then those that are about to be sent are kept in the outbox.
    pub keeps_rows: bool,
    /// Makes the value of each record, of the columns that are not carried.
    pub encode: Arc<dyn Encode>,
    /// Reads what `encode` has made.
    pub decode: Arc<dyn Decode>,
}

/// The topics that hold fences and records that are about to be sent; several functions may share them.
pub struct FencesTopic {
    /// The name of the one with the fences.
    pub name: String,
    /// The name of the one with the records.
    pub outbox: String,
    /// Writes fences: a few small records, which need no compression.
    pub producer: Arc<dyn Producer>,
    /// Says when a function has become the owner of its topic.
    pub clock: Arc<dyn Clock>,
}

/// What a record's key is made of.
#[derive(Clone)]
pub struct Key {
    /// The column.
    pub column: String,
    /// Its values as keys; null has none.
    pub texts: Arc<Texts>,
}

/// The values of a column as bytes.
pub type Texts = dyn Fn(&ArrayRef) -> Result<Vec<Option<Vec<u8>>>> + Send + Sync;
