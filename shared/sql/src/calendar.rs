//! Times over the whole calendar: DataFusion's own `date_trunc`, `date_bin`, `to_char` and casts use nanoseconds, which
//! only cover 1677 to 2262.

use std::sync::Arc;

use arrow::{
    array::AsArray,
    datatypes::{DataType, TimeUnit, TimestampMicrosecondType},
};
use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::{
    common::{
        DFSchema, Result, ScalarValue,
        config::ConfigOptions,
        plan_err,
        tree_node::{Transformed, TreeNode},
    },
    functions::datetime::to_char::ToCharFunc,
    logical_expr::{
        ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility, cast, try_cast,
    },
    optimizer::AnalyzerRule,
};

use crate::{
    error::SqlError,
    rewrite,
    window::{instant, length_us},
};

/// The units that a timestamp can be cut to.
pub const UNITS: [&str; 10] =
    ["year", "quarter", "month", "week", "day", "hour", "minute", "second", "millisecond", "microsecond"];

const DAY_US: i64 = 86_400_000_000;

/// Makes casts to timestamps, and functions that return one, use microseconds, as records do: a comparison with
/// nanoseconds would fail for each record before 1677 and after 2262.
#[derive(Debug)]
pub struct Microseconds;

impl AnalyzerRule for Microseconds {
    fn name(&self) -> &'static str {
        "microseconds"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        rewrite::expressions(plan, &|expr, schema| expr.transform_up(|expr| in_microseconds(expr, schema)))
    }
}

fn in_microseconds(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let short = |data_type: &DataType| match data_type {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
        }
        _ => None,
    };
    Ok(match expr {
        Expr::Cast(of) => match short(of.field.data_type()) {
            Some(to) => Transformed::yes(cast(*of.expr, to)),
            None => Transformed::no(Expr::Cast(of)),
        },
        Expr::TryCast(of) => match short(of.field.data_type()) {
            Some(to) => Transformed::yes(try_cast(*of.expr, to)),
            None => Transformed::no(Expr::TryCast(of)),
        },
        Expr::ScalarFunction(_) => match short(&expr.get_type(schema)?) {
            Some(to) => Transformed::yes(cast(expr, to)),
            None => Transformed::no(expr),
        },
        other => Transformed::no(other),
    })
}

/// `date_trunc('unit', time)`, in UTC.
pub fn date_trunc_udf() -> ScalarUDF {
    ScalarUDF::new_from_impl(DateTrunc { signature: Signature::user_defined(Volatility::Immutable) })
}

/// Refuses a time zone other than UTC.
pub fn check_zone(zone: Option<&str>) -> crate::error::Result<()> {
    if matches!(zone, None | Some("UTC" | "+00:00" | "Z")) {
        return Ok(());
    }
    Err(SqlError::new(
        "times are in UTC here: AT TIME ZONE is not supported. Show the time itself, and convert it where the table is \
         read",
    ))
}

fn in_utc(data_type: &DataType) -> Result<()> {
    let zone = if let DataType::Timestamp(_, Some(zone)) = data_type { Some(zone.as_ref()) } else { None };
    check_zone(zone).or_else(|error| plan_err!("{error}"))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    signature: Signature,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &'static str {
        "date_trunc"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [unit, time] = types else { return plan_err!("write date_trunc('day', time)") };
        in_utc(time)?;
        let is_time = matches!(time, DataType::Timestamp(..) | DataType::Date32 | DataType::Null);
        if !matches!(unit, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8) || !is_time {
            return plan_err!("write date_trunc('day', time), where time is a timestamp");
        }
        Ok(vec![DataType::Utf8, instant()])
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(instant())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ColumnarValue::Scalar(ScalarValue::Utf8(Some(unit))) = &args.args[0] else {
            return plan_err!("date_trunc() takes one of these words: {}", UNITS.join(", "));
        };
        let unit = unit.to_lowercase();
        if !UNITS.contains(&unit.as_str()) {
            return plan_err!("date_trunc() takes one of these words: {}", UNITS.join(", "));
        }
        let times = args.args[1].to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let cut = times.unary_opt::<_, TimestampMicrosecondType>(|time| truncated(&unit, time));
        Ok(ColumnarValue::Array(Arc::new(cut.with_timezone("UTC"))))
    }
}

/// `to_char(time, '%Y-%m-%d')`, in UTC.
pub fn to_char_udf() -> ScalarUDF {
    ScalarUDF::new_from_impl(ToChar {
        inner: ToCharFunc::new(),
        signature: Signature::user_defined(Volatility::Immutable),
    })
}

/// DataFusion's `to_char`, without its cast to nanoseconds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToChar {
    inner: ToCharFunc,
    signature: Signature,
}

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        types.iter().try_for_each(in_utc)?;
        match types {
            [DataType::Timestamp(..) | DataType::Null, _] => Ok(vec![instant(), DataType::Utf8]),
            [DataType::Date32, _] => Ok(vec![DataType::Date32, DataType::Utf8]),
            _ => plan_err!("write to_char(time, '%Y-%m-%d'), where time is a timestamp or a date"),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }
}

