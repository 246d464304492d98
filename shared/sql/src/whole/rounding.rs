//! How much the order of the records may change a number that several of them make up.

use arrow::datatypes::DataType;
use datafusion::{
    functions::math::expr_fn::{abs, sqrt},
    functions_aggregate::{count::count_udaf, min_max::max_udaf, sum::sum_udaf},
    logical_expr::{Expr, cast, expr::AggregateFunction, lit},
};

use super::aggregates::Query;
use crate::error::{Result, SqlError};

impl Query<'_> {
    /// How much the order of the records may change `value`, the result of `function` over doubles.
    ///
    /// A sum of n values is off by at most n · ε · Σ|x|, and a mean by the n-th part of it (Higham, Accuracy and Stability of
    /// Numerical Algorithms, 4.2). The squared values of a variance are differences d from the mean: if each is off by
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
            "sum" => of(count_udaf(), argument.clone()) * lit(f64::EPSILON) * of(sum_udaf(), size),
            "avg" => lit(f64::EPSILON) * of(sum_udaf(), size),
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
