//! The position of each row's record: the column `_order` of the topic. No other column may be used in its place.

use datafusion::{
    common::Column as PlanColumn,
    logical_expr::{Expr, LogicalPlan},
};
use millstream_core::meta;

use crate::error::{Result, SqlError};

/// The column of `input` that holds the position of each row's record.
pub fn position(input: &LogicalPlan, is_topic: &dyn Fn(&str) -> bool) -> Result<Expr> {
    let columns = input.schema().columns();
    let mut named = columns.into_iter().enumerate().filter(|(_, column)| column.name == meta::ORDER);
    match (named.next(), named.next()) {
        (Some((index, column)), None) if is_position(input, index, is_topic) => Ok(Expr::Column(column)),
        (Some(_), None) => Err(SqlError::new(
            "first_value and last_value order by the topic's own column `_order`, but another column has this name \
             here: rename that one, and select the topic's `_order` unchanged in subqueries in FROM",
        )),
        _ => Err(SqlError::new(
            "first_value and last_value order by the topic's column `_order`: subqueries in FROM, and each part of a \
             union, must select it too, as in FROM (SELECT x, _order FROM topic) AS t",
        )),
    }
}

/// Is this column the unchanged position of the record that the row comes from?
fn is_position(plan: &LogicalPlan, index: usize, is_topic: &dyn Fn(&str) -> bool) -> bool {
    let below = |plan: &LogicalPlan, column: &PlanColumn| {
        plan.schema().maybe_index_of_column(column).is_some_and(|index| is_position(plan, index, is_topic))
    };
    let (qualifier, field) = plan.schema().qualified_field(index);
    let column = PlanColumn::from((qualifier, field));
    match plan {
        LogicalPlan::TableScan(scan) => is_topic(scan.table_name.table()) && field.name() == meta::ORDER,
        LogicalPlan::Projection(projection) => match projection.expr[index].clone().unalias_nested().data {
            Expr::Column(column) => below(&projection.input, &column),
            _ => false,
        },
        LogicalPlan::SubqueryAlias(alias) => is_position(&alias.input, index, is_topic),
        LogicalPlan::Union(union) => union.inputs.iter().all(|arm| is_position(arm, index, is_topic)),
        // An unnested column has a different type above the node than below it.
        LogicalPlan::Unnest(unnest) => {
            let was = unnest.input.schema().maybe_index_of_column(&column);
            let same = |index| unnest.input.schema().field(index).data_type() == field.data_type();
            was.is_some_and(|index| same(index) && is_position(&unnest.input, index, is_topic))
        }
        LogicalPlan::Join(join) => below(&join.left, &column) || below(&join.right, &column),
        LogicalPlan::Filter(filter) => below(&filter.input, &column),
        _ => false,
    }
}
