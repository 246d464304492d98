//! The operations that may stand above an aggregate, made total: a result that can't be computed (a division by zero,
//! an overflow, a value that the wanted type can't hold) is NULL for that group, and no group affects its neighbours.
//! `postgres.rs` has the same operations in SQL, one by one: change both together.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Decimal128Array, Float32Array, Float64Array},
    compute::{CastOptions, cast, cast_with_options},
    datatypes::{DataType, Decimal128Type, DecimalType, Float32Type, Float64Type, TimestampMicrosecondType, i256},
};
use datafusion::{
    common::{Result, exec_datafusion_err, internal_err},
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

/// Products and quotients of doubles beyond this are NULL. PostgreSQL fails where IEEE 754 answers infinity, so both
/// stay below that, with the same comparisons.
pub const MAX_DOUBLE: f64 = 1e300;
/// Products and quotients of doubles nearer to zero than this are zero: PostgreSQL fails where they would underflow.
pub const MIN_DOUBLE: f64 = 1e-300;
/// Sums of doubles beyond this are NULL.
pub const MAX_ADDEND: f64 = 8e307;
/// A timestamp lies in the years 1 to 9999, like those that are read.
pub const INSTANTS_US: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// Doubles beyond this become NULL as decimals or integers: those would show more digits than the double has.
pub const MAX_EXACT: f64 = 9e18;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Negate,
    Absolute,
    Floor,
    Ceil,
    /// Rounds towards zero, to this many digits after the decimal point.
    Truncate(i8),
    /// Rounds half away from zero, to this many digits after the decimal point.
    Round(i8),
    SquareRoot,
    /// Casts to the type of the result.
    Cast,
    /// Moves a timestamp by this many microseconds.
    Shift(i64),
    /// A double with `0.0` for `-0.0`, which equals zero in one store and not in the other.
    Plain,
    /// A timestamp in seconds since 1970: its whole microseconds as a double, divided by a million.
    Epoch,
}

/// `op` over `args`, with the result type that the planner chose.
pub fn total(op: Op, args: Vec<Expr>, result: DataType) -> Expr {
    let signature = Signature::any(args.len(), Volatility::Immutable);
    ScalarUDF::new_from_impl(Total { op, result, signature }).call(args)
}

/// An [`Op`] as a function that the planner can call.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Total {
    pub op: Op,
    pub result: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Total {
    fn name(&self) -> &str {
        match self.op {
            Op::Add => "__add",
            Op::Subtract => "__subtract",
            Op::Multiply => "__multiply",
            Op::Divide => "__divide",
            Op::Remainder => "__remainder",
            Op::Negate => "__negate",
            Op::Absolute => "__absolute",
            Op::Floor => "__floor",
            Op::Ceil => "__ceil",
            Op::Truncate(_) => "__truncate",
            Op::Round(_) => "__round",
            Op::SquareRoot => "__square_root",
            Op::Cast => "__cast",
            Op::Shift(_) => "__shift",
            Op::Plain => "__plain",
            Op::Epoch => "__epoch",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.result.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let args = ColumnarValue::values_to_arrays(&args.args)?;
        let result: ArrayRef = match self.op {
            Op::Shift(by_us) => {
                let times = args[0].as_primitive::<TimestampMicrosecondType>();
                let bounds = shiftable(by_us);
                let moved =
                    times.unary_opt::<_, TimestampMicrosecondType>(|time| bounds.contains(&time).then(|| time + by_us));
                Arc::new(moved.with_timezone("UTC"))
            }
            Op::Plain => plain(&args[0])?,
            Op::Epoch => {
                let times = args[0].as_primitive::<TimestampMicrosecondType>();
                Arc::new(times.unary::<_, Float64Type>(|time| time as f64 / 1e6))
            }
            Op::Cast if !(args[0].data_type().is_numeric() && self.result.is_numeric()) => {
                let safe = CastOptions { safe: true, ..CastOptions::default() };
                let cast = cast_with_options(&args[0], &self.result, &safe)?;
                match cast.as_primitive_opt::<TimestampMicrosecondType>() {
                    Some(times) => {
                        let known = |time| INSTANTS_US.contains(&time).then_some(time);
                        let times = times.unary_opt::<_, TimestampMicrosecondType>(known);
                        Arc::new(times.with_timezone("UTC")) as ArrayRef
                    }
                    None => cast,
                }
            }
            op => {
                let args = args.iter().map(numbers).collect::<Result<Vec<_>>>()?;
                let rows = args.first().map_or(0, Vec::len);
                let form = Form::of(&self.result);
                let compute = |row: usize| {
                    let args = args.iter().map(|column| column[row]).collect::<Option<Vec<_>>>()?;
                    compute(op, &args, form)
                };
                array((0..rows).map(compute), &self.result)?
            }
        };
        Ok(ColumnarValue::Array(result))
    }
}

/// Every NaN becomes the same value, and so does every zero.
fn plain(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::Float64 => {
            let one = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        DataType::Float32 => {
            let one = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        other => return internal_err!("{other} is not a double"),
    })
}

/// A number with all its digits: integers have scale 0.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Exact { digits: i256, scale: i8 },
    Double(f64),
}

