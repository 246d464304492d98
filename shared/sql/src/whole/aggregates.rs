//! The statement's own aggregates, over all rows at once.

use std::{collections::BTreeSet, sync::Arc};

use arrow::datatypes::DataType;
use datafusion::{
    execution::session_state::SessionState,
    functions_aggregate::{count::count_udaf, sum::sum_udaf},
    logical_expr::{
        Aggregate, AggregateUDF, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast, expr::AggregateFunction,
    },
};

use super::{Precision, WholeColumn, distinct, rounding};
use crate::{
    above::{Op, flatten, total},
    error::{Result, SqlError},
    extremes, finite, hop, order,
    states::{column, rows_may_share_a_record},
    stored::stored,
};

/// A statement with an aggregate.
pub(super) struct Plain {
    pub(super) plan: LogicalPlan,
    pub(super) columns: Vec<WholeColumn>,
    /// The places of the columns that show a group, each with the number of the group.
    pub(super) keys: Vec<(usize, usize)>,
}

/// The groups of an aggregate: one that is written twice is one column.
pub(super) fn groups_of(aggregate: &Aggregate) -> Vec<Expr> {
    let mut groups: Vec<Expr> = Vec::with_capacity(aggregate.group_expr.len());
    for group in &aggregate.group_expr {
        if !groups.contains(group) {
            groups.push(group.clone());
        }
    }
    groups
}

/// The name of a group's column, by its number.
pub(super) fn key_name(number: usize) -> String {
    format!("key_{number}")
}

/// The plan of the statement `root`: `aggregate` and the nodes `above` it. Behind the columns that readers see come those
/// that say how much rounding may change one of them.
pub(super) fn plain(
    state: &SessionState,
    aggregate: &Aggregate,
    above: &[LogicalPlan],
    root: &LogicalPlan,
    is_topic: &dyn Fn(&str) -> bool,
) -> Result<Plain> {
    let Aggregate { input, aggr_expr, schema, .. } = aggregate;
    let (rows, groups) = hop::unnest(input, &groups_of(aggregate))?;
    let groups = finite::in_groups(groups, rows.schema())?;
    let mut query = Query { input, is_topic, inner: Vec::new(), columns: Vec::new() };
    let mut keys = Vec::with_capacity(groups.len());
    for (index, group) in groups.into_iter().enumerate() {
        let name = key_name(index);
        keys.push(group.alias(&name));
        query.columns.push(Output { value: column(&name), name, precision: Precision::Key, rounding: None });
    }
    for (index, expr) in aggr_expr.iter().enumerate() {
        let Expr::AggregateFunction(function) = expr.clone().unalias_nested().data else {
            return Err(SqlError::new("internal: not an aggregate function"));
        };
        query.add(format!("value_{index}"), &function)?;
    }
    let Query { inner, columns, .. } = query;
    let keys_named: BTreeSet<String> = columns.iter().take(keys.len()).map(|column| column.name.clone()).collect();
    let aggregated = LogicalPlanBuilder::from(rows).aggregate(keys, inner)?;
    let values = columns.iter().zip(schema.fields()).map(|(column, field)| {
        Ok(cast(column.value.clone(), stored(field.data_type(), &column.name)?).alias(&column.name))
    });
    let roundings =
        columns.iter().filter_map(|column| Some(Ok(column.rounding.clone()?.alias(column.rounding_name()))));
    let aggregated = aggregated.project(values.chain(roundings).collect::<Result<Vec<_>>>()?)?.build()?;
    let finished = columns.iter().map(|own| column(&own.name)).collect();
    let keys = keys_named.iter().map(String::as_str).collect();
    let below = |name: &str| columns.iter().find(|column| column.name == name);
    let rounding_of =
        |name: &str| below(name).and_then(|own| own.rounding.as_ref().map(|_| column(&own.rounding_name())));
    let (plan, (columns, keys)) = flatten(state, (above, root), finished, aggregated, keys, &|shown| {
        let shown_groups = shown.iter().enumerate().filter_map(|(at, (_, _, expr))| {
            let Expr::Column(column) = expr else { return None };
            let number = columns.iter().position(|own| own.name == column.name)?;
            (columns[number].precision == Precision::Key).then_some((at, number))
        });
        let shown_groups = shown_groups.collect::<Vec<_>>();
        let mut further = Vec::new();
        let shown_columns = shown.iter().map(|(name, data_type, expr)| {
            let own = if let Expr::Column(column) = expr { below(&column.name) } else { None };
            let rounded = if *data_type == DataType::Float64 { Precision::Rounded } else { Precision::Exact };
            let precision = own.map_or(rounded, |own| own.precision);
            let rounding = Some(expr).filter(|_| precision == Precision::Rounded);
            let rounding = rounding.and_then(|expr| rounding::through(expr, &rounding_of)).map(|rounding| {
                let number = further.len();
                further.push(rounding.alias(format!("rounding_of_{number}")));
                shown.len() + number
            });
            WholeColumn { name: name.clone(), data_type: data_type.clone(), precision, rounding }
        });
        ((shown_columns.collect(), shown_groups), further)
    })?;
    Ok(Plain { plan, columns, keys })
}

