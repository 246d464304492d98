use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float32Array,
        Float64Array, Int16Array, Int32Array, Int64Array, ListArray, NullBufferBuilder, StringArray, StructArray,
        TimestampMicrosecondArray,
    },
    buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, Field, FieldRef, TimeUnit},
    error::ArrowError,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use millstream_core::{Error, Result};

use crate::{epoch_scale, number, problem::Problem, scan::Scanner, time};

/// A column under construction, with its child columns.
///
/// After a failed [`Column::read`] the column may hold part of a row: the caller must [`Column::truncate`] it to the
/// rows before.
pub(crate) struct Column {
    field: FieldRef,
    /// Its name in a reason; `[]` for a list's items, empty for the record itself.
    label: String,
    /// Refuses null even if the field allows it.
    required: bool,
    validity: NullBufferBuilder,
    cells: Cells,
}

/// The values of a column: one per row, with any value for a null.
enum Cells {
    Booleans(BooleanBufferBuilder),
    Longs { values: Vec<i64>, rule: LongRule },
    Doubles { values: Vec<f64>, narrow: bool },
    Decimals { values: Vec<i128>, precision: u8, scale: u8 },
    Bytes { ends: Vec<i32>, bytes: Vec<u8>, base64: bool },
    List { ends: Vec<i32>, items: Box<Column> },
    Struct(Vec<Column>),
}

/// How JSON becomes one of the types that Arrow stores as integers.
#[derive(Clone, Copy)]
enum LongRule {
    Integer { min: i64, max: i64 },
    Timestamp,
    Epoch { scale: u8 },
    Date,
}

impl Column {
    /// An empty column with room for `rows`.
    ///
    /// # Errors
    /// `Stop` for a type that JSON can't be decoded to.
    pub(crate) fn new(field: &FieldRef, rows: usize) -> Result<Self> {
        Self::labelled(field, field.name().clone(), rows)
    }

    /// The column of whole records; its children are the columns of a batch.
    pub(crate) fn record(fields: &[FieldRef], rows: usize) -> Result<Self> {
        let field = Field::new("", DataType::Struct(fields.iter().cloned().collect()), false);
        Self::new(&Arc::new(field), rows)
    }

    fn labelled(field: &FieldRef, label: String, rows: usize) -> Result<Self> {
        let cells = Cells::new(field, rows).map_err(|error| error.context(format!("field `{label}`")))?;
        let required = !field.is_nullable();
        Ok(Self { field: field.clone(), label, required, validity: NullBufferBuilder::new(rows), cells })
    }

    /// Makes the child `name` of this struct refuse null.
    pub(crate) fn require(&mut self, name: &str) {
        if let Cells::Struct(children) = &mut self.cells {
            children.iter_mut().filter(|child| child.label == name).for_each(|child| child.required = true);
        }
    }

    /// The number of rows so far.
    fn len(&self) -> usize {
        self.validity.len()
    }

    /// Reads the next value as one more row.
    #[inline]
    pub(crate) fn read(&mut self, json: &mut Scanner<'_>) -> Result<(), Problem> {
        self.read_cell(json).map_err(|problem| problem.at(&self.label, &self.field))
    }

    fn read_cell(&mut self, json: &mut Scanner<'_>) -> Result<(), Problem> {
        if json.peek() == Some(b'n') {
            json.word("null")?;
            if self.required {
                return Err(Problem::Value("is null, but must not be".to_owned()));
            }
            self.push_null();
            return Ok(());
        }
        match &mut self.cells {
            Cells::Longs { values, rule } => values.push(rule.read(json)?),
            Cells::Doubles { values, narrow } => values.push(number::float(json, *narrow)?),
            Cells::Decimals { values, precision, scale } => values.push(number::decimal(json, *precision, *scale)?),
            Cells::Bytes { ends, bytes, base64 } => {
                let text = string(json)?;
                if *base64 {
                    let wrong = |_| Problem::Found("a string that is not base64");
                    STANDARD.decode_vec(text.as_bytes(), bytes).map_err(wrong)?;
                } else {
                    bytes.extend_from_slice(text.as_bytes());
                }
                ends.push(bytes.len() as i32);
            }
            Cells::Booleans(values) => values.append(boolean(json)?),
            Cells::List { ends, items } => {
                expect(json, b'[')?;
                let before = items.len();
                json.list(|json| items.read(json))?;
                json.kept_items += items.len() - before;
                ends.push(items.len() as i32);
            }
            Cells::Struct(children) => {
                expect(json, b'{')?;
                read_members(children, self.validity.len(), json)?;
            }
        }
        self.validity.append_non_null();
        Ok(())
    }

