//! An aggregate as partial states that merge, and what finishes them.

use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    execution::session_state::SessionState,
    logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder},
};
use millstream_core::{Column, Role};

use crate::{
    above::{Finisher, View, finish, trace},
    error::{Result, SqlError, place_of},
    finite, hop,
    names::{Names, identifier},
    naming::AGGREGATE,
    states::{self, column},
    stored::stored,
};

pub(crate) struct Merged {
    /// Groups and partial states over a batch, in the table's columns.
    pub partial: LogicalPlan,
    pub columns: Vec<Column>,
    pub finisher: Finisher,
    pub view: Option<View>,
}

/// Splits `aggregate` into partial states over a batch, and what finishes them: the nodes `above` it, up to `root`.
pub(crate) async fn merge(
    state: &SessionState,
    aggregate: &Aggregate,
    above: &[LogicalPlan],
    root: &LogicalPlan,
    is_topic: &(dyn Fn(&str) -> bool + Sync),
    into: &str,
) -> Result<Merged> {
    let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
    if group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
        return Err(SqlError::new("GROUPING SETS, ROLLUP and CUBE are not supported: write one function per grouping"));
    }
    let outputs = trace(above, schema, root)?;
    // A group that is written twice is one column of the aggregate, shown under two names.
    let mut distinct: Vec<Expr> = Vec::with_capacity(group_expr.len());
    for group in group_expr {
        if !distinct.contains(group) {
            distinct.push(group.clone());
        }
    }
    if schema.fields().len() != distinct.len() + aggr_expr.len() {
        return Err(SqlError::new("internal: the aggregate has other columns than its expressions"));
    }
    let (rows, groups) = hop::unnest(input, &distinct)?;
    let groups = finite::in_groups(groups, rows.schema())?;
    let mut names = Names::default();
    let mut columns = Vec::new();
    let mut values = Vec::new();
    let mut finished = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let name = names.claim(&outputs.name_of(index).unwrap_or_else(|| format!("key_{}", index + 1)));
        let (_, field) = schema.qualified_field(index);
        let data_type = stored(field.data_type(), &name)?;
        columns.push(Column { name: name.clone(), data_type, nullable: field.is_nullable(), role: Role::Key });
        values.push(group.clone());
        finished.push(column(&name));
    }
    // Shown columns get their names first, then the states get theirs.
    let mut aggregates = Vec::with_capacity(aggr_expr.len());
    for (index, expr) in aggr_expr.iter().enumerate().map(|(index, expr)| (index + groups.len(), expr)) {
        let Expr::AggregateFunction(function) = expr.clone().unalias_nested().data else {
            return Err(SqlError::new("internal: not an aggregate function"));
        };
        let mut name = expr.schema_name().to_string();
        if name.contains("CAST(") {
            // This name says what the aggregate is of, without the cast.
            name = Expr::AggregateFunction(function.clone()).schema_name().to_string();
        }
        let base = names.claim(&outputs.name_of(index).unwrap_or_else(|| identifier(&name)));
        aggregates.push((index, function, base, place_of(expr)));
    }
    let mut direct = true;
    for (index, function, base, place) in aggregates {
        let (_, field) = schema.qualified_field(index);
        let lowered = states::lower(&function, input, is_topic, field.data_type(), &base, &mut names);
        let lowered = lowered.map_err(|error| error.at(place))?;
        direct &= lowered.direct;
        for state in lowered.states {
            let data_type = stored(&state.data_type, &state.name)?;
            columns.push(Column { name: state.name, data_type, nullable: true, role: Role::State(state.merge) });
            values.push(state.partial);
        }
        finished.push(lowered.finish);
    }
    let partial = partial_plan(rows, groups, &values, &columns)?;
    let plain = direct && outputs.is_whole();
    if plain {
        // The table is the result: its columns are in the order of the SELECT.
        let order = outputs.order();
        columns = order.iter().map(|index| columns[*index].clone()).collect();
    }
    let (finisher, view) = finish(state, above, root, &columns, finished, into, plain).await?;
    let project = columns.iter().map(|have| column(&have.name)).collect::<Vec<_>>();
    let partial = LogicalPlanBuilder::from(partial).project(project)?.build()?;
    Ok(Merged { partial, columns, finisher, view })
}

/// Aggregates `values` by `groups` and names the results after the columns.
fn partial_plan(input: LogicalPlan, groups: Vec<Expr>, values: &[Expr], columns: &[Column]) -> Result<LogicalPlan> {
    let mut aggregates: Vec<Expr> = Vec::new();
    for value in values {
        value.apply(|expr| {
            if matches!(expr, Expr::AggregateFunction(_)) {
                if !aggregates.contains(expr) {
                    aggregates.push(expr.clone());
                }
                return Ok(TreeNodeRecursion::Jump);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    let number_of_groups = groups.len();
    // Numbered names: two different aggregates may still be written in the same way.
    let named = aggregates.iter().enumerate().map(|(index, expr)| expr.clone().alias(format!("{AGGREGATE}{index}")));
    let groups = groups.into_iter().enumerate().map(|(index, group)| group.alias(format!("{AGGREGATE}key_{index}")));
    let plan = LogicalPlanBuilder::from(input).aggregate(groups, named)?.build()?;
    let outputs: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let mut exprs = Vec::with_capacity(values.len());
    for (index, (value, column)) in values.iter().zip(columns).enumerate() {
        let value = if index < number_of_groups {
            outputs[index].clone()
        } else {
            let replaced = value.clone().transform_up(|expr| {
                let index = aggregates.iter().position(|aggregate| *aggregate == expr);
                Ok(match index {
                    Some(index) => Transformed::yes(outputs[number_of_groups + index].clone()),
                    None => Transformed::no(expr),
                })
            });
            replaced?.data
        };
        exprs.push(value.alias(&column.name));
    }
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}
