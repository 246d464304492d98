//! Arrow columns as PostgreSQL array parameters in the binary format.

use std::{error::Error as StdError, fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, StringBuilder},
    compute::{CastOptions, cast_with_options, min},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
        TimestampMicrosecondType,
    },
    error::ArrowError,
};
use arrow_json::writer::{EncoderOptions, make_encoder};
use bytes::BytesMut;
use millstream_core::{Column, Error, Result};
use tokio_postgres::types::{self, IsNull, ToSql, Type, to_sql_checked};

use crate::{numeric, types::Kind};

/// PostgreSQL counts days and microseconds from 2000-01-01.
pub(crate) const EPOCH_DAYS: i32 = 10_957;
pub(crate) const EPOCH_US: i64 = EPOCH_DAYS as i64 * 86_400_000_000;
/// 4714-11-24 BC, the first day that PostgreSQL knows, in days since 1970.
pub(crate) const FIRST_DAY: i32 = -2_440_588;

/// A column's values as one array parameter: `unnest` makes rows of several.
pub(crate) struct Parameter {
    kind: Kind,
    /// Of the kind's carrier type.
    values: ArrayRef,
}

impl Parameter {
    /// The parameter for a column of rows.
    ///
    /// # Errors
    /// `Poison` when a value has no place in PostgreSQL; `Stop` for a type that no column can have.
    pub(crate) fn new(column: &Column, values: &ArrayRef) -> Result<Self> {
        let kind = Kind::of(&column.data_type).ok_or_else(|| {
            Error::stop(format!("column {} is {}, which PostgreSQL can't hold", column.name, column.data_type))
        })?;
        // An Arrow message may quote the value: it is left out.
        let refused = |_: ArrowError| Error::poison(format!("column {}: a value is out of range", column.name));
        let values = match kind {
            Kind::Json => json(values).map_err(refused)?,
            // A time is the same instant in every zone; the cast between units must not shift it.
            Kind::Timestamp => cast(&without_zone(values), &kind.carrier()).map_err(refused)?,
            _ => cast(values, &kind.carrier()).map_err(refused)?,
        };
        let too_early = match kind {
            Kind::Timestamp => min(values.as_primitive::<TimestampMicrosecondType>())
                .is_some_and(|us| us < i64::from(FIRST_DAY) * 86_400_000_000),
            Kind::Date => min(values.as_primitive::<Date32Type>()).is_some_and(|day| day < FIRST_DAY),
            _ => false,
        };
        if too_early {
            return Err(Error::poison(format!("column {}: a time lies before 4714 BC", column.name)));
        }
        Ok(Self { kind, values })
    }

    pub(crate) fn sql_type(&self) -> Type {
        self.kind.array()
    }

