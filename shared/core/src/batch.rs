use std::ops::Range;

use arrow::array::{
    Array, ArrayBuilder, AsArray, BinaryArray, BinaryBuilder, Int64Array, Int64Builder, MapArray, MapBuilder,
    StringBuilder,
};

use crate::TopicPartition;

/// A record header: name and bytes. Names may repeat.
pub type Header<'a> = (&'a str, &'a [u8]);

/// Who vouches for the offsets that a batch does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The batch was read from the log in order: an offset of its range that it does not hold does not exist
    /// (compaction, transaction markers).
    Read,
    /// Somebody else handed it over: an offset that it does not hold may have been left out, so the runner looks it up.
    Pushed,
}

/// A run of records of ONE topic partition in offset order, held as Arrow columns from the moment it is read.
///
/// All columns have one entry per record. Cloning and slicing share the memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    partition: TopicPartition,
    delivery: Delivery,
    start: i64,
    end: i64,
    offsets: Int64Array,
    timestamps_ms: Int64Array,
    keys: BinaryArray,
    values: BinaryArray,
    headers: Option<MapArray>,
    stamped_by_log: bool,
}

impl Batch {
    /// The partition that all records are of.
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// The offsets that this batch speaks for: from the first, to one past the last.
    pub fn range(&self) -> Range<i64> {
        self.start..self.end
    }

    /// How many records it holds; may be 0 for a range that holds none (a legitimate hole).
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Does it hold no record?
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Has the log itself stamped some of the records when it took them, whatever their senders said? (`LogAppendTime` of Kafka.)
    /// What is sent again then has another timestamp. Known of batches that were read from the log.
    pub fn is_stamped_by_log(&self) -> bool {
        self.stamped_by_log
    }

    /// Each record's offset, ascending, not null.
    pub fn offsets(&self) -> &Int64Array {
        &self.offsets
    }

    /// Kafka's timestamp of each record in milliseconds since 1970, not null (-1 where the log has none).
    pub fn timestamps_ms(&self) -> &Int64Array {
        &self.timestamps_ms
    }

    /// Each record's key; null where it has none.
    pub fn keys(&self) -> &BinaryArray {
        &self.keys
    }

    /// Each record's value; null for a tombstone.
    pub fn values(&self) -> &BinaryArray {
        &self.values
    }

    /// Each record's headers as a map of name to bytes; none when no record of the batch has any.
    pub fn headers(&self) -> Option<&MapArray> {
        self.headers.as_ref()
    }

    /// The first header of this name of one record.
    pub fn find_header(&self, row: usize, name: &str) -> Option<&[u8]> {
        let headers = self.headers.as_ref()?;
        let (names, values) = (headers.keys().as_string::<i32>(), headers.values().as_binary::<i32>());
        let ends = headers.value_offsets();
        let mut entries = ends[row] as usize..ends[row + 1] as usize;
        entries.find(|entry| names.value(*entry) == name).map(|entry| values.value(entry))
    }

    /// The headers of one record, in order.
    pub fn headers_of(&self, row: usize) -> Vec<(String, Vec<u8>)> {
        let Some(headers) = &self.headers else { return Vec::new() };
        let entries = headers.value(row);
        let (names, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_binary::<i32>());
        names
            .iter()
            .zip(values)
            .map(|(name, value)| (name.unwrap_or("").to_owned(), value.unwrap_or(&[]).to_vec()))
            .collect()
    }

    /// The bytes of keys and values, for limits.
    pub fn bytes(&self) -> usize {
        let of = |column: &BinaryArray| (column.value_offsets()[column.len()] - column.value_offsets()[0]) as usize;
        of(&self.keys) + of(&self.values)
    }

    /// What is left at and above `offset`: `None` when the whole range lies below it.
    pub fn after(&self, offset: i64) -> Option<Self> {
        if self.end <= offset {
            return None;
        }
        if offset <= self.start {
            return Some(self.clone());
        }
        let first = self.offsets.values().partition_point(|have| *have < offset);
        Some(self.rows(first, self.len() - first, offset, self.end))
    }

