//! Rewriting of every expression of a plan.

use datafusion::{
    common::{DFSchema, Result, tree_node::Transformed},
    logical_expr::{Expr, LogicalPlan, expr_rewriter::NamePreserver, utils::merge_schema},
};

/// Applies `rewrite` to each expression of each node, including subqueries, from the leaves up. Columns keep their
/// names; their types may change.
pub fn expressions(
    plan: LogicalPlan,
    rewrite: &dyn Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(|node| of_node(node, rewrite))?.data)
}

/// The same for one node whose inputs are already rewritten.
pub fn of_node(
    node: LogicalPlan,
    rewrite: &dyn Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&node.inputs());
    let names = NamePreserver::new(&node);
    let rewritten = node.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(rewrite(expr, &schema)?.update_data(|expr| name.restore(expr)))
    })?;
    rewritten.map_data(|node| node.recompute_schema())
}
