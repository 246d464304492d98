//! What a topic holds of a function, without what was sent again.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array, new_null_array},
    compute::{cast, take},
};
use millstream_core::{
    Batch, Column, Decoded, Error, Fence, Limits, Lineage, Log, Result, SOURCE_HEADER, TakeRows, TopicPartition,
    Topics, headers_type, meta,
};

use crate::TopicSink;

/// How much is read at once.
const PAGE: Limits = Limits { max_records: 10_000, max_bytes: 8 << 20, max_wait_ms: 0 };

/// The highest lineage of each upstream partition, of one partition of the topic.
type Seen = HashMap<TopicPartition, (i64, i32)>;

impl<L: Log + Topics + ?Sized> TopicSink<L> {
    /// Gives the rows of all records to `take`, once each and no further than the fences, and those of records that no function
    /// has written.
    pub(crate) async fn read_all(&self, take: TakeRows) -> Result<Vec<(TopicPartition, Fence)>> {
        let fences = self.own_fences(&*self.kept().await?);
        let below: HashMap<&TopicPartition, i64> = fences.iter().map(|(at, fence)| (at, fence.next_offset)).collect();
        for partition in self.partitions().await? {
            let held = self.log.watermarks(&partition).await?;
            let (mut next, mut seen) = (held.low, Seen::new());
            while next < held.high {
                let batch = self.log.read(&partition, next..held.high, PAGE).await?;
                next = batch.range().end;
                let lineages: Vec<_> = (0..batch.len()).map(|row| lineage_of(&batch, row)).collect();
                let wanted: Vec<bool> =
                    lineages.iter().map(|lineage| is_wanted(lineage.as_ref(), &below, &mut seen)).collect();
                let decoded = self.shape.decode.decode(&batch)?.only(&wanted)?;
                if let Some(bad) = decoded.bad.first() {
                    let at = partition.at(batch.offsets().value(bad.index));
                    return Err(Error::stop(format!(
                        "record {at} can't be read as the function writes it: {}",
                        bad.reason
                    )));
                }
                if decoded.rows.num_rows() > 0 {
                    take(self.as_table(&batch, &decoded, &lineages)?)?;
                }
            }
        }
        Ok(fences)
    }

    fn as_table(&self, batch: &Batch, decoded: &Decoded, lineages: &[Option<Lineage>]) -> Result<RecordBatch> {
        let broken = |error| Error::stop("internal: records of a topic don't fit its columns").caused_by(error);
        let column = |column: &Column| -> Result<ArrayRef> {
            let carried = carried(&column.name, batch, decoded, lineages);
            let own = || decoded.rows.column_by_name(&column.name).cloned();
            let found = carried.or_else(own).ok_or_else(|| Error::stop("internal: a column is not decoded"))?;
            cast(&found, &column.data_type).map_err(broken)
        };
        let columns = self.table.columns.iter().map(column).collect::<Result<_>>()?;
        RecordBatch::try_new(self.table.schema(), columns).map_err(broken)
    }
}

/// One of the columns that are not in the value.
fn carried(name: &str, batch: &Batch, decoded: &Decoded, lineages: &[Option<Lineage>]) -> Option<ArrayRef> {
    let rows = || decoded.index.iter().copied();
    match name {
        meta::OFFSET => {
            let offset = |row: usize| lineages[row].as_ref().map(|lineage| lineage.source.offset);
            Some(Arc::new(Int64Array::from_iter(rows().map(offset))))
        }
        meta::TIMESTAMP => {
            let times = rows().map(|row| batch.timestamps_ms().value(row).saturating_mul(1_000));
            Some(Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")))
        }
        meta::HEADERS => {
            let indices = UInt32Array::from_iter_values(rows().map(|row| row as u32));
            let of_rows = batch.headers().and_then(|headers| take(headers, &indices, None).ok());
            Some(of_rows.unwrap_or_else(|| new_null_array(&headers_type(), indices.len())))
        }
        _ => None,
    }
}

fn lineage_of(batch: &Batch, row: usize) -> Option<Lineage> {
    batch.find_header(row, SOURCE_HEADER).and_then(Lineage::parse)
}

fn is_wanted(lineage: Option<&Lineage>, below: &HashMap<&TopicPartition, i64>, seen: &mut Seen) -> bool {
    let Some(lineage) = lineage else { return true };
    let highest = seen.get(&lineage.source.partition);
    if highest.is_some_and(|highest| *highest >= lineage.order()) {
        return false;
    }
    let is_below = match below.get(&lineage.source.partition) {
        Some(next) => lineage.source.offset < *next,
        // Of a partition that the function has not begun when the fences were read, or somebody else's.
        None => below.keys().all(|known| known.topic != lineage.source.partition.topic) && !below.is_empty(),
    };
    if is_below {
        seen.insert(lineage.source.partition.clone(), lineage.order());
    }
    is_below
}
