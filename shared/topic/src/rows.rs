//! From the rows of a batch to the records of a topic.

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, Int64Array, RecordBatch, TimestampMicrosecondArray},
    compute::cast,
    datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType},
};
use millstream_core::{Error, Lineage, NewRecord, Result, SOURCE_HEADER, TopicPartition, meta, partition_of};

use crate::{
    shape::{Key, Shape},
    sink::CARRIED,
};

/// The records of `rows`, in the order of the records that they were made of. Rows of one record stand in the order of their
/// values, so that every writer numbers them in the same way.
pub(crate) fn records_of(
    shape: &Shape,
    partitions: i32,
    source: &TopicPartition,
    rows: &[RecordBatch],
) -> Result<Vec<NewRecord>> {
    let mut records = Vec::new();
    for batch in rows {
        let mut part = Part::of(shape, batch)?;
        for (row, value) in shape.encode.encode(&part.own)?.into_iter().enumerate() {
            let key = part.keys.as_mut().and_then(|keys| keys[row].take());
            let by_key =
                || key.as_ref().map_or(source.partition % partitions.max(1), |key| partition_of(key, partitions));
            let partition = part.partition(row, partitions)?.unwrap_or_else(by_key);
            let record = NewRecord {
                key,
                value: Some(value),
                headers: part.headers(row),
                timestamp_ms: part.timestamp_us(row).map(|time_us| time_us.div_euclid(1_000)),
                partition: Some(partition),
            };
            records.push((part.offsets[row], record));
        }
    }
    records.sort_by(|(offset, record), (other, another)| (offset, &record.value).cmp(&(other, &another.value)));
    let mut last = (i64::MIN, 0);
    for (offset, record) in &mut records {
        last = if *offset == last.0 { (*offset, last.1 + 1) } else { (*offset, 0) };
        let lineage = Lineage { source: source.at(*offset), index: last.1 };
        record.headers.push((SOURCE_HEADER.to_owned(), lineage.to_string().into_bytes()));
    }
    Ok(records.into_iter().map(|(_, record)| record).collect())
}

/// The columns of some rows.
struct Part<'a> {
    own: RecordBatch,
    keys: Option<Vec<Option<Vec<u8>>>>,
    offsets: &'a [i64],
    timestamps_us: Option<&'a [i64]>,
    /// The values of the columns that are timestamps and partitions.
    given_us: Option<TimestampMicrosecondArray>,
    numbers: Option<Int64Array>,
    headers: Option<&'a ArrayRef>,
}

impl<'a> Part<'a> {
    fn of(shape: &Shape, rows: &'a RecordBatch) -> Result<Self> {
        let offsets = rows.column_by_name(meta::OFFSET);
        let offsets =
            offsets.ok_or_else(|| Error::stop("internal: rows for a topic don't say where they come from"))?;
        let times = rows.column_by_name(meta::TIMESTAMP);
        let schema = rows.schema_ref().clone();
        let is_own = |at: &usize| !CARRIED.contains(&schema.field(*at).name().as_str());
        let own: Vec<usize> = (0..rows.num_columns()).filter(is_own).collect();
        let key_of = |key: &Key| {
            let column = rows.column_by_name(&key.column);
            (key.texts)(
                column.ok_or_else(|| Error::stop(format!("internal: rows without their key `{}`", key.column)))?,
            )
        };
        let keys = shape.key.as_ref().map(key_of).transpose()?;
        let given = |name: &Option<String>, of: DataType| {
            let Some(name) = name else { return Ok(None) };
            let column = rows.column_by_name(name);
            let column = column.ok_or_else(|| Error::stop(format!("internal: rows without their `{name}`")))?;
            let broken = |error| Error::stop(format!("internal: `{name}` can't be read")).caused_by(error);
            cast(column, &of).map_err(broken).map(Some)
        };
        let given_us = given(&shape.timestamp, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?;
        let numbers = given(&shape.partition, DataType::Int64)?;
        Ok(Self {
            given_us: given_us.map(|times| times.as_primitive().clone()),
            numbers: numbers.map(|numbers| numbers.as_primitive().clone()),
            own: rows.project(&own).map_err(|error| Error::stop("internal: rows without columns").caused_by(error))?,
            keys,
            offsets: offsets.as_primitive::<Int64Type>().values(),
            timestamps_us: times.map(|times| times.as_primitive::<TimestampMicrosecondType>().values().as_ref()),
            headers: rows.column_by_name(meta::HEADERS),
        })
    }

    fn timestamp_us(&self, row: usize) -> Option<i64> {
        let given = self.given_us.as_ref().filter(|times| times.is_valid(row)).map(|times| times.value(row));
        given.or_else(|| self.timestamps_us.map(|times| times[row]))
    }

    /// The partition that a row names.
    fn partition(&self, row: usize, partitions: i32) -> Result<Option<i32>> {
        let Some(number) = self.numbers.as_ref().filter(|numbers| numbers.is_valid(row)) else { return Ok(None) };
        let number = i32::try_from(number.value(row)).ok().filter(|number| (0..partitions).contains(number));
        let none = || {
            let last = partitions - 1;
            Error::poison(format!("its partition is none of those that the function writes to, 0 to {last}"))
        };
        number.map(Some).ok_or_else(none)
    }

    /// The headers of the record that a row was made of, without its own lineage.
    fn headers(&self, row: usize) -> Vec<(String, Vec<u8>)> {
        let Some(headers) = self.headers.filter(|headers| headers.is_valid(row)) else { return Vec::new() };
        let entries = headers.as_map().value(row);
        let (names, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_binary::<i32>());
        let pairs = names.iter().zip(values).filter(|(name, _)| *name != Some(SOURCE_HEADER));
        pairs.map(|(name, value)| (name.unwrap_or_default().to_owned(), value.unwrap_or_default().to_vec())).collect()
    }
}
