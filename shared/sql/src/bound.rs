//! Functions whose result may be much larger than their arguments. An allocation that fails ends the process, and the
//! memory pool doesn't see what functions allocate: so the size of a result is bounded before it is computed.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{
        DataType, Date32Type, FieldRef, Int64Type, IntervalMonthDayNanoType, TimeUnit, TimestampMicrosecondType,
        TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    },
};
use datafusion::{
    common::Result,
    execution::FunctionRegistry,
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature},
};

use crate::{fault::DataFault, size};

/// The most that one call may make over a batch, in bytes.
pub const MAX_BYTES: u64 = 128 << 20;

/// An upper bound for what a function makes of one row, in bytes.
type Bound = fn(&Row<'_>) -> u64;

/// The functions whose results are bounded. All others give at most a small multiple of the text, the list or the
/// number of arguments that they are given: `upper` three times the bytes, `encode` two, `overlay` two, `translate`
/// four, `to_char` twenty.
const BOUNDS: [(&str, Bound); 17] = [
    ("repeat", |row| row.bytes(0).saturating_mul(row.count(1))),
    ("lpad", padded),
    ("rpad", padded),
    ("replace", replaced),
    ("regexp_replace", replaced_by_pattern),
    // One text for each group of the pattern.
    ("regexp_match", |row| row.bytes(0).saturating_mul(row.matches(1, &['(']) + 1)),
    ("concat", |row| row.bytes_from(0)),
    ("concat_ws", |row| row.bytes_from(1).saturating_add(row.bytes(0).saturating_mul(row.args.len() as u64))),
    ("array_to_string", |row| {
        let apart = row.bytes(1).saturating_add(row.bytes(2)).saturating_add(NUMBER_BYTES);
        row.bytes(0).saturating_add(row.items(0).saturating_mul(apart))
    }),
    ("array_repeat", |row| row.count(1).saturating_mul(row.bytes(0).saturating_add(SLOT_BYTES))),
    ("array_resize", |row| {
        row.bytes(0).saturating_add(row.count(1).saturating_mul(row.bytes(2).saturating_add(SLOT_BYTES)))
    }),
    ("array_replace", |row| row.bytes(0).saturating_add(row.bytes(2))),
    ("array_replace_n", items_replaced),
    ("array_replace_all", items_replaced),
    ("range", series),
    ("generate_series", series),
    // It compares each letter with each: what is bounded here is the time that this takes.
    ("levenshtein", |row| row.bytes(0).saturating_mul(row.bytes(1))),
];

/// The most bytes of a number as a text, and of a place in a list.
const NUMBER_BYTES: u64 = 32;
const SLOT_BYTES: u64 = 16;

fn padded(row: &Row<'_>) -> u64 {
    if row.has_null() {
        return 0;
    }
    let letter_bytes = if row.text(2).is_ascii() { 1 } else { 4 };
    row.bytes(0).saturating_add(row.count(1).saturating_mul(letter_bytes))
}

fn replaced(row: &Row<'_>) -> u64 {
    let (bytes, from, to) = (row.bytes(0), row.bytes(1), row.bytes(2));
    let times = |matches: u64| bytes.saturating_add(matches.saturating_mul(to));
    match bytes.checked_div(from) {
        None => bytes,
        Some(most) if times(most) <= MAX_BYTES => times(most),
        // There may be fewer of them than there is room for.
        Some(_) => times(row.text(0).matches(row.text(1)).count() as u64),
    }
}

fn replaced_by_pattern(row: &Row<'_>) -> u64 {
    let (bytes, by) = (row.bytes(0), row.bytes(2));
    // A pattern may match between any two letters. Matches don't overlap: each group in the replacement adds at most
    // the whole text.
    let matches = if row.text(3).contains('g') { bytes.saturating_add(1) } else { 1 };
    let of_groups = bytes.saturating_mul(row.matches(2, &['$', '\\']));
    bytes.saturating_add(matches.saturating_mul(by)).saturating_add(of_groups)
}

fn items_replaced(row: &Row<'_>) -> u64 {
    row.bytes(0).saturating_add(row.items(0).saturating_mul(row.bytes(2)))
}

/// The bytes of a series, from the length of its range and of its shortest step.
fn series(row: &Row<'_>) -> u64 {
    if row.has_null() {
        return 0;
    }
    let (from, to) = if row.args.len() == 1 { (0, row.point(0)) } else { (row.point(0), row.point(1)) };
    let steps = match if row.args.len() == 3 { row.step(2) } else { 1 } {
        0 => (to - from).abs(),
        step => ((to - from) / step).max(0),
    };
    u64::try_from(steps + 1).unwrap_or(u64::MAX).saturating_mul(size_of::<i64>() as u64)
}

/// One row of a call's arguments. What is NULL, or isn't there, counts nothing.
struct Row<'a> {
    args: &'a [ArrayRef],
    number: usize,
}

