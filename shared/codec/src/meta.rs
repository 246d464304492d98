use std::sync::Arc;

use arrow::{
    array::{
        Array as _, ArrayRef, BinaryBuilder, Int32Array, Int64Array, StringArray, StringBuilder,
        TimestampMicrosecondArray, UInt32Array, new_null_array,
    },
    compute::take,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use millstream_core::{Batch, META_COLUMNS, TopicPartition, headers_type, meta, timestamp_type};

/// The topic's fields, followed by all [`META_COLUMNS`]: the columns that a function's SQL may name.
///
/// `_topic` text, `_partition` int, `_offset` bigint, `_timestamp` timestamp in UTC with microseconds, `_key` text or
/// null, `_headers` a map or null, `_order` bytes.
pub fn full_schema(schema: &Schema) -> SchemaRef {
    let meta = META_COLUMNS.iter().map(|name| Arc::new(field(name)));
    let fields = schema.fields().iter().cloned().chain(meta).collect::<Vec<_>>();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The field of one of [`META_COLUMNS`].
pub(crate) fn field(name: &str) -> Field {
    let data_type = match name {
        meta::PARTITION => DataType::Int32,
        meta::OFFSET => DataType::Int64,
        meta::TIMESTAMP => timestamp_type(),
        meta::ORDER => DataType::Binary,
        meta::HEADERS => headers_type(),
        _ => DataType::Utf8,
    };
    Field::new(name, data_type, name == meta::KEY || name == meta::HEADERS)
}

/// The data of the meta columns, for the good records of a batch.
pub(crate) struct Rows<'a> {
    pub(crate) batch: &'a Batch,
    /// The index in the batch of each row's record.
    pub(crate) index: &'a [usize],
    /// Kafka's timestamp of each row, in microseconds.
    pub(crate) kafka_us: &'a [i64],
    /// The event time of each row, in microseconds.
    pub(crate) event_us: &'a [i64],
}

impl Rows<'_> {
    /// One of [`META_COLUMNS`].
    pub(crate) fn column(&self, name: &str) -> ArrayRef {
        let partition = self.batch.partition();
        match name {
            meta::TOPIC => Arc::new(StringArray::new_repeated(&partition.topic, self.index.len())),
            meta::PARTITION => Arc::new(Int32Array::from_value(partition.partition, self.index.len())),
            meta::OFFSET => Arc::new(Int64Array::from_iter_values(self.offsets())),
            meta::TIMESTAMP => Arc::new(
                TimestampMicrosecondArray::from_iter_values(self.kafka_us.iter().copied()).with_timezone("UTC"),
            ),
            meta::ORDER => self.order(partition),
            meta::HEADERS => self.headers(),
            _ => self.keys(),
        }
    }

    fn offsets(&self) -> impl Iterator<Item = i64> {
        self.index.iter().map(|index| self.batch.offsets().value(*index))
    }

    /// Keys as text: null if a record has no key or the key isn't UTF-8.
    fn keys(&self) -> ArrayRef {
        let keys = self.batch.keys();
        let mut texts = StringBuilder::with_capacity(self.index.len(), 0);
        for index in self.index {
            let key = keys.is_valid(*index).then(|| keys.value(*index));
            texts.append_option(key.and_then(|key| std::str::from_utf8(key).ok()));
        }
        Arc::new(texts.finish())
    }

    fn headers(&self) -> ArrayRef {
        let wanted = UInt32Array::from_iter_values(self.index.iter().map(|index| *index as u32));
        // The indices are those of the batch: this can't fail.
        let of_rows = self.batch.headers().and_then(|headers| take(headers, &wanted, None).ok());
        of_rows.unwrap_or_else(|| new_null_array(&headers_type(), self.index.len()))
    }

    fn order(&self, partition: &TopicPartition) -> ArrayRef {
        // Topic, generation and partition are the same for the whole batch: only the end of the key changes from row to
        // row.
        let mut key = vec![0; 8];
        key.extend_from_slice(partition.topic.as_bytes());
        key.push(0);
        key.extend_from_slice(&partition.generation.to_be_bytes());
        key.extend_from_slice(&partition.partition.cast_unsigned().to_be_bytes());
        let offset_at = key.len();
        key.resize(offset_at + 8, 0);
        let mut keys = BinaryBuilder::with_capacity(self.index.len(), self.index.len() * key.len());
        for (event_us, offset) in self.event_us.iter().zip(self.offsets()) {
            key[..8].copy_from_slice(&ascending(*event_us));
            key[offset_at..].copy_from_slice(&ascending(offset));
            keys.append_value(&key);
        }
        Arc::new(keys.finish())
    }
}

/// Bytes that sort like the number: big-endian, with the sign bit flipped.
fn ascending(value: i64) -> [u8; 8] {
    (value ^ i64::MIN).to_be_bytes()
}
