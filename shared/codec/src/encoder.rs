use std::{
    fmt::{Debug, Display},
    io::Write as _,
};

use arrow::{
    array::{Array, ArrayRef, AsArray as _, RecordBatch},
    datatypes::{
        DECIMAL128_MAX_PRECISION, DataType, Date32Type, Decimal128Type, DecimalType as _, Field, Fields, Float32Type,
        Float64Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use millstream_core::{Encode, Error, Result};

use crate::{column::Column, epoch_scale, time};

/// Encodes rows as JSON objects that a [`crate::JsonDecoder`] of the same schema reads back unchanged.
///
/// Fields are written in the schema's order, and null fields are left out. Decimals are JSON numbers in plain notation
/// with all digits after the decimal point (`12.50`). Timestamps are RFC 3339 with `Z`, or numbers in the field's
/// [`crate::EPOCH`] unit. Binary is base64.
#[derive(Debug)]
pub struct JsonEncoder {
    schema: SchemaRef,
}

impl JsonEncoder {
    /// An encoder for batches of this schema.
    ///
    /// # Errors
    /// `Stop` for a type that JSON can't be decoded to.
    pub fn new(schema: SchemaRef) -> Result<Self> {
        Column::record(schema.fields(), 0)?;
        Ok(Self { schema })
    }
}

impl Encode for JsonEncoder {
    /// One JSON object per row, without a newline.
    ///
    /// # Errors
    /// `Stop` if the batch's columns differ from the schema; `Poison` for a value that JSON can't hold: an infinite
    /// float, NaN, or a time outside the years 0001 to 9999.
    fn encode(&self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let types = |fields: &Fields| fields.iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        if types(rows.schema_ref().fields()) != types(self.schema.fields()) {
            return Err(Error::stop("internal: the rows to encode as JSON don't have the encoder's columns"));
        }
        let row = |row| {
            let mut out = Vec::with_capacity(128);
            write_object(&mut out, self.schema.fields(), rows.columns(), row)?;
            Ok(out)
        };
        (0..rows.num_rows()).map(row).collect()
    }
}

fn write_object(out: &mut Vec<u8>, fields: &Fields, columns: &[ArrayRef], row: usize) -> Result<()> {
    out.push(b'{');
    let mut first = true;
    for (field, column) in fields.iter().zip(columns).filter(|(_, column)| column.is_valid(row)) {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write_string(out, field.name())?;
        out.push(b':');
        write_value(out, field, column.as_ref(), row)
            .map_err(|error| error.context(format!("field `{}`", field.name())))?;
    }
    out.push(b'}');
    Ok(())
}

fn write_value(out: &mut Vec<u8>, field: &Field, column: &dyn Array, row: usize) -> Result<()> {
    if column.is_null(row) {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    match column.data_type() {
        DataType::Boolean => write_plain(out, column.as_boolean().value(row)),
        DataType::Int16 => write_plain(out, column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => write_plain(out, column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => write_plain(out, column.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => {
            let value = column.as_primitive::<Float32Type>().value(row);
            write_float(out, value, value.is_finite())
        }
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            write_float(out, value, value.is_finite())
        }
        DataType::Utf8 => write_string(out, column.as_string::<i32>().value(row)),
        DataType::Binary => write_string(out, &STANDARD.encode(column.as_binary::<i32>().value(row))),
        DataType::Decimal128(..) => write_plain(out, column.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Date32 => write_time(out, time::format_date(column.as_primitive::<Date32Type>().value(row).into())),
        DataType::Timestamp(..) => {
            let us = column.as_primitive::<TimestampMicrosecondType>().value(row);
            match epoch_scale(field)? {
                Some(scale) => write_plain(out, epoch(us, scale)),
                None => write_time(out, time::format_timestamp(us)),
            }
        }
        DataType::Struct(fields) => write_object(out, fields, column.as_struct().columns(), row),
        DataType::List(item) => {
            out.push(b'[');
            let items = column.as_list::<i32>().value(row);
            for index in 0..items.len() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(out, item, items.as_ref(), index)?;
            }
            out.push(b']');
            Ok(())
        }
        other => Err(Error::stop(format!("internal: the type {other} can't be encoded as JSON"))),
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) -> Result<()> {
    serde_json::to_writer(out, text)
        .map_err(|error| Error::stop("internal: can't write a string as JSON").caused_by(error))
}

fn write_plain(out: &mut Vec<u8>, value: impl Display) -> Result<()> {
    write!(out, "{value}").map_err(|error| Error::stop("internal: can't write a value as JSON").caused_by(error))
}

/// The shortest text that reads back as the same number: Rust's `Debug`, which is JSON for every finite number.
fn write_float(out: &mut Vec<u8>, value: impl Debug, finite: bool) -> Result<()> {
    if !finite {
        return Err(Error::poison("an infinite or undefined number can't be written as JSON"));
    }
    write_plain(out, format_args!("{value:?}"))
}

fn write_time(out: &mut Vec<u8>, text: Option<String>) -> Result<()> {
    let text =
        text.ok_or_else(|| Error::poison("a time outside the years 0001 to 9999 can't be written as RFC 3339"))?;
    write_string(out, &text)
}

/// An epoch time as a number of its unit, exactly and no longer than needed.
fn epoch(us: i64, scale: u8) -> String {
    let text = Decimal128Type::format_decimal(us.into(), DECIMAL128_MAX_PRECISION, scale as i8);
    if scale == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}
