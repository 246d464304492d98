//! Arrow columns to CQL values and back, exactly.
//!
//! | Arrow | CQL |
//! | --- | --- |
//! | booleans | boolean |
//! | 8, 16, 32 and 64 bits, signed | tinyint, smallint, int, bigint |
//! | 8, 16, 32 and 64 bits, unsigned | smallint, int, bigint, varint |
//! | floats | float, double: every value, NaN and infinities too |
//! | decimals | decimal, with the column's scale |
//! | strings, binaries | text, blob |
//! | dates, times | date, time |
//! | timestamps | bigint: the microseconds since 1970 (UTC), since CQL's timestamp cuts them to milliseconds. The column `_timestamp`, Kafka's own milliseconds, is a timestamp |
//! | lists, structs, maps | text: JSON as arrow-json writes it, NaN in them as null |

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
        Int64Array, RecordBatch, StringArray, StringBuilder, Time64NanosecondArray, UInt64Array, make_array,
        new_empty_array,
    },
    compute::{CastOptions, cast_with_options},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
        Int64Type, Schema, Time64NanosecondType, TimeUnit, UInt64Type,
    },
    error::ArrowError,
};
use arrow_json::{
    ReaderBuilder,
    writer::{EncoderOptions, make_encoder},
};
use millstream_core::{Column, Error, Result, meta, type_name};
use scylla::value::{CqlDate, CqlDecimal, CqlTime, CqlTimestamp, CqlValue, CqlVarint};

/// The value of a cell; none is null.
pub(crate) type Cell = Option<CqlValue>;

/// How the values of a column are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    VarInt,
    Float,
    Double,
    Decimal(u8, i8),
    Text,
    Blob,
    Date,
    Time,
    /// A timestamp as a number of its own unit.
    Instant,
    /// Microseconds that are whole milliseconds.
    Milliseconds,
    Json,
}