/// A column of the aggregate.
struct Output {
    name: String,
    /// Its value from the columns of the query's aggregate.
    value: Expr,
    precision: Precision,
    /// How much rounding may change it.
    rounding: Option<Expr>,
}

impl Output {
    fn rounding_name(&self) -> String {
        format!("rounding_{}", self.name)
    }
}

/// The aggregate that is built.
pub(super) struct Query<'a> {
    input: &'a LogicalPlan,
    is_topic: &'a dyn Fn(&str) -> bool,
    inner: Vec<Expr>,
    columns: Vec<Output>,
}

impl Query<'_> {
    /// Adds an aggregate by the plain engine's own functions.
    fn add(&mut self, name: String, function: &AggregateFunction) -> Result<()> {
        let mut plain = function.clone();
        let argument = function.params.args.first().cloned();
        let mut finish: fn(Expr) -> Expr = |value| value;
        match (function.func.name(), argument) {
            ("first_value" | "last_value", Some(argument)) => {
                let mut by = vec![order::position(self.input, self.is_topic)?.sort(true, true)];
                if rows_may_share_a_record(self.input) {
                    // Of the rows of one record, the one with the greatest value counts as the last.
                    by.push(argument.sort(true, true));
                }
                plain.params.order_by = by;
            }
            // NaN is the greatest number, and one of many: the plain engine would let it hide the numbers before it.
            ("min" | "max", Some(argument)) if argument.get_type(self.input.schema())?.is_floating() => {
                plain.params.args = vec![extremes::ordinal(argument)];
                finish = extremes::of_ordinal;
            }
            ("approx_distinct", Some(_)) => {
                plain.func = Arc::new(AggregateUDF::new_from_impl(distinct::Distinct::default()));
            }
            _ => {}
        }
        let data_type = Expr::AggregateFunction(function.clone()).get_type(self.input.schema())?;
        let value = match (function.func.name(), &data_type) {
            // The plain engine divides in 128 bits, which a large sum with four more digits doesn't fit.
            ("avg", DataType::Decimal128(..)) => {
                let mut of = |udaf| {
                    let own = AggregateFunction { func: udaf, ..function.clone() };
                    self.over(Expr::AggregateFunction(own))
                };
                let parts = vec![of(sum_udaf()), of(count_udaf())];
                total(Op::Divide, parts, data_type.clone())
            }
            _ => finish(self.over(Expr::AggregateFunction(plain))),
        };
        let depends = matches!(function.func.name(), "sum" | "avg" | "stddev" | "stddev_pop" | "var" | "var_pop");
        let (precision, rounding) = if depends && data_type == DataType::Float64 {
            (Precision::Rounded, Some(self.rounding(function, &value)?))
        } else {
            (Precision::Exact, None)
        };
        self.columns.push(Output { name, value, precision, rounding });
        Ok(())
    }

    /// A column of the query's aggregate.
    pub(super) fn over(&mut self, expr: Expr) -> Expr {
        let name = format!("plain_{}", self.inner.len());
        self.inner.push(expr.alias(&name));
        column(&name)
    }
}
