//! What can't be run exactly once over batches is refused here, with the reason and what to write instead.

use datafusion::{
    common::{
        JoinType,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Aggregate, Expr, LogicalPlan},
};

use crate::error::{Result, SqlError};

/// The part of a plan above its aggregate, top first, and the aggregate itself where there is one.
pub struct Split {
    pub above: Vec<LogicalPlan>,
    pub aggregate: Option<Aggregate>,
}

/// Checks a plan whose topics are those that `is_topic` says, and splits it at its aggregate.
pub fn check(plan: &LogicalPlan, is_topic: &dyn Fn(&str) -> bool) -> Result<Split> {
    let checker = Checker { is_topic };
    if !checker.streams(plan) {
        return Err(SqlError::new("this statement reads no topic of the function's `from`"));
    }
    checker.deterministic(plan)?;
    let mut above = Vec::new();
    let mut node = plan;
    loop {
        match node {
            LogicalPlan::Aggregate(aggregate) => {
                checker.row_by_row(&aggregate.input)?;
                return Ok(Split { above, aggregate: Some(aggregate.clone()) });
            }
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
                above.push(node.clone());
                node = node.inputs()[0];
            }
            _ => {
                checker.row_by_row(plan)?;
                return Ok(Split { above: Vec::new(), aggregate: None });
            }
        }
    }
}

struct Checker<'a> {
    is_topic: &'a dyn Fn(&str) -> bool,
}

impl Checker<'_> {
    /// Does this part of the plan read a topic, in a subquery too?
    fn streams(&self, plan: &LogicalPlan) -> bool {
        plan.exists_scan(&|name| (self.is_topic)(name))
    }

    /// Every row of the output must come from one record alone.
    fn row_by_row(&self, plan: &LogicalPlan) -> Result<()> {
        if !self.streams(plan) {
            return Ok(());
        }
        let refusal = match plan {
            LogicalPlan::TableScan(_)
            | LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Unnest(_)
            | LogicalPlan::Union(_) => {
                self.no_streams_in_subqueries(plan)?;
                return plan.inputs().iter().try_for_each(|input| self.row_by_row(input));
            }
            LogicalPlan::Join(join) => {
                let (left, right) = (self.streams(&join.left), self.streams(&join.right));
                let kept = match join.join_type {
                    JoinType::Inner => left != right,
                    JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => left && !right,
                    JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => right && !left,
                    _ => false,
                };
                if kept {
                    return plan.inputs().iter().try_for_each(|input| self.row_by_row(input));
                }
                if left && right {
                    "a join of two streams needs both sides in memory for ever. Write both into a table and join them \
                     there, or make one side a reference"
                } else {
                    "this join would also give rows for which there is no event (an outer join that keeps the reference's \
                     side). Keep the stream's side: `FROM topic LEFT JOIN reference ON …`"
                }
            }
            LogicalPlan::Sort(_) => {
                "ORDER BY over a stream would need all events, which never end. Leave it out here and order where the table \
                 is read"
            }
            LogicalPlan::Limit(_) => {
                "LIMIT over a stream depends on how batches are cut. Leave it out, or filter with WHERE"
            }
            LogicalPlan::Distinct(_) => {
                "DISTINCT over a stream would need all events. Write GROUP BY over the same columns: its table holds each once"
            }
            LogicalPlan::Window(_) => {
                "OVER (…) looks at neighbouring events, which may be in another batch. Use tumble or hop in GROUP BY"
            }
            LogicalPlan::Aggregate(_) => {
                "an aggregate over an aggregate, or joined afterwards, can't be merged from batches. Join first, group once, \
                 and do the rest in an expression over the aggregates or where the table is read"
            }
            other => return Err(SqlError::new(format!("{} can't be run over a stream", other.display()))),
        };
        Err(SqlError::new(refusal))
    }

    fn no_streams_in_subqueries(&self, plan: &LogicalPlan) -> Result<()> {
        let mut found = false;
        let visited = plan.apply_subqueries(|subquery| {
            found |= self.streams(subquery);
            Ok(TreeNodeRecursion::Continue)
        });
        visited?;
        if found { Err(SqlError::new("a subquery may read references only, not a topic")) } else { Ok(()) }
    }

    /// A redelivery must give the same rows.
    fn deterministic(&self, plan: &LogicalPlan) -> Result<()> {
        let mut culprit = None;
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                expr.apply(|expr| {
                    if let Expr::ScalarFunction(function) = expr
                        && (expr.is_volatile_node()
                            || matches!(function.name(), "now" | "current_date" | "current_time" | "current_timestamp"))
                    {
                        culprit.get_or_insert(function.name().to_owned());
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        match culprit {
            None => Ok(()),
            Some(name) => Err(SqlError::new(format!(
                "{name}() gives another result each time, so a redelivered batch would change the table. Use a field of the \
                 event, or its timestamp `_timestamp`"
            ))),
        }
    }
}

trait Scans {
    fn exists_scan(&self, wanted: &dyn Fn(&str) -> bool) -> bool;
}

impl Scans for LogicalPlan {
    fn exists_scan(&self, wanted: &dyn Fn(&str) -> bool) -> bool {
        let mut found = false;
        // The closure returns no error, so neither does the walk.
        let _ = self.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                found |= wanted(scan.table_name.table());
            }
            Ok(TreeNodeRecursion::Continue)
        });
        found
    }
}