impl Kind {
    /// How a column is stored; `None` if its type has no place in CQL.
    pub(crate) fn of_column(column: &Column) -> Option<Self> {
        let is_kafkas = column.name == meta::TIMESTAMP
            && matches!(&column.data_type, DataType::Timestamp(TimeUnit::Microsecond, _));
        if is_kafkas { Some(Self::Milliseconds) } else { Self::of(&column.data_type) }
    }

    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Boolean,
            DataType::Int8 => Self::TinyInt,
            DataType::Int16 | DataType::UInt8 => Self::SmallInt,
            DataType::Int32 | DataType::UInt16 => Self::Int,
            DataType::Int64 | DataType::UInt32 => Self::BigInt,
            DataType::UInt64 => Self::VarInt,
            DataType::Float32 => Self::Float,
            DataType::Float64 => Self::Double,
            DataType::Decimal128(precision, scale) if *scale >= 0 => Self::Decimal(*precision, *scale),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Blob
            }
            DataType::Date32 => Self::Date,
            DataType::Time32(_) | DataType::Time64(_) => Self::Time,
            DataType::Timestamp(..) => Self::Instant,
            DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => Self::json([item])?,
            DataType::Struct(fields) => Self::json(fields)?,
            _ => return None,
        })
    }

    fn json<'a>(fields: impl IntoIterator<Item = &'a Arc<Field>>) -> Option<Self> {
        fields.into_iter().all(|field| Self::of(field.data_type()).is_some()).then_some(Self::Json)
    }

    /// CQL's name of the type.
    pub(crate) fn cql(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::TinyInt => "tinyint",
            Self::SmallInt => "smallint",
            Self::Int => "int",
            Self::BigInt | Self::Instant => "bigint",
            Self::VarInt => "varint",
            Self::Float => "float",
            Self::Double => "double",
            Self::Decimal(..) => "decimal",
            Self::Text | Self::Json => "text",
            Self::Blob => "blob",
            Self::Date => "date",
            Self::Time => "time",
            Self::Milliseconds => "timestamp",
        }
    }

    /// Can it be the key of a row? Floats that are equal may have other bytes, and JSON other spellings.
    pub(crate) fn is_key(self) -> bool {
        !matches!(self, Self::Float | Self::Double | Self::Json | Self::VarInt | Self::Time)
    }

    /// A column as CQL values, one per row.
    ///
    /// # Errors
    /// `Poison` for a value that can't be stored.
    pub(crate) fn encode(self, name: &str, values: &ArrayRef) -> Result<Vec<Cell>> {
        // Arrow's message may quote the value: it is left out.
        let refused = |_: ArrowError| Error::poison(format!("column {name}: a value is out of range"));
        let to = |target: DataType| strict_cast(values, &target).map_err(refused);
        Ok(match self {
            Self::Boolean => each(values.as_boolean(), CqlValue::Boolean),
            Self::TinyInt => each(to(DataType::Int8)?.as_primitive::<Int8Type>(), CqlValue::TinyInt),
            Self::SmallInt => each(to(DataType::Int16)?.as_primitive::<Int16Type>(), CqlValue::SmallInt),
            Self::Int => each(to(DataType::Int32)?.as_primitive::<Int32Type>(), CqlValue::Int),
            Self::BigInt => each(to(DataType::Int64)?.as_primitive::<Int64Type>(), CqlValue::BigInt),
            Self::VarInt => each(values.as_primitive::<UInt64Type>(), |value| {
                CqlValue::Varint(CqlVarint::from_signed_bytes_be(shortest(value.into())))
            }),
            Self::Float => each(values.as_primitive::<Float32Type>(), CqlValue::Float),
            Self::Double => each(values.as_primitive::<Float64Type>(), CqlValue::Double),
            Self::Decimal(_, scale) => each(values.as_primitive::<Decimal128Type>(), |value| {
                CqlValue::Decimal(CqlDecimal::from_signed_be_bytes_and_exponent(shortest(value), scale.into()))
            }),
            Self::Text => each(to(DataType::Utf8)?.as_string::<i32>(), |text: &str| CqlValue::Text(text.to_owned())),
            Self::Blob => each(to(DataType::Binary)?.as_binary::<i32>(), |bytes: &[u8]| CqlValue::Blob(bytes.to_vec())),
            Self::Date => each(values.as_primitive::<Date32Type>(), |days: i32| {
                // The day 1970-01-01 is in the middle of the range.
                CqlValue::Date(CqlDate(days.cast_unsigned() ^ (1 << 31)))
            }),
            Self::Time => {
                let nanoseconds = to(DataType::Time64(TimeUnit::Nanosecond))?;
                each(nanoseconds.as_primitive::<Time64NanosecondType>(), |at| CqlValue::Time(CqlTime(at)))
            }
            Self::Instant => each(number(values)?.as_primitive::<Int64Type>(), CqlValue::BigInt),
            Self::Milliseconds => {
                let number = number(values)?;
                let number = number.as_primitive::<Int64Type>();
                if number.iter().flatten().any(|us| us % 1_000 != 0) {
                    return Err(Error::poison(format!("column {name}: a time is no whole number of milliseconds")));
                }
                each(number, |us: i64| CqlValue::Timestamp(CqlTimestamp(us / 1_000)))
            }
            Self::Json => {
                each(to_json(values).map_err(refused)?.as_string::<i32>(), |text: &str| CqlValue::Text(text.to_owned()))
            }
        })
    }

    /// What [`Kind::encode`] made of a column of `data_type`, as that column.
    ///
    /// # Errors
    /// `Stop` when a value is not of the type: another program has written to the table.
    pub(crate) fn decode(self, name: &str, cells: Vec<Cell>, data_type: &DataType) -> Result<ArrayRef> {
        if cells.is_empty() {
            return Ok(new_empty_array(data_type));
        }
        let foreign = || {
            Error::stop(format!(
                "column {name}: a value is no {}: another program has written to this table",
                type_name(data_type)
            ))
        };
        let column: ArrayRef = match self {
            Self::Boolean => Arc::new(BooleanArray::from(all(cells, |cell| cell.as_boolean()).ok_or_else(foreign)?)),
            Self::TinyInt | Self::SmallInt | Self::Int | Self::BigInt => {
                Arc::new(Int64Array::from(all(cells, integer).ok_or_else(foreign)?))
            }
            Self::VarInt => {
                let value =
                    |cell: CqlValue| u64::try_from(wide(cell.into_cql_varint()?.as_signed_bytes_be_slice())?).ok();
                Arc::new(UInt64Array::from(all(cells, value).ok_or_else(foreign)?))
            }
            Self::Float => Arc::new(Float32Array::from(all(cells, |cell| cell.as_float()).ok_or_else(foreign)?)),
            Self::Double => Arc::new(Float64Array::from(all(cells, |cell| cell.as_double()).ok_or_else(foreign)?)),
            Self::Decimal(precision, scale) => {
                let values = all(cells, |cell| decimal(&cell, precision, scale)).ok_or_else(foreign)?;
                let values = Decimal128Array::from(values).with_precision_and_scale(precision, scale);
                Arc::new(values.map_err(|_| foreign())?)
            }
            Self::Text => Arc::new(StringArray::from(all(cells, CqlValue::into_string).ok_or_else(foreign)?)),
            Self::Blob => Arc::new(BinaryArray::from_iter(all(cells, CqlValue::into_blob).ok_or_else(foreign)?)),
            Self::Date => {
                let day = |cell: CqlValue| Some((cell.as_cql_date()?.0 ^ (1 << 31)).cast_signed());
                Arc::new(Date32Array::from(all(cells, day).ok_or_else(foreign)?))
            }
            Self::Time => {
                let at = |cell: CqlValue| Some(cell.as_cql_time()?.0);
                Arc::new(Time64NanosecondArray::from(all(cells, at).ok_or_else(foreign)?))
            }
            Self::Instant => {
                return as_instant(Int64Array::from(all(cells, integer).ok_or_else(foreign)?), data_type, foreign);
            }
            Self::Milliseconds => {
                let at = |cell: CqlValue| cell.as_cql_timestamp()?.0.checked_mul(1_000);
                return as_instant(Int64Array::from(all(cells, at).ok_or_else(foreign)?), data_type, foreign);
            }
            Self::Json => {
                let texts = all(cells, CqlValue::into_string).ok_or_else(foreign)?;
                return from_json(&texts, data_type).map_err(|_| foreign());
            }
        };
        strict_cast(&column, data_type).map_err(|_| foreign())
    }
}

