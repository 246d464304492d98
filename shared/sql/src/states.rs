//! Each aggregate as partial states that merge, and the expression that computes the result from them.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::DataType,
    common::{Column as PlanColumn, DFSchema, tree_node::TreeNode},
    functions::math::expr_fn::sqrt,
    functions_aggregate::{
        average::avg_udaf,
        count::count_udaf,
        first_last,
        min_max::{max_udaf, min_udaf},
        sum::sum_udaf,
        variance::var_pop_udaf,
    },
    logical_expr::{
        AggregateUDF, Expr, ExprSchemable, LogicalPlan, cast,
        expr::{AggregateFunction, NullTreatment, Sort},
        lit, when,
    },
};
use millstream_core::Merge;

use crate::{
    above::{Op, total},
    error::{Result, SqlError},
    extremes,
    names::Names,
    order, sketch,
};

/// A partial state of one aggregate.
pub struct State {
    /// Its column.
    pub name: String,
    pub data_type: DataType,
    pub merge: Merge,
    /// Its value over a batch: an expression over aggregate functions.
    pub partial: Expr,
}

/// An aggregate, lowered.
pub struct Lowered {
    pub states: Vec<State>,
    /// The aggregate's result from the states' columns.
    pub finish: Expr,
    /// Is there one state, which is itself the result?
    pub direct: bool,
}

/// Lowers `aggregate`. Its states are named after `base`, which is already taken in `names`. `input` is the plan that
/// it aggregates; `is_topic` tells which tables are topics.
pub fn lower(
    aggregate: &AggregateFunction,
    input: &LogicalPlan,
    is_topic: &dyn Fn(&str) -> bool,
    result: &DataType,
    base: &str,
    names: &mut Names,
) -> Result<Lowered> {
    let lowering = Lowering { aggregate, input, is_topic, result, base, names };
    let name = aggregate.func.name();
    if !MERGEABLE.contains(&name) {
        return Err(SqlError::new(format!("{name}() can't be merged from batches. {}", instead_of(name))));
    }
    if aggregate.params.distinct && !matches!(name, "min" | "max" | "bool_and" | "bool_or") {
        let instead = match name {
            "count" => "Use approx_distinct(…), or GROUP BY the value and count where the table is read",
            _ => "GROUP BY the value, and compute the rest where the table is read",
        };
        return Err(SqlError::new(format!("{name}(DISTINCT …) would need every value seen so far. {instead}")));
    }
    if !aggregate.params.order_by.is_empty() && !matches!(name, "first_value" | "last_value") {
        return Err(SqlError::new(format!("ORDER BY inside {name}() means nothing over a stream: leave it out")));
    }
    match name {
        "sum" => Ok(lowering.direct(Merge::Sum, lowering.exact_sum(result)?)),
        "count" => Ok(lowering.direct(Merge::Sum, Expr::AggregateFunction(aggregate.clone()))),
        "min" => lowering.bound(Merge::Min),
        "max" => lowering.bound(Merge::Max),
        "bool_and" => Ok(lowering.direct(Merge::And, Expr::AggregateFunction(aggregate.clone()))),
        "bool_or" => Ok(lowering.direct(Merge::Or, Expr::AggregateFunction(aggregate.clone()))),
        "avg" => lowering.average(),
        "var" | "var_pop" | "stddev" | "stddev_pop" => lowering.moments(name),
        "first_value" | "last_value" => lowering.by_order(name == "first_value"),
        "approx_distinct" => Ok(lowering.approx_distinct()),
        other => Err(SqlError::new(format!("{other}() can't be merged from batches"))),
    }
}

/// The aggregates that can be merged.
const MERGEABLE: [&str; 14] = [
    "sum",
    "count",
    "min",
    "max",
    "avg",
    "var",
    "var_pop",
    "stddev",
    "stddev_pop",
    "first_value",
    "last_value",
    "bool_and",
    "bool_or",
    "approx_distinct",
];

fn instead_of(name: &str) -> &'static str {
    match name {
        "median"
        | "percentile_cont"
        | "approx_percentile_cont"
        | "approx_percentile_cont_with_weight"
        | "approx_median" => {
            "A median or percentile needs every value: archive the events, or keep min, max, avg and stddev, or count the values \
             by range, as in count(*) FILTER (WHERE x < 10)"
        }
        "array_agg" | "string_agg" => "It grows without bound: write the rows themselves into a table instead",
        "nth_value" | "any_value" => "Use first_value or last_value, which order by event time",
        _ => {
            "These can: sum, count, min, max, avg, stddev, stddev_pop, var, var_pop, first_value, last_value, bool_and, bool_or, \
             approx_distinct"
        }
    }
}