    /// The first `records` records, with a range that ends behind the last of them; all of it when it holds no more.
    pub fn first(&self, records: usize) -> Self {
        if records >= self.len() {
            return self.clone();
        }
        let end = if records == 0 { self.start } else { self.offsets.value(records - 1) + 1 };
        self.rows(0, records, self.start, end)
    }

    /// The part of `fence..` up to the end of the last gap that isn't known to be empty, if there is one: it must be read
    /// from the log before this batch may be written. `fence` must not be above the batch's end.
    pub fn gap(&self, fence: i64) -> Option<Range<i64>> {
        let before = (fence < self.start).then_some(self.start);
        let inside = match self.delivery {
            Delivery::Read => None,
            Delivery::Pushed => self.last_hole_end(fence.max(self.start)),
        };
        inside.or(before).map(|end| fence..end)
    }

    /// One past the last offset missing in `from..` of the records held, found from the back.
    fn last_hole_end(&self, from: i64) -> Option<i64> {
        let offsets = self.offsets.values();
        let mut expected_above = self.end;
        for offset in offsets.iter().rev() {
            if offset + 1 != expected_above {
                return Some(expected_above);
            }
            expected_above = *offset;
        }
        (from < expected_above).then_some(expected_above)
    }

    fn rows(&self, first: usize, len: usize, start: i64, end: i64) -> Self {
        Self {
            partition: self.partition.clone(),
            delivery: self.delivery,
            start,
            end,
            offsets: self.offsets.slice(first, len),
            timestamps_ms: self.timestamps_ms.slice(first, len),
            keys: self.keys.slice(first, len),
            values: self.values.slice(first, len),
            headers: self.headers.as_ref().map(|headers| headers.slice(first, len)),
            stamped_by_log: self.stamped_by_log,
        }
    }
}

/// Collects records into a [`Batch`]. Offsets must ascend; [`BatchBuilder::push`] ignores one that does not, because a
/// log hands records out in order and what is below has been seen.
pub struct BatchBuilder {
    partition: TopicPartition,
    last_offset: Option<i64>,
    first_offset: Option<i64>,
    bytes: usize,
    offsets: Int64Builder,
    timestamps_ms: Int64Builder,
    keys: BinaryBuilder,
    values: BinaryBuilder,
    headers: Option<MapBuilder<StringBuilder, BinaryBuilder>>,
    stamped_by_log: bool,
}

impl BatchBuilder {
    /// An empty one.
    pub fn new(partition: TopicPartition) -> Self {
        Self {
            partition,
            last_offset: None,
            first_offset: None,
            bytes: 0,
            offsets: Int64Builder::new(),
            timestamps_ms: Int64Builder::new(),
            keys: BinaryBuilder::new(),
            values: BinaryBuilder::new(),
            headers: None,
            stamped_by_log: false,
        }
    }

    /// Says of the next batch that the log has stamped its records: see [`Batch::is_stamped_by_log`].
    pub fn stamp_by_log(&mut self) {
        self.stamped_by_log = true;
    }

