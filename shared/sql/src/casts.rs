//! Aggregates that differ in a CAST only: DataFusion leaves casts out of names, and refuses two columns of one name.

use datafusion::{
    common::{
        Result,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{
        Expr,
        planner::{ExprPlanner, PlannerResult, RawAggregateExpr},
    },
};

/// Makes the casts in an aggregate's arguments a part of its name.
#[derive(Debug)]
pub struct NamedCasts;

impl ExprPlanner for NamedCasts {
    fn plan_aggregate(&self, mut aggregate: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        for argument in &mut aggregate.args {
            if has_cast(argument)? {
                let name = argument.to_string();
                *argument = argument.clone().alias(name);
            }
        }
        Ok(PlannerResult::Original(aggregate))
    }
}

fn has_cast(expr: &Expr) -> Result<bool> {
    let mut found = false;
    expr.apply(|expr| {
        found |= matches!(expr, Expr::Cast(_) | Expr::TryCast(_));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