    /// Adds a row for a field that is missing in the object.
    fn push_missing(&mut self) -> Result<(), Problem> {
        if self.required {
            return Err(Problem::Value("is missing".to_owned()).at(&self.label, &self.field));
        }
        self.push_null();
        Ok(())
    }

    fn push_null(&mut self) {
        match &mut self.cells {
            Cells::Booleans(values) => values.append(false),
            Cells::Longs { values, .. } => values.push(0),
            Cells::Doubles { values, .. } => values.push(0.0),
            Cells::Decimals { values, .. } => values.push(0),
            Cells::Bytes { ends, bytes, .. } => ends.push(bytes.len() as i32),
            Cells::List { ends, items } => ends.push(items.len() as i32),
            // Even if a child doesn't allow null: its row under a null struct is never visible.
            Cells::Struct(children) => children.iter_mut().for_each(Self::push_null),
        }
        self.validity.append_null();
    }

    /// Keeps only the first `rows` rows.
    pub(crate) fn truncate(&mut self, rows: usize) {
        match &mut self.cells {
            Cells::Booleans(values) => values.truncate(rows),
            Cells::Longs { values, .. } => values.truncate(rows),
            Cells::Doubles { values, .. } => values.truncate(rows),
            Cells::Decimals { values, .. } => values.truncate(rows),
            Cells::Bytes { ends, bytes, .. } => {
                ends.truncate(rows + 1);
                bytes.truncate(ends[ends.len() - 1] as usize);
            }
            Cells::List { ends, items } => {
                ends.truncate(rows + 1);
                items.truncate(ends[ends.len() - 1] as usize);
            }
            Cells::Struct(children) => children.iter_mut().for_each(|child| child.truncate(rows)),
        }
        self.validity.truncate(rows);
    }

    /// The columns of a struct.
    pub(crate) fn finish_children(self) -> Result<Vec<ArrayRef>, ArrowError> {
        match self.cells {
            Cells::Struct(children) => children.into_iter().map(Self::finish).collect(),
            _ => Ok(Vec::new()),
        }
    }

    pub(crate) fn finish(self) -> Result<ArrayRef, ArrowError> {
        let rows = self.len();
        let nulls = self.validity.build().filter(|nulls| nulls.null_count() > 0);
        Ok(match self.cells {
            Cells::Booleans(values) => Arc::new(BooleanArray::new(values.build(), nulls)),
            Cells::Longs { values, .. } => longs(self.field.data_type(), values, nulls),
            Cells::Doubles { values, narrow: false } => Arc::new(Float64Array::new(values.into(), nulls)),
            Cells::Doubles { values, narrow: true } => {
                // Each value was read as a float, so narrowing it loses nothing.
                let values: Vec<_> = values.into_iter().map(|value| value as f32).collect();
                Arc::new(Float32Array::new(values.into(), nulls))
            }
            Cells::Decimals { values, precision, scale } => {
                Arc::new(Decimal128Array::new(values.into(), nulls).with_precision_and_scale(precision, scale as i8)?)
            }
            Cells::Bytes { ends, bytes, base64: true } => {
                Arc::new(BinaryArray::try_new(offsets(ends), Buffer::from_vec(bytes), nulls)?)
            }
            Cells::Bytes { ends, bytes, base64: false } => {
                Arc::new(StringArray::try_new(offsets(ends), Buffer::from_vec(bytes), nulls)?)
            }
            Cells::List { ends, items } => {
                let item = items.field.clone();
                Arc::new(ListArray::try_new(item, offsets(ends), items.finish()?, nulls)?)
            }
            Cells::Struct(children) => {
                let fields = children.iter().map(|child| child.field.clone()).collect();
                let arrays = children.into_iter().map(Self::finish).collect::<Result<_, _>>()?;
                Arc::new(StructArray::try_new_with_length(fields, arrays, nulls, rows)?)
            }
        })
    }
}