    /// Adds a record. `timestamp_ms` in milliseconds since 1970.
    pub fn push<'a>(
        &mut self,
        offset: i64,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = Header<'a>>,
    ) {
        if self.last_offset.is_some_and(|last| offset <= last) {
            return;
        }
        self.first_offset.get_or_insert(offset);
        self.last_offset = Some(offset);
        self.offsets.append_value(offset);
        self.timestamps_ms.append_value(timestamp_ms);
        self.keys.append_option(key);
        self.values.append_option(value);
        self.bytes += key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        self.push_headers(headers);
    }

    fn push_headers<'a>(&mut self, headers: impl IntoIterator<Item = Header<'a>>) {
        let mut headers = headers.into_iter().peekable();
        if self.headers.is_none() {
            if headers.peek().is_none() {
                return;
            }
            // The first record with a header: the ones before it have none.
            let mut builder = MapBuilder::new(None, StringBuilder::new(), BinaryBuilder::new());
            for _ in 0..self.offsets.len() - 1 {
                // Keys and values of an empty map have the same length, 0: this can't fail.
                let _ = builder.append(true);
            }
            self.headers = Some(builder);
        }
        if let Some(builder) = &mut self.headers {
            for (name, bytes) in headers {
                self.bytes += name.len() + bytes.len();
                builder.keys().append_value(name);
                builder.values().append_value(bytes);
            }
            // One value is appended per key right above: this can't fail.
            let _ = builder.append(true);
        }
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Is there no record yet?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of keys, values and headers so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A batch that was read from the log in order over `start..end`: the caller vouches that there are no other records
    /// in that range. Leaves the builder empty.
    pub fn finish_read(&mut self, start: i64, end: i64) -> Batch {
        self.finish(Delivery::Read, start, end)
    }

    /// A batch that was delivered from outside: it says nothing of the offsets that it doesn't hold. `None` when it is empty.
    /// Leaves the builder empty.
    pub fn finish_pushed(&mut self) -> Option<Batch> {
        let (first, last) = (self.first_offset?, self.last_offset?);
        Some(self.finish(Delivery::Pushed, first, last + 1))
    }

    fn finish(&mut self, delivery: Delivery, start: i64, end: i64) -> Batch {
        let batch = Batch {
            partition: self.partition.clone(),
            delivery,
            start: self.first_offset.map_or(start, |first| start.min(first)),
            end: self.last_offset.map_or(end, |last| end.max(last + 1)),
            offsets: self.offsets.finish(),
            timestamps_ms: self.timestamps_ms.finish(),
            keys: self.keys.finish(),
            values: self.values.finish(),
            headers: self.headers.take().map(|mut headers| headers.finish()),
            stamped_by_log: std::mem::take(&mut self.stamped_by_log),
        };
        self.bytes = 0;
        self.first_offset = None;
        self.last_offset = None;
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(delivery: Delivery, start: i64, end: i64, offsets: &[i64]) -> Batch {
        let mut builder = BatchBuilder::new(TopicPartition::new("t", 1, 0));
        for offset in offsets {
            builder.push(*offset, 0, None, Some(b"v"), []);
        }
        builder.finish(delivery, start, end)
    }

    #[test]
    fn a_batch_is_trimmed_at_the_fence() {
        let whole = batch(Delivery::Read, 10, 20, &[11, 12, 18]);
        assert_eq!(whole.after(10), Some(whole.clone()));
        let rest = whole.after(13).unwrap();
        assert_eq!((rest.range(), rest.offsets().values().to_vec()), (13..20, vec![18]));
        assert_eq!(whole.after(19).unwrap().len(), 0);
        assert_eq!(whole.after(20), None);
    }

    #[test]
    fn the_first_records_end_behind_the_last_of_them() {
        let whole = batch(Delivery::Read, 10, 20, &[11, 12, 18]);
        assert_eq!(whole.first(2).range(), 10..13);
        assert_eq!(whole.first(3).range(), 10..20);
    }

    #[test]
    fn a_gap_is_what_nobody_vouches_for() {
        let read = batch(Delivery::Read, 10, 20, &[11, 18]);
        assert_eq!(read.gap(10), None);
        assert_eq!(read.gap(7), Some(7..10));
        let pushed = |offsets: &[i64]| batch(Delivery::Pushed, offsets[0], offsets[offsets.len() - 1] + 1, offsets);
        assert_eq!(pushed(&[10, 11, 12]).gap(10), None);
        assert_eq!(pushed(&[10, 11, 12]).gap(8), Some(8..10));
        assert_eq!(pushed(&[10, 11, 14, 15]).gap(10), Some(10..14));
        assert_eq!(pushed(&[10, 14, 18, 19]).gap(5), Some(5..18));
        // Trimmed into a hole: the hole is still not known to be empty.
        assert_eq!(pushed(&[10, 14]).after(12).unwrap().gap(12), Some(12..14));
        assert_eq!(pushed(&[10, 14]).after(14).unwrap().gap(14), None);
    }

    #[test]
    fn headers_appear_with_the_first_record_that_has_one() {
        let mut builder = BatchBuilder::new(TopicPartition::new("t", 1, 0));
        builder.push(0, 0, None, None, []);
        builder.push(1, 0, None, None, [("a", &b"1"[..]), ("a", b"2")]);
        builder.push(2, 0, None, None, []);
        let headers = builder.finish_read(0, 3).headers().unwrap().clone();
        assert_eq!((0..3).map(|row| headers.value(row).len()).collect::<Vec<_>>(), [0, 2, 0]);
    }
}