use Number::{Double, Exact};

/// Every value of a numeric column.
fn numbers(column: &ArrayRef) -> Result<Vec<Option<Number>>> {
    Ok(match column.data_type() {
        DataType::Float32 | DataType::Float64 => cast(column, &DataType::Float64)?
            .as_primitive::<Float64Type>()
            .iter()
            .map(|value| value.map(Double))
            .collect(),
        DataType::Decimal128(_, scale) => {
            let exact = |digits| Exact { digits: i256::from_i128(digits), scale: *scale };
            column.as_primitive::<Decimal128Type>().iter().map(|value| value.map(exact)).collect()
        }
        integer if integer.is_integer() => {
            let exact = |digits| Exact { digits: i256::from_i128(digits), scale: 0 };
            let wide = cast(column, &DataType::Decimal128(38, 0))?;
            wide.as_primitive::<Decimal128Type>().iter().map(|value| value.map(exact)).collect()
        }
        other => return internal_err!("{other} is not a number"),
    })
}

/// The form of a result.
#[derive(Clone, Copy)]
enum Form {
    Integer,
    Decimal { scale: i8 },
    Double,
}

impl Form {
    fn of(result: &DataType) -> Self {
        match result {
            DataType::Decimal128(_, scale) => Self::Decimal { scale: *scale },
            integer if integer.is_integer() => Self::Integer,
            _ => Self::Double,
        }
    }

    fn scale(self) -> i8 {
        if let Self::Decimal { scale } = self { scale } else { 0 }
    }
}

/// The numbers as a column; NULL where the type can't hold the number.
fn array(values: impl Iterator<Item = Option<Number>>, result: &DataType) -> Result<ArrayRef> {
    let doubles = |values: &mut dyn Iterator<Item = Option<Number>>| -> Vec<Option<f64>> {
        values
            .map(|value| value.and_then(|value| if let Double(value) = value { Some(value + 0.0) } else { None }))
            .collect()
    };
    let mut values = values;
    Ok(match result {
        DataType::Float64 => Arc::new(Float64Array::from(doubles(&mut values))),
        DataType::Float32 => {
            // A value that a real can't tell from zero is zero.
            let narrow = |value: f64| match value.abs() {
                near if near < 1e-37 => Some(0.0),
                far if far <= f64::from(f32::MAX) => Some(value as f32),
                _ => None,
            };
            Arc::new(Float32Array::from_iter(doubles(&mut values).into_iter().map(|value| value.and_then(narrow))))
        }
        DataType::Decimal128(precision, scale) => {
            let digits = values.map(|value| digits(value?, *precision));
            Arc::new(Decimal128Array::from_iter(digits).with_precision_and_scale(*precision, *scale)?)
        }
        integer if integer.is_integer() => {
            let digits = Decimal128Array::from_iter(values.map(|value| digits(value?, 38)));
            let digits: ArrayRef = Arc::new(digits.with_precision_and_scale(38, 0)?);
            cast_with_options(&digits, integer, &CastOptions { safe: true, ..CastOptions::default() })?
        }
        other => return Err(exec_datafusion_err!("{other} is not a number")),
    })
}

