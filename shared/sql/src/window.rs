//! `tumble` and `hop`: the windows of GROUP BY, as plain arithmetic on microseconds.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, ListBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder},
    datatypes::{DataType, Field, TimeUnit, TimestampMicrosecondType},
};
use datafusion::{
    common::{DataFusionError, Result, ScalarValue, internal_err, plan_err},
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

use crate::fault::DataFault;

/// The largest number of windows that may hold one event: `size / slide` of a `hop`.
pub const MAX_WINDOWS_PER_EVENT: i64 = 1_000;

/// The type of event times and window starts.
pub fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The window functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// `tumble(time, size)`: the start of the one window that holds the event.
    Tumble,
    /// `hop(time, slide, size)` as the user writes it: a group for each window that holds the event. Planning replaces
    /// it by an unnested [`Window::HopStarts`].
    Hop,
    /// The list of starts of all windows that hold the event.
    HopStarts,
}

impl Window {
    /// The function for the planner.
    pub fn udf(self) -> ScalarUDF {
        ScalarUDF::new_from_impl(WindowFunction {
            window: self,
            signature: Signature::user_defined(Volatility::Immutable),
        })
    }

    /// The window function with that name.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Tumble, Self::Hop, Self::HopStarts].into_iter().find(|window| window.name() == name)
    }

    /// The function's name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tumble => "tumble",
            Self::Hop => "hop",
            Self::HopStarts => "__hop_starts",
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowFunction {
    window: Window,
    signature: Signature,
}

impl ScalarUDFImpl for WindowFunction {
    fn name(&self) -> &str {
        self.window.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let usage = match self.window {
            Window::Tumble => "tumble(time, INTERVAL 'size')",
            Window::Hop | Window::HopStarts => "hop(time, INTERVAL 'slide', INTERVAL 'size')",
        };
        let intervals = if self.window == Window::Tumble { 1 } else { 2 };
        let is_time = |t: &DataType| matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Null);
        if types.len() != intervals + 1 || !is_time(&types[0]) {
            return plan_err!("write {usage}, where time is a timestamp");
        }
        let mut coerced = vec![instant()];
        coerced
            .extend(std::iter::repeat_n(DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano), intervals));
        Ok(coerced)
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(match self.window {
            Window::Tumble | Window::Hop => instant(),
            Window::HopStarts => DataType::List(Arc::new(Field::new_list_field(instant(), true))),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = args.args[0].to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        // Planning has already checked them.
        let length = |length: &ColumnarValue| match length {
            ColumnarValue::Scalar(length) => length_us(length).or_else(|wrong| internal_err!("{wrong}")),
            ColumnarValue::Array(_) => internal_err!("{CONSTANT}"),
        };
        let lengths = args.args[1..].iter().map(length).collect::<Result<Vec<_>>>()?;
        let starts: ArrayRef = match (self.window, lengths.as_slice()) {
            (Window::Tumble, [size]) => Arc::new(tumble(times, *size)?),
            (Window::HopStarts, [slide, size]) => hop(times, *slide, *size)?,
            _ => return internal_err!("{} was not replaced", self.name()),
        };
        Ok(ColumnarValue::Array(starts))
    }
}

/// Checks the lengths of a call of `tumble(time, size)` or `hop(time, slide, size)`. They are already computed
/// constants.
///
/// # Errors
/// What is wrong, and what to write.
pub fn check_lengths(window: Window, lengths: &[Expr]) -> std::result::Result<(), String> {
    let constant = |expr: &Expr| match expr {
        Expr::Literal(value, _) => length_us(value),
        _ => Err(CONSTANT.to_owned()),
    };
    let lengths = lengths.iter().map(constant).collect::<std::result::Result<Vec<_>, _>>()?;
    match (window, lengths.as_slice()) {
        (Window::Hop | Window::HopStarts, [slide, size]) if size < slide => {
            Err("hop(time, slide, size): the slide comes first, and must not be longer than the size. Swap the two \
             arguments; or, to leave out events between two windows, use tumble and WHERE"
                .into())
        }
        (Window::Hop | Window::HopStarts, [slide, size]) if (size - 1) / slide >= MAX_WINDOWS_PER_EVENT => {
            Err(format!(
                "hop(time, slide, size): each event would be in more than {MAX_WINDOWS_PER_EVENT} windows. Make the slide longer"
            ))
        }
        _ => Ok(()),
    }
}

const CONSTANT: &str = "a window's length must be a constant, such as INTERVAL '2 seconds'";

/// The length of an interval in microseconds.
pub fn length_us(interval: &ScalarValue) -> std::result::Result<i64, String> {
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = interval else { return Err(CONSTANT.into()) };
    if interval.months != 0 {
        return Err("a window can't be months or years long: they differ in length. Use days, or GROUP BY \
                    date_trunc('month', time)"
            .into());
    }
    let us = i128::from(interval.days) * 86_400_000_000 + i128::from(interval.nanoseconds / 1_000);
    if us <= 0 {
        return Err("a window's length must be at least a microsecond".into());
    }
    i64::try_from(us).map_err(|_| "a window can't be that long".into())
}

/// The start of the last window of length `slide_us` that begins at or before `time`.
fn start_of(time: i64, slide_us: i64) -> Result<i64> {
    // Only a time in the year -290308 can have a window that begins before the first instant of an i64.
    time.checked_sub(time.rem_euclid(slide_us)).ok_or_else(out_of_range)
}

fn out_of_range() -> DataFusionError {
    DataFault::error("its time is too far in the past for a window")
}

fn tumble(times: &TimestampMicrosecondArray, size_us: i64) -> Result<TimestampMicrosecondArray> {
    Ok(times.try_unary::<_, TimestampMicrosecondType, _>(|time| start_of(time, size_us))?.with_timezone("UTC"))
}

fn hop(times: &TimestampMicrosecondArray, slide_us: i64, size_us: i64) -> Result<ArrayRef> {
    let mut lists = ListBuilder::new(TimestampMicrosecondBuilder::new().with_data_type(instant()));
    for time in times {
        match time {
            // An event without a time is in the window NULL, as with tumble.
            None => lists.values().append_null(),
            Some(time) => {
                let before = time.checked_sub(size_us).ok_or_else(out_of_range)?;
                let mut start = start_of(time, slide_us)?;
                while start > before {
                    lists.values().append_value(start);
                    start = start.checked_sub(slide_us).ok_or_else(out_of_range)?;
                }
            }
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}
