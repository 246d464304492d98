//! Each aggregate as partial states that merge, and the expression that finishes them.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::DataType,
    common::{Column as PlanColumn, DFSchema},
    functions::math::expr_fn::sqrt,
    functions_aggregate::{
        average::avg_udaf,
        count::count_udaf,
        first_last,
        min_max::{max_udaf, min_udaf},
        sum::sum_udaf,
        variance::var_pop_udaf,
    },
    logical_expr::{AggregateUDF, Expr, ExprSchemable, cast, expr::AggregateFunction, expr::Sort, lit, when},
};
use millstream_core::{Merge, meta};

use crate::{
    error::{Result, SqlError},
    sketch,
};

/// A partial state of one aggregate.
pub struct State {
    /// Its column.
    pub name: String,
    pub data_type: DataType,
    pub merge: Merge,
    /// Its value over a batch: an expression with aggregate functions in it.
    pub partial: Expr,
}

/// An aggregate, lowered.
pub struct Lowered {
    pub states: Vec<State>,
    /// The aggregate's result from the states' columns.
    pub finish: Expr,
    /// Is the one state itself the result?
    pub direct: bool,
}

/// Lowers `aggregate`, whose states are named after `base`. `input` is what it aggregates over.
pub fn lower(aggregate: &AggregateFunction, input: &DFSchema, result: &DataType, base: &str) -> Result<Lowered> {
    let lowering = Lowering { aggregate, input, result, base };
    let name = aggregate.func.name();
    if aggregate.params.distinct && !matches!(name, "min" | "max" | "bool_and" | "bool_or") {
        return Err(SqlError::new(format!(
            "{name}(DISTINCT …) would need every value seen so far. Use approx_distinct(…), or GROUP BY the value and count \
             where the table is read"
        )));
    }
    if !aggregate.params.order_by.is_empty() && !matches!(name, "first_value" | "last_value") {
        return Err(SqlError::new(format!("ORDER BY inside {name}() has no meaning over a stream: leave it out")));
    }
    match name {
        "sum" => Ok(lowering.direct(Merge::Sum, lowering.exact_sum(result)?)),
        "count" => Ok(lowering.direct(Merge::Sum, Expr::AggregateFunction(aggregate.clone()))),
        "min" => Ok(lowering.direct(Merge::Min, Expr::AggregateFunction(aggregate.clone()))),
        "max" => Ok(lowering.direct(Merge::Max, Expr::AggregateFunction(aggregate.clone()))),
        "bool_and" => Ok(lowering.direct(Merge::And, Expr::AggregateFunction(aggregate.clone()))),
        "bool_or" => Ok(lowering.direct(Merge::Or, Expr::AggregateFunction(aggregate.clone()))),
        "avg" => lowering.average(),
        "var" | "var_pop" | "stddev" | "stddev_pop" => lowering.moments(name),
        "first_value" | "last_value" => lowering.by_order(name == "first_value"),
        "approx_distinct" => Ok(lowering.approx_distinct()),
        other => Err(SqlError::new(format!("{other}() can't be merged from batches. {}", instead_of(other)))),
    }
}

fn instead_of(name: &str) -> &'static str {
    match name {
        "median" | "percentile_cont" => {
            "An exact median needs every value: archive the events, or keep min, max, avg and stddev"
        }
        "array_agg" | "string_agg" => "It grows without bound: write the rows themselves into a table instead",
        "nth_value" | "any_value" => "Use first_value or last_value, which go by event time",
        _ => {
            "These can: sum, count, min, max, avg, stddev, stddev_pop, var, var_pop, first_value, last_value, bool_and, bool_or, \
             approx_distinct"
        }
    }
}

struct Lowering<'a> {
    aggregate: &'a AggregateFunction,
    input: &'a DFSchema,
    result: &'a DataType,
    base: &'a str,
}

