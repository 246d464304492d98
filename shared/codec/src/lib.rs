//! Converts bytes to Arrow and back. It has no I/O and no state.
//!
//! ```
//! use std::sync::Arc;
//!
//! use arrow::{array::AsArray, datatypes::{DataType, Decimal128Type, Field, Schema}};
//! use millstream_codec::{JsonDecoder, JsonOptions, Tombstones};
//! use millstream_core::{BatchBuilder, Decode, TopicPartition};
//!
//! # fn main() -> millstream_core::Result<()> {
//! let schema = Schema::new(vec![
//!     Field::new("branch", DataType::Utf8, false),
//!     Field::new("amount", DataType::Decimal128(18, 2), false),
//! ]);
//! let decoder = JsonDecoder::new(JsonOptions {
//!     schema: Arc::new(schema),
//!     columns: Some(vec!["amount".into(), "_offset".into()]),
//!     event_time: None,
//!     tombstones: Tombstones::DeadLetter,
//! })?;
//!
//! let mut batch = BatchBuilder::new(TopicPartition::new("transaction", 1, 0));
//! batch.push(41, 1_700_000_000_000, None, Some(br#"{"branch":"Oslo","amount":12.5}"#), []);
//! batch.push(42, 1_700_000_000_001, None, Some(br#"{"branch":"Oslo","amount":0.125}"#), []);
//! let decoded = decoder.decode(&batch.finish_read(41, 43))?;
//!
//! assert_eq!(decoded.rows.column(0).as_primitive::<Decimal128Type>().values(), &[1250]);
//! assert_eq!(decoded.bad[0].index, 1);
//! assert_eq!(decoded.bad[0].reason, "field `amount`: more than 2 decimals");
//! # Ok(())
//! # }
//! ```
//!
//! # Which records are valid
//! A value is valid if it is ONE JSON object (RFC 8259, UTF-8, nothing after it) whose fields fit the topic's schema:
//!
//! | type | JSON |
//! | --- | --- |
//! | boolean | `true`, `false` |
//! | integers | a number without fraction or exponent, in range |
//! | float, double | a number, rounded to the nearest; one too large is refused; `-0` is `0` |
//! | decimal(p,s) | a number, or a string that holds one; exponents allowed; exact: a value that doesn't fit is refused, never rounded |
//! | timestamp | an RFC 3339 string, years 0001 to 9999; without a zone it is UTC; digits beyond microseconds are cut off |
//! | timestamp with [`EPOCH`] | a number of seconds, milliseconds or microseconds since 1970, in the same years; digits beyond microseconds are cut off |
//! | date | `"YYYY-MM-DD"`, years 0001 to 9999 |
//! | string | a string |
//! | binary | a string of base64 (RFC 4648, section 4, padded) |
//! | struct, list | an object, a list |
//!
//! A missing field is null; null in a `not null` field is refused. Unknown fields are skipped, but they must be JSON.
//! If a name comes twice in an object, the last one counts, but both must be valid. Fields that are not among the
//! wanted columns are treated like unknown ones: their types are not checked. The limits are [`MAX_VALUE_BYTES`],
//! [`MAX_DEPTH`], [`MAX_LIST_ITEMS`] and, for a whole batch, [`MAX_BATCH_LIST_ITEMS`].
//!
//! A reason names fields of the schema, expected types and byte positions. It never contains data of the record.
//!
//! # Why not arrow-json
//! Its reader is lenient where this crate must not be: it cuts 1.5 to the integer 1, takes `"5"` for a number, needs no
//! commas, and lets a record end in the next one's value. And an error in a batch doesn't tell which record caused it.

mod cells;
mod column;
mod decoder;
mod encoder;
mod keys;
mod list;
mod meta;
mod number;
mod problem;
mod scan;
#[cfg(test)]
mod tests;
mod time;

pub use cells::{cell_json, decode_cells};
pub use decoder::{JsonDecoder, JsonOptions};
pub use encoder::JsonEncoder;
pub use keys::Keys;
pub use list::{check_json, list_items};
pub use meta::full_schema;
pub use millstream_core::Tombstones;
use millstream_core::{EPOCH_METADATA, Error, Result};
pub use time::{is_date, is_timestamp};

/// The longest value that is decoded, in bytes; Kafka's own default limit is 1 MiB (`message.max.bytes`).
pub const MAX_VALUE_BYTES: usize = 8 << 20;

/// How deeply objects and lists may nest; the record itself is level 1.
pub const MAX_DEPTH: usize = 128;

/// How many items the lists of one record may have in total: `{},` takes three bytes of JSON, but in memory a row in
/// every column of the list's struct.
pub const MAX_LIST_ITEMS: usize = 1_000_000;

/// How many items the lists of one batch may have in total; a batch with more is `TooLarge`, and is decoded in parts.
pub const MAX_BATCH_LIST_ITEMS: usize = 2 * MAX_LIST_ITEMS;

fn epoch_unit(field: &arrow::datatypes::Field) -> Option<&str> {
    field.metadata().get(EPOCH_METADATA).map(String::as_str)
}

/// How many decimals the unit of an epoch field has down to microseconds; `None` for a field that is text.
fn epoch_scale(field: &arrow::datatypes::Field) -> Result<Option<u8>> {
    match epoch_unit(field) {
        None => Ok(None),
        Some("s") => Ok(Some(6)),
        Some("ms") => Ok(Some(3)),
        Some("us") => Ok(Some(0)),
        Some(other) => {
            let message = format!("{EPOCH_METADATA} is `{other}`; it must be one of `s`, `ms` and `us`");
            Err(Error::stop(message))
        }
    }
}