fn digits(value: Number, precision: u8) -> Option<i128> {
    let Exact { digits, .. } = value else { return None };
    digits.to_i128().filter(|digits| Decimal128Type::is_valid_decimal_precision(*digits, precision))
}

fn compute(op: Op, args: &[Number], form: Form) -> Option<Number> {
    match (op, args, form) {
        (Op::Cast, [value], _) => convert(*value, form),
        (op, [Double(a), Double(b)], Form::Double) => binary_double(op, *a, *b).map(Double),
        (op, [Double(a)], Form::Double) => unary_double(op, *a).map(Double),
        (op, [Exact { digits: a, scale: s }, Exact { digits: b, scale: t }], Form::Integer | Form::Decimal { .. }) => {
            let digits = binary_exact(op, (*a, *s), (*b, *t), form.scale())?;
            Some(Exact { digits, scale: form.scale() })
        }
        (op, [Exact { digits, scale: from }], Form::Integer | Form::Decimal { .. }) => {
            Some(Exact { digits: unary_exact(op, *digits, *from, form.scale())?, scale: form.scale() })
        }
        _ => None,
    }
}

fn finite(value: f64) -> bool {
    value.abs() <= f64::MAX
}

fn binary_double(op: Op, a: f64, b: f64) -> Option<f64> {
    if !finite(a) || !finite(b) {
        return None;
    }
    match op {
        Op::Add | Op::Subtract => {
            let near = a.abs() <= MAX_ADDEND && b.abs() <= MAX_ADDEND;
            near.then(|| if op == Op::Add { a + b } else { a - b })
        }
        Op::Multiply if a == 0.0 || b == 0.0 => Some(0.0),
        Op::Multiply if b.abs() >= 1.0 => (a.abs() <= MAX_DOUBLE / b.abs()).then_some(a * b),
        Op::Multiply => Some(if a.abs() >= MIN_DOUBLE / b.abs() { a * b } else { 0.0 }),
        Op::Divide if b == 0.0 => None,
        Op::Divide if b.abs() >= 1.0 => Some(if a.abs() >= MIN_DOUBLE * b.abs() { a / b } else { 0.0 }),
        Op::Divide => (a.abs() <= MAX_DOUBLE * b.abs()).then_some(a / b),
        _ => None,
    }
}

fn unary_double(op: Op, a: f64) -> Option<f64> {
    if !finite(a) {
        return None;
    }
    match op {
        Op::Negate => Some(-a),
        Op::Absolute => Some(a.abs()),
        Op::Floor => Some(a.floor()),
        Op::Ceil => Some(a.ceil()),
        Op::SquareRoot => (a >= 0.0).then(|| a.sqrt()),
        // Doubles of this size have no digits after the decimal point.
        Op::Round(_) | Op::Truncate(_) if a.abs() >= MAX_EXACT => Some(a),
        Op::Round(_) | Op::Truncate(_) if a.abs() < MIN_DOUBLE => Some(0.0),
        Op::Round(places) => Some(scaled(a, places, f64::round)),
        Op::Truncate(places) => Some(scaled(a, places, f64::trunc)),
        _ => None,
    }
}

fn scaled(a: f64, places: i8, round: impl Fn(f64) -> f64) -> f64 {
    let factor = power_of_ten(places.unsigned_abs());
    match places.cmp(&0) {
        Ordering::Less => round(a / factor) * factor,
        Ordering::Equal => round(a),
        Ordering::Greater => round(a * factor) / factor,
    }
}

/// The double that is nearest to a power of ten.
fn power_of_ten(exponent: u8) -> f64 {
    // The text is a number by construction.
    format!("1e{exponent}").parse().unwrap_or(f64::NAN)
}

fn ten_to(exponent: i8) -> Option<i256> {
    i256::from_i128(10).checked_pow(u32::try_from(exponent).ok()?)
}

fn binary_exact(op: Op, (a, s): (i256, i8), (b, t): (i256, i8), scale: i8) -> Option<i256> {
    if op == Op::Divide {
        return divide(a, b, scale - s + t);
    }
    if op == Op::Multiply {
        let product = a.checked_mul(b)?;
        return if scale >= s + t {
            product.checked_mul(ten_to(scale - s - t)?)
        } else {
            product.checked_div(ten_to(s + t - scale)?)
        };
    }
    let (a, b) = (a.checked_mul(ten_to(scale - s)?)?, b.checked_mul(ten_to(scale - t)?)?);
    match op {
        Op::Add => a.checked_add(b),
        Op::Subtract => a.checked_sub(b),
        Op::Remainder => a.checked_rem(b),
        _ => None,
    }
}