impl Row<'_> {
    /// An argument, and where its value is; a constant is written once.
    fn arg(&self, index: usize) -> Option<(&ArrayRef, usize)> {
        let arg = self.args.get(index)?;
        let at = if arg.len() == 1 { 0 } else { self.number };
        arg.is_valid(at).then_some((arg, at))
    }

    /// The result of most functions is then NULL.
    fn has_null(&self) -> bool {
        (0..self.args.len()).any(|index| self.arg(index).is_none())
    }

    fn text(&self, index: usize) -> &str {
        let Some((arg, at)) = self.arg(index) else { return "" };
        match arg.data_type() {
            DataType::Utf8 => arg.as_string::<i32>().value(at),
            DataType::LargeUtf8 => arg.as_string::<i64>().value(at),
            DataType::Utf8View => arg.as_string_view().value(at),
            _ => "",
        }
    }

    fn bytes(&self, index: usize) -> u64 {
        let Some((arg, at)) = self.arg(index) else { return 0 };
        match arg.data_type() {
            data_type if data_type.is_string() => self.text(index).len() as u64,
            _ => size::of_array(arg.slice(at, 1).as_ref()) as u64,
        }
    }

    fn bytes_from(&self, index: usize) -> u64 {
        (index..self.args.len()).map(|index| self.bytes(index)).fold(0, u64::saturating_add)
    }

    /// How often letters stand in a text.
    fn matches(&self, index: usize, letters: &[char]) -> u64 {
        self.text(index).matches(letters).count() as u64
    }

    /// A number of times; none if it is negative.
    fn count(&self, index: usize) -> u64 {
        u64::try_from(self.point(index)).unwrap_or(0)
    }

    /// The items of a list, and of the lists in it.
    fn items(&self, index: usize) -> u64 {
        self.arg(index).map_or(0, |(arg, at)| items_of(arg.slice(at, 1).as_ref()))
    }

    /// An integer, or a time in nanoseconds or days.
    fn point(&self, index: usize) -> i128 {
        let Some((arg, at)) = self.arg(index) else { return 0 };
        match arg.data_type() {
            DataType::Int64 => arg.as_primitive::<Int64Type>().value(at).into(),
            DataType::Date32 => i128::from(arg.as_primitive::<Date32Type>().value(at)) * DAY_NS,
            DataType::Timestamp(unit, _) => {
                let (value, ns) = match unit {
                    TimeUnit::Second => (arg.as_primitive::<TimestampSecondType>().value(at), 1_000_000_000),
                    TimeUnit::Millisecond => (arg.as_primitive::<TimestampMillisecondType>().value(at), 1_000_000),
                    TimeUnit::Microsecond => (arg.as_primitive::<TimestampMicrosecondType>().value(at), 1_000),
                    TimeUnit::Nanosecond => (arg.as_primitive::<TimestampNanosecondType>().value(at), 1),
                };
                i128::from(value) * ns
            }
            _ => 0,
        }
    }

    /// The length of a step, in the unit of [`Self::point`]; of a month, at its shortest. 0 if it may be any length.
    fn step(&self, index: usize) -> i128 {
        let Some((arg, at)) = self.arg(index) else { return 0 };
        if !matches!(arg.data_type(), DataType::Interval(_)) {
            return self.point(index);
        }
        let step = arg.as_primitive::<IntervalMonthDayNanoType>().value(at);
        let (months, days) = (i128::from(step.months), i128::from(step.days));
        let parts = [months * 28 * DAY_NS, days * DAY_NS, step.nanoseconds.into()];
        let one_way = parts.iter().all(|part| *part >= 0) || parts.iter().all(|part| *part <= 0);
        if one_way { parts.iter().sum() } else { 0 }
    }
}

const DAY_NS: i128 = 86_400_000_000_000;

fn items_of(array: &dyn Array) -> u64 {
    let Some(list) = array.as_list_opt::<i32>() else { return array.len() as u64 };
    let offsets = list.value_offsets();
    let (from, to) = (offsets[0] as usize, offsets[list.len()] as usize);
    items_of(list.values().slice(from, to - from).as_ref())
}

/// Puts a bound around the functions of [`BOUNDS`].
pub fn register(functions: &mut dyn FunctionRegistry) -> Result<()> {
    for (name, _) in BOUNDS {
        let inner = functions.udf(name)?;
        functions.register_udf(Arc::new(ScalarUDF::new_from_impl(Bounded { inner })))?;
    }
    Ok(())
}

/// A function that fails if its result would be too large. It isn't simplified: the result of that would not be bounded.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check(self.name(), &args)?;
        self.inner.invoke_with_args(args)
    }
}

fn check(name: &str, call: &ScalarFunctionArgs) -> Result<()> {
    let Some((_, bound)) = BOUNDS.iter().find(|(bounded, _)| *bounded == name) else { return Ok(()) };
    let array = |arg: &ColumnarValue| match arg {
        ColumnarValue::Array(array) => Ok(Arc::clone(array)),
        ColumnarValue::Scalar(value) => value.to_array(),
    };
    let args = call.args.iter().map(array).collect::<Result<Vec<_>>>()?;
    let is_constant = call.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let mut bytes = 0_u64;
    for number in 0..if is_constant { 1 } else { call.number_rows } {
        let of_row = bound(&Row { args: &args, number });
        if of_row > MAX_BYTES {
            return Err(DataFault::error(too_large(name)));
        }
        bytes = bytes.saturating_add(of_row);
    }
    if bytes > MAX_BYTES { Err(DataFault::too_large(too_large(name))) } else { Ok(()) }
}

fn too_large(name: &str) -> String {
    format!("{name}() would take more than {} MiB: give it shorter values, as in left(text, 1000)", MAX_BYTES >> 20)
}
