use arrow::array::{ArrayRef, RecordBatch};
use async_trait::async_trait;

use crate::Result;

/// Rows of a reference by their keys: for tables that are too large to be held in memory.
///
/// Called by a function's transform, before each batch, with the keys that the batch needs; whoever called the transform
/// retries.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// All rows of the reference with one of `keys` in its key column. The keys are distinct, have the column's type, and none
    /// is null. A row comes once; a key without a row gives none. The order of the rows doesn't matter.
    ///
    /// # Errors
    /// `Retry` when the rows can't be read now: a missing answer is never a missing row. `TooLarge` for more rows than are
    /// held in memory, `Stop` when the table or a column isn't there, or a value doesn't fit its type.
    async fn rows(&self, keys: &ArrayRef) -> Result<Vec<RecordBatch>>;
}