/// `a / b` with `more_digits` more digits, cut. It adds one digit at a time, so that no step can overflow.
fn divide(a: i256, b: i256, more_digits: i8) -> Option<i256> {
    if b == i256::ZERO {
        return None;
    }
    if more_digits < 0 {
        return a.checked_div(b.checked_mul(ten_to(-more_digits)?)?);
    }
    let ten = i256::from_i128(10);
    let (mut quotient, mut rest) = (a.checked_div(b)?, a.checked_rem(b)?);
    for _ in 0..more_digits {
        rest = rest.checked_mul(ten)?;
        quotient = quotient.checked_mul(ten)?.checked_add(rest.checked_div(b)?)?;
        rest = rest.checked_rem(b)?;
    }
    Some(quotient)
}

fn unary_exact(op: Op, a: i256, from: i8, scale: i8) -> Option<i256> {
    match op {
        Op::Negate => i256::ZERO.checked_sub(a),
        Op::Absolute => Some(if a < i256::ZERO { i256::ZERO.checked_sub(a)? } else { a }),
        Op::Floor | Op::Ceil => {
            let unit = ten_to(from)?;
            let cut = a.checked_div(unit)?.checked_mul(unit)?;
            let step = if op == Op::Floor && cut > a {
                i256::ZERO.checked_sub(unit)?
            } else if op == Op::Ceil && cut < a {
                unit
            } else {
                i256::ZERO
            };
            rescale(cut.checked_add(step)?, from, scale, false)
        }
        Op::Round(places) | Op::Truncate(places) => {
            let half = matches!(op, Op::Round(_));
            let short = if places < from { rescale(a, from, places, half)? } else { a };
            rescale(short, places.min(from), scale, false)
        }
        _ => None,
    }
}

/// The same number with another scale: cut, or rounded half away from zero.
fn rescale(a: i256, from: i8, to: i8, half: bool) -> Option<i256> {
    if to >= from {
        return a.checked_mul(ten_to(to - from)?);
    }
    let unit = ten_to(from - to)?;
    let (quotient, rest) = (a.checked_div(unit)?, a.checked_rem(unit)?);
    let away = half && rest.wrapping_abs().checked_mul(i256::from_i128(2))? >= unit;
    let one = if a < i256::ZERO { i256::MINUS_ONE } else { i256::ONE };
    if away { quotient.checked_add(one) } else { Some(quotient) }
}

/// Integers are cut, decimals rounded half away from zero.
fn convert(value: Number, form: Form) -> Option<Number> {
    Some(match (value, form) {
        (Double(_), Form::Double) => value,
        // As arrow does it: convert the digits first, then scale.
        (Exact { digits, scale }, Form::Double) => {
            Double(digits.to_i128()? as f64 / power_of_ten(scale.unsigned_abs()))
        }
        (Double(value), _) if value.abs() < MAX_EXACT => {
            let moved = value * power_of_ten(form.scale().unsigned_abs());
            let whole = if matches!(form, Form::Integer) { moved.trunc() } else { moved.round() };
            let digits = (whole.abs() < MAX_EXACT).then_some(whole as i128)?;
            Exact { digits: i256::from_i128(digits), scale: form.scale() }
        }
        (Double(_), _) => return None,
        (Exact { digits, scale: from }, _) => {
            let half = !matches!(form, Form::Integer);
            Exact { digits: rescale(digits, from, form.scale(), half)?, scale: form.scale() }
        }
    })
}

/// The times that stay within [`INSTANTS_US`] when they are moved by `by_us` microseconds.
pub fn shiftable(by_us: i64) -> std::ops::RangeInclusive<i64> {
    let (low, high) = (*INSTANTS_US.start(), *INSTANTS_US.end());
    low.max(low.saturating_sub(by_us))..=high.min(high.saturating_sub(by_us))
}