impl Lowering<'_> {
    fn direct(&self, merge: Merge, partial: Expr) -> Lowered {
        let state = State { name: self.base.to_owned(), data_type: self.result.clone(), merge, partial };
        Lowered { finish: column(&state.name), states: vec![state], direct: true }
    }

    fn state(&self, suffix: &str, data_type: DataType, merge: Merge, partial: Expr) -> State {
        State { name: format!("{}_{suffix}", self.base), data_type, merge, partial }
    }

    fn argument(&self) -> Result<(Expr, DataType)> {
        let argument = self.aggregate.params.args.first().cloned();
        let argument =
            argument.ok_or_else(|| SqlError::new(format!("{}() needs an argument", self.aggregate.func.name())))?;
        let data_type = argument.get_type(self.input)?;
        Ok((argument, data_type))
    }

    /// `function(args)` with this aggregate's own FILTER.
    fn over(&self, function: Arc<AggregateUDF>, args: Vec<Expr>, order_by: Vec<Sort>) -> Expr {
        let filter = self.aggregate.params.filter.clone();
        Expr::AggregateFunction(AggregateFunction::new_udf(function, args, false, filter, order_by, None))
    }

    /// A sum that can't wrap within a batch and fails when it leaves `result`: integers and wide decimals are summed in
    /// a wider type. (A batch holds far fewer than 10^10 rows, which is what DataFusion's ten more digits are good for.)
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
            None => cast_if(self.over(sum_udaf(), vec![argument], Vec::new()), result, self.input)?,
        })
    }

    fn average(&self) -> Result<Lowered> {
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
        let (total, number) = (column(&sum.name), column(&count.name));
        let quotient = match self.result {
            DataType::Decimal128(_, scale) => {
                cast(total, DataType::Decimal128(38, *scale)) / cast(number.clone(), DataType::Decimal128(20, 0))
            }
            _ => cast(total, DataType::Float64) / cast(number.clone(), DataType::Float64),
        };
        let finish = when(number.gt(lit(0_i64)), cast(quotient, self.result.clone())).end()?;
        Ok(Lowered { states: vec![sum, count], finish, direct: false })
    }

    fn moments(&self, name: &str) -> Result<Lowered> {
        let number = cast(self.argument()?.0, DataType::Float64);
        let over = |function| self.over(function, vec![number.clone()], Vec::new());
        let count = self.state("count", DataType::Int64, Merge::Sum, over(count_udaf()));
        let mean = Merge::Mean { count: count.name.clone() };
        let mean = self.state("mean", DataType::Float64, mean, over(avg_udaf()));
        let merge = Merge::SquaredDifferences { count: count.name.clone(), mean: mean.name.clone() };
        let squared = over(var_pop_udaf()) * cast(over(count_udaf()), DataType::Float64);
        let squared = self.state("m2", DataType::Float64, merge, squared);

        let n = column(&count.name);
        let (at_least, divisor) = if name.ends_with("_pop") { (1_i64, n.clone()) } else { (2, n.clone() - lit(1_i64)) };
        let variance = column(&squared.name) / cast(divisor, DataType::Float64);
        let value = if name.starts_with("stddev") { sqrt(variance) } else { variance };
        let finish = when(n.gt_eq(lit(at_least)), value).end()?;
        Ok(Lowered { states: vec![count, mean, squared], finish, direct: false })
    }

    fn by_order(&self, first: bool) -> Result<Lowered> {
        if !self.aggregate.params.order_by.is_empty() {
            return Err(SqlError::new(
                "first_value and last_value go by event time, then position, here: leave ORDER BY out (and say with \
                 `event_time` in the topic which field that is)",
            ));
        }
        let mut orders = self.input.iter().filter(|(_, field)| field.name() == meta::ORDER);
        let (Some(order), None) = (orders.next(), orders.next()) else {
            return Err(SqlError::new(
                "first_value and last_value need the topic itself in FROM, not a subquery or a union",
            ));
        };
        let order = Expr::Column(PlanColumn::from(order));
        let (argument, data_type) = self.argument()?;
        let (value, best) = if first {
            (first_last::first_value_udaf(), min_udaf())
        } else {
            (first_last::last_value_udaf(), max_udaf())
        };
        let value = self.over(value, vec![argument], vec![order.clone().sort(true, true)]);
        let by = format!("{}_order", self.base);
        let (merge, bound) = if first {
            (Merge::First { order: by.clone() }, Merge::Min)
        } else {
            (Merge::Last { order: by.clone() }, Merge::Max)
        };
        let value = self.state("value", data_type, merge, value);
        let order = State {
            name: by,
            data_type: DataType::Binary,
            merge: bound,
            partial: self.over(best, vec![order], vec![]),
        };
        Ok(Lowered { finish: column(&value.name), states: vec![value, order], direct: false })
    }

    fn approx_distinct(&self) -> Lowered {
        let partial = self.over(Arc::new(sketch::sketch_udaf()), self.aggregate.params.args.clone(), Vec::new());
        let state = self.state("sketch", DataType::Binary, Merge::Sketch, partial);
        let finish = cast(sketch::estimate_udf().call(vec![column(&state.name)]), self.result.clone());
        Lowered { finish, states: vec![state], direct: false }
    }
}

/// A column by its exact name.
pub fn column(name: &str) -> Expr {
    Expr::Column(PlanColumn::new_unqualified(name))
}

fn cast_if(expr: Expr, to: &DataType, input: &DFSchema) -> Result<Expr> {
    Ok(if expr.get_type(input).is_ok_and(|have| &have == to) { expr } else { cast(expr, to.clone()) })
}
