//! `tumble` and `hop`: the windows of GROUP BY, as plain arithmetic on microseconds.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, ListBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder},
    datatypes::{DataType, Field, TimeUnit, TimestampMicrosecondType},
};
use datafusion::{
    common::{Result, ScalarValue, exec_err, plan_err},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

/// At most this many windows may hold one event: `size / slide` of a `hop`.
pub const MAX_WINDOWS_PER_EVENT: i64 = 1_000;

/// The type of event times and window starts.
pub fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Which function it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// `tumble(time, size)`: the start of the one window that holds the event.
    Tumble,
    /// `hop(time, slide, size)` as the user writes it: a group for each window that holds the event. Planning replaces it
    /// by [`Window::HopStarts`], unnested.
    Hop,
    /// The list of starts of all windows that hold the event.
    HopStarts,
}

impl Window {
    /// As a function for the planner.
    pub fn udf(self) -> ScalarUDF {
        ScalarUDF::new_from_impl(WindowFunction {
            window: self,
            signature: Signature::user_defined(Volatility::Immutable),
        })
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
        let lengths = args.args[1..].iter().map(length_us).collect::<Result<Vec<_>>>()?;
        let starts: ArrayRef = match (self.window, lengths.as_slice()) {
            (Window::Tumble, [size]) => Arc::new(tumble(times, *size)),
            (Window::HopStarts, [slide, size]) => hop(times, *slide, *size)?,
            _ => return exec_err!("{} may only stand in GROUP BY", self.name()),
        };
        Ok(ColumnarValue::Array(starts))
    }
}

/// The length of a constant interval in microseconds.
fn length_us(interval: &ColumnarValue) -> Result<i64> {
    let ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(interval))) = interval else {
        return exec_err!("a window's length must be a constant, such as INTERVAL '2 seconds'");
    };
    if interval.months != 0 {
        return exec_err!("a window can't be months or years long: they differ in length; use days");
    }
    let us = i64::from(interval.days) * 86_400_000_000 + interval.nanoseconds / 1_000;
    if us <= 0 { exec_err!("a window's length must be at least a microsecond") } else { Ok(us) }
}

fn tumble(times: &TimestampMicrosecondArray, size_us: i64) -> TimestampMicrosecondArray {
    times.unary::<_, TimestampMicrosecondType>(|time| time - time.rem_euclid(size_us)).with_timezone("UTC")
}

fn hop(times: &TimestampMicrosecondArray, slide_us: i64, size_us: i64) -> Result<ArrayRef> {
    if size_us < slide_us || size_us / slide_us > MAX_WINDOWS_PER_EVENT {
        return exec_err!("hop(time, slide, size): size must be 1 to {MAX_WINDOWS_PER_EVENT} times slide");
    }
    let mut lists = ListBuilder::new(TimestampMicrosecondBuilder::new().with_data_type(instant()));
    for time in times {
        if let Some(time) = time {
            let mut start = time - time.rem_euclid(slide_us);
            while start > time - size_us {
                lists.values().append_value(start);
                start -= slide_us;
            }
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}