struct Lowering<'a> {
    aggregate: &'a AggregateFunction,
    input: &'a LogicalPlan,
    is_topic: &'a dyn Fn(&str) -> bool,
    result: &'a DataType,
    base: &'a str,
    names: &'a mut Names,
}

impl Lowering<'_> {
    fn direct(&self, merge: Merge, partial: Expr) -> Lowered {
        let state = State { name: self.base.to_owned(), data_type: self.result.clone(), merge, partial };
        Lowered { finish: column(&state.name), states: vec![state], direct: true }
    }

    fn state(&mut self, suffix: &str, data_type: DataType, merge: Merge, partial: Expr) -> State {
        State { name: self.names.of_state(self.base, suffix), data_type, merge, partial }
    }

    /// `min` or `max`. Objects and lists are refused: stores order them differently.
    fn bound(&self, merge: Merge) -> Result<Lowered> {
        let (argument, data_type) = self.argument()?;
        if data_type.is_nested() {
            let name = self.aggregate.func.name();
            return Err(SqlError::new(format!(
                "{name}() of {} depends on the store, as stores order it differently: take {name}() of one of its \
                 fields, or last_value(…) for the newest one",
                if data_type.is_list() { "a list" } else { "an object" }
            )));
        }
        if matches!(data_type, DataType::Float32 | DataType::Float64) {
            let best = self.over(Arc::clone(&self.aggregate.func), vec![extremes::ordinal(argument)], Vec::new());
            return Ok(self.direct(merge, extremes::of_ordinal(best)));
        }
        Ok(self.direct(merge, Expr::AggregateFunction(self.aggregate.clone())))
    }

    fn argument(&self) -> Result<(Expr, DataType)> {
        let argument = self.aggregate.params.args.first().cloned();
        let argument =
            argument.ok_or_else(|| SqlError::new(format!("{}() needs an argument", self.aggregate.func.name())))?;
        let data_type = argument.get_type(self.input.schema())?;
        Ok((argument, data_type))
    }

    /// `function(args)` with this aggregate's own FILTER.
    fn over(&self, function: Arc<AggregateUDF>, args: Vec<Expr>, order_by: Vec<Sort>) -> Expr {
        let filter = self.aggregate.params.filter.clone();
        Expr::AggregateFunction(AggregateFunction::new_udf(function, args, false, filter, order_by, None))
    }

    /// A sum that can't wrap within a batch, and fails if it doesn't fit `result`: integers and wide decimals are
    /// summed in a wider type. (DataFusion adds ten digits, enough for 10^10 rows; a batch has far fewer.)
    fn exact_sum(&self, result: &DataType) -> Result<Expr> {
        let (argument, data_type) = self.argument()?;
        let wide = match data_type {
            ref integer if integer.is_integer() => Some(DataType::Decimal128(38, 0)),
            DataType::Decimal128(precision, scale) if precision > 28 => Some(DataType::Decimal256(76, scale)),
            DataType::Decimal256(..) => {
                return Err(SqlError::new("sums of more than 38 digits are not supported: cast to decimal(38, s)"));
            }
            _ => None,
        };
        Ok(match wide {
            Some(wide) => cast(self.over(sum_udaf(), vec![cast(argument, wide)], Vec::new()), result.clone()),
            None => cast_if(self.over(sum_udaf(), vec![argument], Vec::new()), result, self.input.schema())?,
        })
    }

    fn average(mut self) -> Result<Lowered> {
        let (argument, data_type) = self.argument()?;
        let sum_type = match data_type {
            ref integer if integer.is_integer() => DataType::Decimal128(38, 0),
            DataType::Decimal128(precision, scale) => DataType::Decimal128((precision + 10).min(38), scale),
            _ => DataType::Float64,
        };
        let sum = if sum_type == DataType::Float64 {
            self.over(sum_udaf(), vec![cast(argument.clone(), DataType::Float64)], Vec::new())
        } else {
            self.exact_sum(&sum_type)?
        };
        let sum = self.state("sum", sum_type.clone(), Merge::Sum, sum);
        let count =
            self.state("count", DataType::Int64, Merge::Sum, self.over(count_udaf(), vec![argument], Vec::new()));
        let (all, number) = (column(&sum.name), column(&count.name));
        let finish = match self.result {
            DataType::Decimal128(..) => total(Op::Divide, vec![all, number], self.result.clone()),
            _ => {
                let quotient = cast(all, DataType::Float64) / cast(number, DataType::Float64);
                cast(quotient, self.result.clone())
            }
        };
        Ok(Lowered { states: vec![sum, count], finish, direct: false })
    }

    fn moments(mut self, name: &str) -> Result<Lowered> {
        let number = cast(self.argument()?.0, DataType::Float64);
        let over = |function| self.over(function, vec![number.clone()], Vec::new());
        let (counted, average, variance) = (over(count_udaf()), over(avg_udaf()), over(var_pop_udaf()));
        let squared = variance * cast(counted.clone(), DataType::Float64);
        let count = self.state("count", DataType::Int64, Merge::Sum, counted);
        let mean = Merge::Mean { count: count.name.clone() };
        let mean = self.state("mean", DataType::Float64, mean, average);
        let merge = Merge::SquaredDifferences { count: count.name.clone(), mean: mean.name.clone() };
        let squared = self.state("m2", DataType::Float64, merge, squared);

        let n = column(&count.name);
        let (at_least, divisor) = if name.ends_with("_pop") { (1_i64, n.clone()) } else { (2, n.clone() - lit(1_i64)) };
        let variance = column(&squared.name) / cast(divisor, DataType::Float64);
        let value = if name.starts_with("stddev") { sqrt(variance) } else { variance };
        let finish = when(n.gt_eq(lit(at_least)), value).end()?;
        Ok(Lowered { states: vec![count, mean, squared], finish, direct: false })
    }

    fn by_order(mut self, first: bool) -> Result<Lowered> {
        if !self.aggregate.params.order_by.is_empty() {
            return Err(SqlError::new(
                "first_value and last_value order by event time, then position: leave ORDER BY out (and name the field \
                 of the event time with the topic's `event_time`)",
            ));
        }
        let order = order::position(self.input, self.is_topic)?;
        let (argument, data_type) = self.argument()?;
        let (value, best) = if first {
            (first_last::first_value_udaf(), min_udaf())
        } else {
            (first_last::last_value_udaf(), max_udaf())
        };
        let mut by = vec![order.clone().sort(true, true)];
        if rows_may_share_a_record(self.input) {
            // All rows of a record are in one batch, but in no fixed order: sorting by value fixes it.
            by.push(argument.clone().sort(true, true));
        }
        let mut filter = self.aggregate.params.filter.clone().map(|filter| *filter);
        if self.aggregate.params.null_treatment == Some(NullTreatment::IgnoreNulls) {
            let known = argument.clone().is_not_null();
            filter = Some(filter.into_iter().fold(known, Expr::and));
        }
        let over = |function, argument, by| {
            let filter = filter.clone().map(Box::new);
            Expr::AggregateFunction(AggregateFunction::new_udf(function, vec![argument], false, filter, by, None))
        };
        let value = over(value, argument, by);
        let bound = over(best, order, Vec::new());
        let bound = self.state("order", DataType::Binary, if first { Merge::Min } else { Merge::Max }, bound);
        let order = bound.name.clone();
        let merge = if first { Merge::First { order } } else { Merge::Last { order } };
        let value = self.state("value", data_type, merge, value);
        Ok(Lowered { finish: column(&value.name), states: vec![value, bound], direct: false })
    }

    fn approx_distinct(mut self) -> Lowered {
        let partial = self.over(Arc::new(sketch::sketch_udaf()), self.aggregate.params.args.clone(), Vec::new());
        let state = self.state("sketch", DataType::Binary, Merge::Sketch, partial);
        let finish = cast(sketch::estimate_udf().call(vec![column(&state.name)]), self.result.clone());
        Lowered { finish, states: vec![state], direct: false }
    }
}

/// Can one record become several rows with the same position?
pub fn rows_may_share_a_record(input: &LogicalPlan) -> bool {
    let several =
        |node: &LogicalPlan| Ok(matches!(node, LogicalPlan::Unnest(_) | LogicalPlan::Join(_) | LogicalPlan::Union(_)));
    // The closure returns no error, so the walk can't either.
    input.exists(several).unwrap_or(true)
}

/// A column by its exact name.
pub fn column(name: &str) -> Expr {
    Expr::Column(PlanColumn::new_unqualified(name))
}

fn cast_if(expr: Expr, to: &DataType, input: &DFSchema) -> Result<Expr> {
    Ok(if expr.get_type(input).is_ok_and(|have| &have == to) { expr } else { cast(expr, to.clone()) })
}
