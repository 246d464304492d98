use arrow::datatypes::{DataType, TimeUnit};

/// The key of a timestamp field's metadata that says in which unit since 1970 its values arrive: `s`, `ms` or `us`. A
/// timestamp field without it arrives as RFC 3339 text.
pub const EPOCH_METADATA: &str = "millstream.epoch";

/// The type of all timestamps: microseconds since 1970, in UTC.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}