impl Cells {
    fn new(field: &Field, rows: usize) -> Result<Self> {
        // Lists start small: the number of items isn't known.
        let ends = || {
            let mut ends = Vec::with_capacity(rows + 1);
            ends.push(0);
            ends
        };
        let longs = |rule| Self::Longs { values: Vec::with_capacity(rows), rule };
        let integer = |min, max| longs(LongRule::Integer { min, max });
        Ok(match field.data_type() {
            DataType::Boolean => Self::Booleans(BooleanBufferBuilder::new(rows)),
            DataType::Int16 => integer(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => integer(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => integer(i64::MIN, i64::MAX),
            DataType::Float32 => Self::Doubles { values: Vec::with_capacity(rows), narrow: true },
            DataType::Float64 => Self::Doubles { values: Vec::with_capacity(rows), narrow: false },
            DataType::Utf8 => Self::Bytes { ends: ends(), bytes: Vec::new(), base64: false },
            DataType::Binary => Self::Bytes { ends: ends(), bytes: Vec::new(), base64: true },
            DataType::Date32 => longs(LongRule::Date),
            DataType::Decimal128(precision, scale @ 0..) => {
                Self::Decimals { values: Vec::with_capacity(rows), precision: *precision, scale: *scale as u8 }
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => match epoch_scale(field)? {
                Some(scale) => longs(LongRule::Epoch { scale }),
                None => longs(LongRule::Timestamp),
            },
            DataType::List(item) => {
                Self::List { ends: ends(), items: Box::new(Column::labelled(item, "[]".to_owned(), 0)?) }
            }
            DataType::Struct(fields) => {
                Self::Struct(fields.iter().map(|field| Column::new(field, rows)).collect::<Result<_>>()?)
            }
            other => return Err(Error::stop(format!("JSON can't be decoded to the type {other}"))),
        })
    }
}

impl LongRule {
    #[inline]
    fn read(self, json: &mut Scanner<'_>) -> Result<i64, Problem> {
        match self {
            Self::Integer { min, max } => number::integer(json, min, max),
            Self::Epoch { scale } => number::epoch_us(json, scale),
            Self::Timestamp => {
                let us = time::parse_timestamp(&string(json)?);
                time::within_us(
                    us.ok_or(Problem::Found("a string that is no RFC 3339 time (without a zone, it is UTC)"))?,
                )
                .ok_or_else(time::outside)
            }
            Self::Date => {
                let days = time::parse_date(&string(json)?);
                time::within_days(days.ok_or(Problem::Found("a string that is not such a date"))?)
                    .ok_or_else(time::outside)
            }
        }
    }
}

/// Reads an object's members into `children`. All children have `row` rows before the call and one more after it.
/// Unknown names are skipped. If a name comes twice, the last one counts, but both must be valid.
fn read_members(children: &mut [Column], row: usize, json: &mut Scanner<'_>) -> Result<(), Problem> {
    // Producers usually write fields in the schema's order, so the field after the last one is tried first.
    let mut next = 0;
    json.object(|json, name| {
        let known = match children.get(next) {
            Some(child) if child.label == name => Some(next),
            _ => children.iter().position(|child| child.label == name),
        };
        let Some(known) = known else {
            return json.skip();
        };
        next = known + 1;
        let child = &mut children[known];
        if child.len() > row {
            child.truncate(row);
        }
        child.read(json)
    })?;
    children.iter_mut().filter(|child| child.len() == row).try_for_each(Column::push_missing)
}

#[inline]
fn expect(json: &mut Scanner<'_>, first: u8) -> Result<(), Problem> {
    if json.peek() == Some(first) { Ok(()) } else { Err(json.mismatch()) }
}

#[inline]
fn string<'a>(json: &mut Scanner<'a>) -> Result<std::borrow::Cow<'a, str>, Problem> {
    expect(json, b'"')?;
    json.string()
}

fn boolean(json: &mut Scanner<'_>) -> Result<bool, Problem> {
    match json.peek() {
        Some(b't') => json.word("true").map(|()| true),
        Some(b'f') => json.word("false").map(|()| false),
        _ => Err(json.mismatch()),
    }
}

/// Integers as an array of their Arrow type.
fn longs(data_type: &DataType, values: Vec<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    // Each value was checked to fit its type, so no cast loses anything.
    match data_type {
        DataType::Int16 => Arc::new(Int16Array::new(values.into_iter().map(|value| value as i16).collect(), nulls)),
        DataType::Int32 => Arc::new(Int32Array::new(values.into_iter().map(|value| value as i32).collect(), nulls)),
        DataType::Date32 => Arc::new(Date32Array::new(values.into_iter().map(|value| value as i32).collect(), nulls)),
        DataType::Timestamp(_, zone) => {
            Arc::new(TimestampMicrosecondArray::new(values.into(), nulls).with_timezone_opt(zone.clone()))
        }
        _ => Arc::new(Int64Array::new(values.into(), nulls)),
    }
}

/// The ends of values as offsets. They fit `i32` because the values of a batch do, and decoding never makes a text
/// longer.
fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(ends))
}
