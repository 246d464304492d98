//! What a function has sent again to the topic that is read.

use std::collections::HashMap;

use millstream_core::{Batch, Lineage, SOURCE_HEADER};

/// How far each partition upstream has come in a partition of the topic: the last offset and index.
#[derive(Clone, Default)]
pub(super) struct Hops(HashMap<String, (i64, i32)>);

impl Hops {
    /// For each record of the next batch: is it there for the first time?
    pub(super) fn pass(&mut self, batch: &Batch) -> Vec<bool> {
        (0..batch.len()).map(|row| self.is_first(batch.find_header(row, SOURCE_HEADER))).collect()
    }

    fn is_first(&mut self, header: Option<&[u8]>) -> bool {
        let Some(Lineage { source, index }) = header.and_then(Lineage::parse) else { return true };
        let came = self.0.entry(source.partition.to_string()).or_insert((-1, -1));
        let is_first = (source.offset, index) > *came;
        if is_first {
            *came = (source.offset, index);
        }
        is_first
    }
}
