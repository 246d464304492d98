//! `amount * 1.21` of a decimal is a decimal: a constant is as exact as it was written, and money stays exact.

use arrow::datatypes::DataType;
use datafusion::{
    common::{DFSchema, Result, ScalarValue, tree_node::TreeNode},
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, Operator, lit,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::BinaryOperator,
};

/// Turns a floating-point constant in arithmetic with a decimal into a decimal. Next to a double it stays a double.
#[derive(Debug)]
pub struct ExactConstants;

impl ExprPlanner for ExactConstants {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator::{Divide, Minus, Modulo, Multiply, Plus};
        if !matches!(expr.op, Plus | Minus | Multiply | Divide | Modulo) {
            return Ok(PlannerResult::Original(expr));
        }
        let RawBinaryExpr { op, left, right } = expr;
        let is_decimal = |expr: &Expr| matches!(expr.get_type(schema), Ok(DataType::Decimal128(..)));
        let (left, right) = match (is_decimal(&left), is_decimal(&right)) {
            (true, false) => (left, exact(right)),
            (false, true) => (exact(left), right),
            _ => (left, right),
        };
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

/// A floating-point constant as the decimal that was written; any other expression unchanged. Arithmetic on constants
/// is done in decimals: `0.1 + 0.2` is 0.3, as it would be on paper.
pub fn exact(expr: Expr) -> Expr {
    let decimal = Number::of(&expr).filter(|_| has_double(&expr)).and_then(Number::literal);
    decimal.map_or(expr, lit)
}

fn has_double(expr: &Expr) -> bool {
    // The closure returns no error, so the walk can't either.
    expr.exists(|part| Ok(matches!(part, Expr::Literal(ScalarValue::Float64(_), _)))).unwrap_or(false)
}

/// The most digits of a double that are those that were written, and of a constant to the left of its decimal point.
const WRITTEN_DIGITS: u32 = 15;
/// The most digits of a constant. With more of them, little room would be left for the decimal next to it.
const MAX_DIGITS: u32 = 20;

/// A constant exactly as it was written, or exact arithmetic on such constants: `unscaled / 10^scale`.
#[derive(Clone, Copy)]
struct Number {
    unscaled: i128,
    scale: i32,
}

const MINUS_ONE: Number = Number { unscaled: -1, scale: 0 };

impl Number {
    /// `None` if the expression is not constant, or has too many digits to be exact.
    fn of(expr: &Expr) -> Option<Self> {
        match expr {
            Expr::Literal(ScalarValue::Float64(Some(value)), _) => Self::written(*value),
            Expr::Literal(ScalarValue::Int64(Some(value)), _) => Some(Self { unscaled: (*value).into(), scale: 0 }),
            Expr::Negative(inner) => Self::of(inner)?.times(MINUS_ONE),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (left, right) = (Self::of(left)?, Self::of(right)?);
                match op {
                    Operator::Plus => left.plus(right),
                    Operator::Minus => left.plus(right.times(MINUS_ONE)?),
                    Operator::Multiply => left.times(right),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The shortest decimal that reads as this double. With up to fifteen digits it is the one that was written.
    fn written(value: f64) -> Option<Self> {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e')?;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let unscaled: i128 = format!("{whole}{fraction}").parse().ok()?;
        let scale = i32::try_from(fraction.len()).ok()? - exponent.parse::<i32>().ok()?;
        (digits_of(unscaled) <= WRITTEN_DIGITS).then_some(Self { unscaled, scale })
    }

    fn plus(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let unscaled = self.at(scale)?.checked_add(other.at(scale)?)?;
        Some(Self { unscaled, scale })
    }

    fn times(self, other: Self) -> Option<Self> {
        let unscaled = self.unscaled.checked_mul(other.unscaled)?;
        Some(Self { unscaled, scale: self.scale + other.scale })
    }

    /// The unscaled value at a scale that is not smaller.
    fn at(self, scale: i32) -> Option<i128> {
        let zeros = u32::try_from(scale - self.scale).ok()?;
        self.unscaled.checked_mul(10_i128.checked_pow(zeros)?)
    }

    /// `None` for more digits than a constant may have.
    fn literal(mut self) -> Option<ScalarValue> {
        while self.scale > 0 && self.unscaled % 10 == 0 {
            (self.unscaled, self.scale) = (self.unscaled / 10, self.scale - 1);
        }
        let scale = self.scale.max(0);
        let unscaled = self.at(scale)?;
        let precision = digits_of(unscaled).max(scale.unsigned_abs());
        let whole = digits_of(unscaled).saturating_sub(scale.unsigned_abs());
        let fits = precision <= MAX_DIGITS && whole <= WRITTEN_DIGITS;
        fits.then_some(ScalarValue::Decimal128(Some(unscaled), precision as u8, scale as i8))
    }
}

fn digits_of(unscaled: i128) -> u32 {
    unscaled.unsigned_abs().checked_ilog10().map_or(1, |log| log + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_is_as_exact_as_it_was_written() {
        for (value, unscaled, precision, scale) in [
            (1.21, 121, 3, 2),
            (0.908, 908, 3, 3),
            (-0.5, -5, 1, 1),
            (100.0, 100, 3, 0),
            (1e-3, 1, 3, 3),
            (0.0, 0, 1, 0),
        ] {
            assert_eq!(exact(lit(value)), lit(ScalarValue::Decimal128(Some(unscaled), precision, scale)), "{value}");
        }
        for value in [1e300, 1e-300, f64::NAN, f64::INFINITY, 0.123_456_789_012_345_67] {
            assert_eq!(exact(lit(value)).to_string(), lit(value).to_string());
        }
        assert_eq!(exact(lit(5_i64)), lit(5_i64));
        assert_eq!(exact(lit(1_i64) + lit(0.21)), lit(ScalarValue::Decimal128(Some(121), 3, 2)));
        assert_eq!(exact(lit(0.1) + lit(0.2)), lit(ScalarValue::Decimal128(Some(3), 1, 1)));
    }

    #[test]
    fn arithmetic_on_constants_keeps_every_digit() {
        let decimal = |unscaled, precision, scale| lit(ScalarValue::Decimal128(Some(unscaled), precision, scale));
        assert_eq!(exact(lit(2_i64) * lit(1e-18)), decimal(2, 18, 18));
        assert_eq!(exact(lit(1e-9) * lit(1e-9)), decimal(1, 18, 18));
        assert_eq!(exact(lit(1.5) * lit(1e-15)), decimal(15, 16, 16));
        assert_eq!(exact(lit(0.000_016_666_7) * lit(0.000_001)), decimal(166_667, 16, 16));
        assert_eq!(exact(lit(1e-20) * lit(3e18) - lit(0.01)), decimal(2, 2, 2));
        assert_eq!(exact(lit(2_i64) * lit(3_i64) * -lit(0.5)), decimal(-3, 1, 0));
        assert_eq!(exact(lit(0.123_456_789) * lit(0.123_456_789)), decimal(15_241_578_750_190_521, 18, 18));
        for many in [lit(1e-15) * lit(1e-15), lit(1e10) * lit(1e10), lit(1e300) * lit(1e300), lit(2_i64) * lit(3_i64)] {
            assert_eq!(exact(many.clone()), many);
        }
    }
}