fn each<T>(values: impl IntoIterator<Item = Option<T>>, cell: impl Fn(T) -> CqlValue) -> Vec<Cell> {
    values.into_iter().map(|value| value.map(&cell)).collect()
}

/// Nulls stay; `None` if a value can't be read.
fn all<T>(cells: Vec<Cell>, read: impl Fn(CqlValue) -> Option<T>) -> Option<Vec<Option<T>>> {
    cells.into_iter().map(|cell| cell.map_or(Some(None), |cell| read(cell).map(Some))).collect()
}

fn integer(cell: CqlValue) -> Option<i64> {
    match cell {
        CqlValue::TinyInt(value) => Some(value.into()),
        CqlValue::SmallInt(value) => Some(value.into()),
        CqlValue::Int(value) => Some(value.into()),
        CqlValue::BigInt(value) => Some(value),
        _ => None,
    }
}

/// The fewest bytes of a two's complement, as Java writes it: clients that look a key up must make the same bytes.
fn shortest(value: i128) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let fill = if value < 0 { 0xff } else { 0 };
    let is_spare = |at: &usize| bytes[*at] == fill && (bytes[at + 1] ^ fill) & 0x80 == 0;
    let spare = (0..bytes.len() - 1).take_while(is_spare).count();
    bytes[spare..].to_vec()
}

/// The number of a two's complement; `None` if it has more than 128 bits.
fn wide(bytes: &[u8]) -> Option<i128> {
    let fill = if bytes.first()? & 0x80 == 0 { 0 } else { 0xff };
    let spare = bytes.iter().take_while(|byte| **byte == fill).count();
    let mut wide = [fill; 16];
    let significant = &bytes[spare..];
    wide.get_mut(16_usize.checked_sub(significant.len())?..)?.copy_from_slice(significant);
    let value = i128::from_be_bytes(wide);
    ((value < 0) == (fill == 0xff)).then_some(value)
}

fn decimal(cell: &CqlValue, precision: u8, scale: i8) -> Option<i128> {
    let CqlValue::Decimal(decimal) = cell else { return None };
    let (bytes, own) = decimal.as_signed_be_bytes_slice_and_exponent();
    let (value, more) = (wide(bytes)?, i32::from(scale).checked_sub(own)?);
    let power = 10_i128.checked_pow(more.unsigned_abs())?;
    let value = if more >= 0 { value.checked_mul(power)? } else { (value % power == 0).then(|| value / power)? };
    (value.unsigned_abs() < 10_u128.checked_pow(precision.into())?).then_some(value)
}

/// The numbers of timestamps, whatever their zone is called: it is only a label.
fn number(values: &ArrayRef) -> Result<ArrayRef> {
    retyped(values, DataType::Int64)
}

fn as_instant(values: Int64Array, data_type: &DataType, foreign: impl Fn() -> Error) -> Result<ArrayRef> {
    match data_type {
        DataType::Timestamp(..) => retyped(&(Arc::new(values) as ArrayRef), data_type.clone()),
        _ => Err(foreign()),
    }
}

fn retyped(values: &ArrayRef, data_type: DataType) -> Result<ArrayRef> {
    let data = values.to_data().into_builder().data_type(data_type).build();
    Ok(make_array(data.map_err(|error| Error::stop("internal: a time is no 64-bit number").caused_by(error))?))
}

fn strict_cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(values, to, &CastOptions { safe: false, ..CastOptions::default() })
}

fn to_json(values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
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

fn from_json(texts: &[Option<String>], data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    let schema = Arc::new(Schema::new(vec![Field::new("v", data_type.clone(), true)]));
    let mut decoder = ReaderBuilder::new(schema).with_batch_size(texts.len()).build_decoder()?;
    for text in texts {
        decoder.decode(format!("{{\"v\":{}}}\n", text.as_deref().unwrap_or("null")).as_bytes())?;
    }
    let rows: Option<RecordBatch> = decoder.flush()?.filter(|rows| rows.num_rows() == texts.len());
    rows.map(|rows| rows.column(0).clone()).ok_or_else(|| ArrowError::JsonError("a value is cut short".into()))
}

#[cfg(test)]
mod tests;