    fn write_items(&self, out: &mut BytesMut) {
        let values = &self.values;
        match self.kind {
            Kind::Text => {
                let values = values.as_string::<i32>();
                each(values, out, |row, out| sized(values.value(row).as_bytes(), out));
            }
            Kind::Json => {
                let values = values.as_string::<i32>();
                each(values, out, |row, out| {
                    let text = values.value(row).as_bytes();
                    out.extend_from_slice(&(text.len() as i32 + 1).to_be_bytes());
                    // The version of jsonb's binary format.
                    out.extend_from_slice(&[1]);
                    out.extend_from_slice(text);
                });
            }
            Kind::Bytes => {
                let values = values.as_binary::<i32>();
                each(values, out, |row, out| sized(values.value(row), out));
            }
            Kind::Boolean => {
                let values = values.as_boolean();
                each(values, out, |row, out| sized(&[u8::from(values.value(row))], out));
            }
            Kind::SmallInt => {
                let values = values.as_primitive::<Int16Type>();
                each(values, out, |row, out| sized(&values.value(row).to_be_bytes(), out));
            }
            Kind::Integer => {
                let values = values.as_primitive::<Int32Type>();
                each(values, out, |row, out| sized(&values.value(row).to_be_bytes(), out));
            }
            Kind::BigInt => {
                let values = values.as_primitive::<Int64Type>();
                each(values, out, |row, out| sized(&values.value(row).to_be_bytes(), out));
            }
            Kind::Real => {
                let values = values.as_primitive::<Float32Type>();
                each(values, out, |row, out| sized(&values.value(row).to_be_bytes(), out));
            }
            Kind::Double => {
                let values = values.as_primitive::<Float64Type>();
                each(values, out, |row, out| sized(&values.value(row).to_be_bytes(), out));
            }
            Kind::Numeric { scale, .. } => {
                let values = values.as_primitive::<Decimal128Type>();
                each(values, out, |row, out| numeric::write(values.value(row), u32::from(scale), out));
            }
            Kind::Timestamp => {
                let values = values.as_primitive::<TimestampMicrosecondType>();
                each(values, out, |row, out| sized(&(values.value(row) - EPOCH_US).to_be_bytes(), out));
            }
            Kind::Date => {
                let values = values.as_primitive::<Date32Type>();
                each(values, out, |row, out| sized(&(values.value(row) - EPOCH_DAYS).to_be_bytes(), out));
            }
        }
    }
}

fn each(values: &dyn Array, out: &mut BytesMut, mut write: impl FnMut(usize, &mut BytesMut)) {
    for row in 0..values.len() {
        if values.is_null(row) {
            out.extend_from_slice(&(-1_i32).to_be_bytes());
        } else {
            write(row, out);
        }
    }
}

fn sized(bytes: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A cast that refuses what it can't keep.
pub(crate) fn cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(values, to, &CastOptions { safe: false, ..Default::default() })
}

/// The same instants, with no zone in the type.
fn without_zone(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Timestamp(unit, Some(_)) => retyped(values, DataType::Timestamp(*unit, None)),
        _ => Arc::clone(values),
    }
}

/// The same bytes under another name of their type: a time's zone is only a label.
pub(crate) fn retyped(values: &ArrayRef, data_type: DataType) -> ArrayRef {
    let data = values.to_data().into_builder().data_type(data_type);
    #[expect(clippy::expect_used, reason = "both types are 64-bit times of one unit: the layout is the same")]
    let data = data.build().expect("a time has the layout of a time");
    arrow::array::make_array(data)
}

fn json(values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let field = Arc::new(Field::new("value", values.data_type().clone(), true));
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(&field, values, &options)?;
    let mut texts = StringBuilder::with_capacity(values.len(), 64 * values.len());
    let mut text = Vec::new();
    for row in 0..values.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        texts.append_value(std::str::from_utf8(&text).map_err(|error| ArrowError::JsonError(error.to_string()))?);
    }
    Ok(Arc::new(texts.finish()))
}

/// The array's binary format: dimensions, flags, element type, length and lower bound, then the elements
/// (src/backend/utils/adt/arrayfuncs.c, `array_recv`).
impl ToSql for Parameter {
    fn to_sql(&self, sql_type: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let types::Kind::Array(element) = sql_type.kind() else { return Err("not an array".into()) };
        let dimensions = i32::from(!self.values.is_empty());
        out.extend_from_slice(&dimensions.to_be_bytes());
        out.extend_from_slice(&i32::from(self.values.null_count() > 0).to_be_bytes());
        out.extend_from_slice(&element.oid().to_be_bytes());
        if dimensions == 1 {
            out.extend_from_slice(&i32::try_from(self.values.len())?.to_be_bytes());
            out.extend_from_slice(&1_i32.to_be_bytes());
            self.write_items(out);
        }
        Ok(IsNull::No)
    }

    fn accepts(sql_type: &Type) -> bool {
        matches!(sql_type.kind(), types::Kind::Array(_))
    }

    to_sql_checked!();
}

/// Without the values: libraries print parameters in their debug log.
impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values of {}", self.values.len(), self.kind)
    }
}