/// `date_bin(INTERVAL 'size', time[, origin])`: the start of the bin of that size, counted from `origin` or 1970.
pub fn date_bin_udf() -> ScalarUDF {
    ScalarUDF::new_from_impl(DateBin { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateBin {
    signature: Signature,
}

impl ScalarUDFImpl for DateBin {
    fn name(&self) -> &'static str {
        "date_bin"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        types.iter().try_for_each(in_utc)?;
        let is_time = |t: &DataType| matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Null);
        match types {
            [DataType::Interval(_), times @ ..] if (1..=2).contains(&times.len()) && times.iter().all(is_time) => {
                let size = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
                Ok(std::iter::once(size).chain(times.iter().map(|_| instant())).collect())
            }
            _ => plan_err!("write date_bin(INTERVAL '15 minutes', time), where time is a timestamp"),
        }
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(instant())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let size_us = match &args.args[0] {
            ColumnarValue::Scalar(size) => length_us(size).or_else(|error| plan_err!("{error}"))?,
            ColumnarValue::Array(_) => return plan_err!("the size of date_bin() must be a constant"),
        };
        let times = args.args[1].to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let binned = match args.args.get(2) {
            None => times.unary_opt::<_, TimestampMicrosecondType>(|time| bin(time, size_us, 0)),
            Some(origins) => {
                let origins = origins.to_array(args.number_rows)?;
                let origins = origins.as_primitive::<TimestampMicrosecondType>();
                let of = |(time, origin): (Option<i64>, Option<i64>)| bin(time?, size_us, origin?);
                times.iter().zip(origins).map(of).collect()
            }
        };
        Ok(ColumnarValue::Array(Arc::new(binned.with_timezone("UTC"))))
    }
}

fn bin(time_us: i64, size_us: i64, origin_us: i64) -> Option<i64> {
    let since = time_us.checked_sub(origin_us)?;
    since.checked_sub(since.rem_euclid(size_us))?.checked_add(origin_us)
}

/// `None` for a time outside the calendar.
fn truncated(unit: &str, time_us: i64) -> Option<i64> {
    let cut = |length_us: i64| time_us.checked_sub(time_us.rem_euclid(length_us));
    match unit {
        "microsecond" => Some(time_us),
        "millisecond" => cut(1_000),
        "second" => cut(1_000_000),
        "minute" => cut(60_000_000),
        "hour" => cut(3_600_000_000),
        "day" => cut(DAY_US),
        // 1970-01-01 was a Thursday, and weeks begin on Monday.
        "week" => {
            let days = time_us.div_euclid(DAY_US);
            days.checked_sub((days + 3).rem_euclid(7))?.checked_mul(DAY_US)
        }
        _ => {
            let date = DateTime::from_timestamp_micros(time_us)?.date_naive();
            let month = match unit {
                "year" => 1,
                "quarter" => date.month0() / 3 * 3 + 1,
                _ => date.month(),
            };
            let first = NaiveDate::from_ymd_opt(date.year(), month, 1)?;
            Some(first.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    #[test]
    fn bins_count_from_their_origin() {
        let minutes = 15 * 60_000_000;
        assert_eq!(bin(us("0001-01-01T20:48:01.9Z"), minutes, 0), Some(us("0001-01-01T20:45:00Z")));
        assert_eq!(
            bin(us("2024-01-01T00:04:00Z"), minutes, us("2024-01-01T00:05:00Z")),
            Some(us("2023-12-31T23:50:00Z"))
        );
        assert_eq!(bin(i64::MIN, minutes, 1), None);
    }

    #[test]
    fn times_are_cut_in_every_year() {
        for (unit, time, cut) in [
            ("year", "2024-02-29T12:34:56.789012Z", "2024-01-01T00:00:00Z"),
            ("quarter", "2024-08-29T12:34:56Z", "2024-07-01T00:00:00Z"),
            ("month", "0001-03-31T23:59:59Z", "0001-03-01T00:00:00Z"),
            ("week", "2024-11-03T05:30:00Z", "2024-10-28T00:00:00Z"),
            ("week", "1969-12-31T23:59:59.999999Z", "1969-12-29T00:00:00Z"),
            ("day", "9999-12-31T23:59:59.999999Z", "9999-12-31T00:00:00Z"),
            ("hour", "1969-12-31T23:59:59.999999Z", "1969-12-31T23:00:00Z"),
            ("millisecond", "1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(truncated(unit, us(time)), Some(us(cut)), "{unit} of {time}");
        }
        assert_eq!(truncated("second", i64::MIN), None);
        assert_eq!(truncated("year", i64::MAX), None);
    }
}
