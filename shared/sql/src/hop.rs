//! `hop(…)` returns a list of windows; wherever it is allowed, it becomes one row per window.

use datafusion::{
    common::{
        Column as PlanColumn,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection},
};

use crate::{error::Result, states::column, window::Window};

/// The name of the columns that hold windows, followed by a number.
pub const COLUMN: &str = "__hop_";

/// Does the expression call `hop`?
pub fn is_in(expr: &Expr) -> bool {
    let mut found = false;
    // The closure returns no error, so the walk can't either.
    let _ = expr.apply(|expr| {
        found |= matches!(expr, Expr::ScalarFunction(function) if function.name() == Window::Hop.name());
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

/// `input` with one row for each window of the groups' `hop` calls, and the groups over it. SELECTs within `input` that
/// call `hop` are rewritten in the same way.
pub fn unnest(input: &LogicalPlan, groups: &[Expr]) -> Result<(LogicalPlan, Vec<Expr>)> {
    let mut hops = Hops::default();
    let input = input.clone().transform_up(|node| match node {
        LogicalPlan::Projection(projection) if projection.expr.iter().any(is_in) => {
            Ok(Transformed::yes(hops.unnest_projection(projection)?))
        }
        node => Ok(Transformed::no(node)),
    })?;
    let groups = groups.iter().map(|group| group.clone().unalias_nested().data).collect();
    Ok(hops.unnest(input.data, groups)?)
}

/// Numbers the new columns.
#[derive(Default)]
struct Hops {
    made: usize,
}

impl Hops {
    fn unnest_projection(&mut self, projection: Projection) -> datafusion::common::Result<LogicalPlan> {
        let Projection { input, expr, schema, .. } = projection;
        let had_hop: Vec<bool> = expr.iter().map(is_in).collect();
        let (input, exprs) = self.unnest(input.as_ref().clone(), expr)?;
        let named = exprs.into_iter().zip(had_hop).zip(schema.iter()).map(|((expr, had_hop), (qualifier, field))| {
            if had_hop { expr.unalias().alias_qualified(qualifier.cloned(), field.name()) } else { expr }
        });
        LogicalPlanBuilder::from(input).project(named)?.build()
    }

    /// Each call becomes a column; equal calls share one.
    fn unnest(
        &mut self,
        mut input: LogicalPlan,
        exprs: Vec<Expr>,
    ) -> datafusion::common::Result<(LogicalPlan, Vec<Expr>)> {
        let mut calls: Vec<(Vec<Expr>, String)> = Vec::new();
        let mut replaced = Vec::with_capacity(exprs.len());
        for expr in exprs {
            let expr = expr.transform_up(|expr| {
                let Expr::ScalarFunction(function) = &expr else { return Ok(Transformed::no(expr)) };
                if function.name() != Window::Hop.name() {
                    return Ok(Transformed::no(expr));
                }
                let known = calls.iter().find(|(args, _)| *args == function.args).map(|(_, name)| name.clone());
                let name = known.unwrap_or_else(|| {
                    let name = format!("{COLUMN}{}", self.made);
                    self.made += 1;
                    calls.push((function.args.clone(), name.clone()));
                    name
                });
                Ok(Transformed::yes(column(&name)))
            })?;
            replaced.push(expr.data);
        }
        for (args, name) in calls {
            let mut exprs: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
            exprs.push(Window::HopStarts.udf().call(args).alias(&name));
            input = LogicalPlanBuilder::from(input)
                .project(exprs)?
                .unnest_column(PlanColumn::new_unqualified(&name))?
                .build()?;
        }
        Ok((input, replaced))
    }
}
