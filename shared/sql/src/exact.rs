//! `amount * 1.21` of a decimal is a decimal: a constant is as exact as it was written, and money stays exact.

use arrow::datatypes::DataType;
use datafusion::{
    common::{DFSchema, Result, ScalarValue},
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

/// A floating-point constant as the decimal that was written; any other expression unchanged.
pub fn exact(expr: Expr) -> Expr {
    let Some(value) = constant(&expr) else { return expr };
    // The shortest decimal that reads as this double. With up to fifteen digits it is the one that was written.
    let digits = format!("{value}");
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    let unscaled: String = whole.chars().chain(fraction.chars()).collect();
    let (Ok(unscaled), Ok(scale)) = (unscaled.parse::<i128>(), i8::try_from(fraction.len())) else { return expr };
    let precision = unscaled.unsigned_abs().checked_ilog10().map_or(1, |log| log as u8 + 1).max(scale.unsigned_abs());
    if unscaled.unsigned_abs() >= 10_u128.pow(15) || precision > 20 {
        return expr;
    }
    lit(ScalarValue::Decimal128(Some(unscaled), precision, scale))
}

/// The value of a constant double: a literal, or arithmetic on literals and integers.
fn constant(expr: &Expr) -> Option<f64> {
    if let Expr::Literal(ScalarValue::Int64(_), _) = expr { None } else { number(expr) }
}

fn number(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Literal(ScalarValue::Float64(value), _) => *value,
        // Only integers that a double holds exactly.
        Expr::Literal(ScalarValue::Int64(Some(value)), _) => i32::try_from(*value).ok().map(f64::from),
        Expr::Negative(inner) => number(inner).map(|value| -value),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let doubles = [left, right].iter().any(|side| constant(side).is_some());
            let (left, right) = (number(left)?, number(right)?);
            let value = match op {
                Operator::Plus => left + right,
                Operator::Minus => left - right,
                Operator::Multiply => left * right,
                _ => return None,
            };
            // `0.1 + 0.2` is 0.3, as it would be on paper.
            doubles.then(|| format!("{value:.15}").parse().unwrap_or(value))
        }
        _ => None,
    }
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
}
