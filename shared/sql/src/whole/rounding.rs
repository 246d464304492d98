//! How much the order of the records may change a number that several of them make up.

use arrow::datatypes::DataType;
use datafusion::{
    common::tree_node::{TreeNode as _, TreeNodeRecursion},
    functions::{
        core::expr_fn::least,
        math::expr_fn::{abs, sqrt},
    },
    functions_aggregate::{count::count_udaf, min_max::max_udaf, sum::sum_udaf},
    logical_expr::{Expr, cast, expr::AggregateFunction, lit},
};

use super::aggregates::Query;
use crate::{
    above::{Op, Total},
    error::{Result, SqlError},
};

/// The most that rounding is taken to change a sum, as a part of the sum of sizes.
const MOST: f64 = 1e-9;

/// How large the expression of a rounding may be.
const MAX_NODES: usize = 2_000;

impl Query<'_> {
    /// How much the order of the records may change `value`, the result of `function` over doubles.
    ///
    /// A sum of n values is off by at most n · ε · Σ|x|, and a mean by the n-th part of it (Higham, Accuracy and Stability of
    /// Numerical Algorithms, 4.2). In practice it is far less, so that no more than a billionth is allowed: otherwise a doubled
    /// record would hide among many millions. (What differs by more is computed again in another order.) The squared values of a variance are differences d from the mean: if each is off by
    /// e = √n · ε · max|x|, the variance is off by 2 · e · √variance + e², and its root by e. Eight times as much is allowed,
    /// because variances are computed in several ways.
    pub(super) fn rounding(&mut self, function: &AggregateFunction, value: &Expr) -> Result<Expr> {
        let Some(argument) = function.params.args.first() else {
            return Err(SqlError::new("internal: an aggregate of doubles without an argument"));
        };
        let size = abs(cast(argument.clone(), DataType::Float64));
        let mut of = |udaf, argument| {
            let filter = function.params.filter.clone();
            let own = AggregateFunction::new_udf(udaf, vec![argument], false, filter, Vec::new(), None);
            cast(self.over(Expr::AggregateFunction(own)), DataType::Float64)
        };
        Ok(match function.func.name() {
            "sum" | "avg" => {
                let count = of(count_udaf(), argument.clone());
                let off = least(vec![count.clone() * lit(f64::EPSILON), lit(MOST)]) * of(sum_udaf(), size);
                if function.func.name() == "avg" { off / count } else { off }
            }
            name => {
                let off = sqrt(of(count_udaf(), argument.clone())) * lit(8.0 * f64::EPSILON) * of(max_udaf(), size);
                match name.starts_with("stddev") {
                    true => off,
                    false => off.clone() * (lit(2.0) * sqrt(abs(value.clone())) + off),
                }
            }
        })
    }
}

/// How much rounding may change an expression over the aggregate's columns: carried through its operations from the columns
/// whose rounding `of` knows; the others are exact. `None` where it can't be told.
pub(super) fn through(expr: &Expr, of: &dyn Fn(&str) -> Option<Expr>) -> Option<Expr> {
    let size = |expr: &Expr| abs(cast(expr.clone(), DataType::Float64));
    let last_place = || lit(f64::EPSILON) * size(expr);
    match expr {
        Expr::Column(column) => Some(of(&column.name).unwrap_or_else(exact)),
        Expr::Literal(..) => Some(exact()),
        Expr::Alias(alias) => through(&alias.expr, of),
        Expr::ScalarFunction(call) => {
            let operation = call.func.inner().downcast_ref::<Total>()?;
            let parts = call.args.iter().map(|arg| through(arg, of)).collect::<Option<Vec<_>>>()?;
            match (operation.op, &call.args[..], &parts[..]) {
                (Op::Negate | Op::Absolute | Op::Plain, _, [part]) => Some(part.clone()),
                (Op::Cast, _, [part]) if operation.result == DataType::Float64 => Some(part.clone()),
                (Op::Add | Op::Subtract, _, [left, right]) => {
                    Some(plus(plus(left.clone(), right.clone()), last_place()))
                }
                // (a ± left) · (b ± right)
                (Op::Multiply, [a, b], [left, right]) => {
                    let of_left = times(left.clone(), plus(right.clone(), size(b)));
                    Some(plus(plus(of_left, times(right.clone(), size(a))), last_place()))
                }
                (Op::Divide, [_, b], [left, right]) => {
                    let off = plus(times(right.clone(), size(expr)), left.clone());
                    let least = if is_exact(right) { size(b) } else { size(b) - right.clone() };
                    Some(plus(if is_exact(&off) { off } else { off / least }, last_place()))
                }
                _ => None,
            }
            .filter(is_small)
        }
        _ => None,
    }
}

fn exact() -> Expr {
    lit(0.0)
}

fn is_exact(rounding: &Expr) -> bool {
    *rounding == exact()
}

/// Nothing is added to an expression for what is exact: it would double with every operation.
fn plus(a: Expr, b: Expr) -> Expr {
    match (is_exact(&a), is_exact(&b)) {
        (true, _) => b,
        (_, true) => a,
        _ => a + b,
    }
}

fn times(rounding: Expr, size: Expr) -> Expr {
    if is_exact(&rounding) { rounding } else { rounding * size }
}

fn is_small(expr: &Expr) -> bool {
    let mut nodes = 0;
    let counted = expr.apply(|_| {
        nodes += 1;
        Ok(if nodes > MAX_NODES { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    counted.is_ok() && nodes <= MAX_NODES
}
