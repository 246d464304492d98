//! Refuses what can't be run exactly once over batches, with the reason and what to write instead.

use datafusion::{
    common::{
        JoinType,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Aggregate, Expr, Join, LogicalPlan},
};

use crate::{
    compare,
    error::{Result, SqlError, place_of},
    hop, keywords,
    window::{self, Window},
};

/// The part of a plan above its aggregate, top first, and the aggregate itself if there is one.
pub struct Split {
    pub above: Vec<LogicalPlan>,
    pub aggregate: Option<Aggregate>,
}

/// Checks a plan. `is_topic` tells which tables are topics; `fold` computes constants.
pub fn check(plan: &LogicalPlan, is_topic: &dyn Fn(&str) -> bool, fold: &dyn Fn(&Expr) -> Result<Expr>) -> Result<()> {
    let checker = Checker { is_topic, fold };
    if !checker.streams(plan) {
        return Err(SqlError::new("this statement reads no topic of the function's `from`"));
    }
    checker.everywhere(plan)?;
    let Split { above, aggregate } = split(plan);
    above.iter().try_for_each(no_subqueries_above)?;
    no_misplaced_hops(plan, &above, aggregate.as_ref())?;
    checker.row_by_row(aggregate.as_ref().map_or(plan, |aggregate| &aggregate.input))
}

/// Splits a plan at its aggregate.
pub fn split(plan: &LogicalPlan) -> Split {
    let mut above = Vec::new();
    let mut node = plan;
    loop {
        match node {
            LogicalPlan::Aggregate(aggregate) => return Split { above, aggregate: Some(aggregate.clone()) },
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
                above.push(node.clone());
                node = node.inputs()[0];
            }
            _ => return Split { above: Vec::new(), aggregate: None },
        }
    }
}

/// Does the plan have a scalar subquery? Such a value may be null even if its column can't be.
pub fn has_scalar_subquery(plan: &LogicalPlan) -> bool {
    exists_expr(plan, |expr| matches!(expr, Expr::ScalarSubquery(_)))
}

fn exists_expr(plan: &LogicalPlan, wanted: impl Fn(&Expr) -> bool) -> bool {
    let mut found = false;
    // The closures return no errors, so the walk can't either.
    let _ = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found |= wanted(expr);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    found
}

/// Above the aggregate there are only states: references can't be read there.
fn no_subqueries_above(node: &LogicalPlan) -> Result<()> {
    let mut found = false;
    node.apply_subqueries(|_| {
        found = true;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if found {
        return Err(SqlError::new(
            "a subquery can't stand in HAVING, or in SELECT next to aggregates: groups are finished where the table is \
             read. Join the reference in FROM, below the aggregate, as in FROM topic JOIN reference ON …, and group by \
             what it gives or aggregate it",
        ));
    }
    Ok(())
}

/// `hop` may stand only in the groups of the aggregate, and in a SELECT below it.
fn no_misplaced_hops(plan: &LogicalPlan, above: &[LogicalPlan], aggregate: Option<&Aggregate>) -> Result<()> {
    let mut misplaced: Vec<Expr> = Vec::new();
    match aggregate {
        None => {
            plan.apply_with_subqueries(|node| {
                misplaced.extend(node.expressions());
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Some(aggregate) => {
            misplaced.extend(above.iter().flat_map(LogicalPlan::expressions));
            misplaced.extend(aggregate.aggr_expr.iter().cloned());
            aggregate.input.apply(|node| {
                if !matches!(node, LogicalPlan::Projection(_)) {
                    misplaced.extend(node.expressions());
                }
                node.apply_subqueries(|subquery| {
                    misplaced.extend(subquery.expressions());
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
        }
    }
    match misplaced.iter().find(|expr| hop::is_in(expr)) {
        None => Ok(()),
        Some(expr) => Err(SqlError::new(
            "hop(…) makes a row for each window that holds the event: write it in GROUP BY, as in SELECT hop(time, INTERVAL \
             '1 minute', INTERVAL '5 minutes') AS start, count(*) AS n FROM topic GROUP BY 1",
        )
        .at(place_of(expr))),
    }
}

struct Checker<'a> {
    is_topic: &'a dyn Fn(&str) -> bool,
    fold: &'a dyn Fn(&Expr) -> Result<Expr>,
}

impl Checker<'_> {
    /// Does this part of the plan read a topic, possibly in a subquery?
    fn streams(&self, plan: &LogicalPlan) -> bool {
        self.topics(plan).next().is_some()
    }

    fn topics(&self, plan: &LogicalPlan) -> impl Iterator<Item = String> {
        let mut topics = Vec::new();
        // The closure returns no error, so the walk can't either.
        let _ = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && (self.is_topic)(scan.table_name.table())
            {
                topics.push(scan.table_name.table().to_owned());
            }
            Ok(TreeNodeRecursion::Continue)
        });
        topics.into_iter()
    }

    /// Checks that apply to every expression, wherever it stands.
    fn everywhere(&self, plan: &LogicalPlan) -> Result<()> {
        let mut wrong = None;
        plan.apply_with_subqueries(|node| {
            if let Err(error) = compare::check(node).and_then(|()| self.subqueries(node)) {
                wrong.get_or_insert(error);
            }
            node.apply_expressions(|expr| {
                expr.apply(|expr| {
                    let checked =
                        deterministic(expr).and_then(|()| self.windows(expr)).and_then(|()| self.keywords(expr));
                    if let Err(error) = checked {
                        wrong.get_or_insert(error);
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        wrong.map_or(Ok(()), Err)
    }

    fn subqueries(&self, node: &LogicalPlan) -> Result<()> {
        let mut refusal = None;
        node.apply_subqueries(|subquery| {
            if self.streams(subquery) {
                refusal.get_or_insert(
                    "a subquery may read references only, not a topic: its other events are in other batches. Group \
                     the topic into a table of its own, or declare what you look up as a reference",
                );
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        let scalar_here = matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Join(_));
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarSubquery(scalar) = expr {
                    let one_row = !scalar.outer_ref_columns.is_empty()
                        || scalar.subquery.max_rows().is_some_and(|rows| rows <= 1);
                    if scalar_here {
                        refusal.get_or_insert(
                            "a subquery can't stand in GROUP BY, in an aggregate or in ON: compute it in FROM first, as in \
                             FROM (SELECT *, (SELECT max(x) FROM reference) AS x FROM topic) AS t",
                        );
                    } else if !one_row {
                        refusal.get_or_insert(
                            "this subquery may give more than one row: write an aggregate, as in (SELECT max(x) FROM \
                             reference), or ORDER BY … LIMIT 1 in it",
                        );
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        refusal.map_or(Ok(()), |refusal| Err(SqlError::new(refusal)))
    }

    /// Checks that the lengths of windows are valid constants.
    fn windows(&self, expr: &Expr) -> Result<()> {
        let Expr::ScalarFunction(function) = expr else { return Ok(()) };
        let Some(window) = Window::of(function.name()) else { return Ok(()) };
        let lengths = function.args.iter().skip(1).map(self.fold).collect::<Result<Vec<_>>>()?;
        window::check_lengths(window, &lengths).map_err(|message| SqlError::new(message).at(place_of(expr)))
    }

    /// Checks that keywords are constants.
    fn keywords(&self, expr: &Expr) -> Result<()> {
        let Expr::ScalarFunction(function) = expr else { return Ok(()) };
        keywords::check(function.name(), &function.args, self.fold).map_err(|error| error.at(place_of(expr)))
    }

    /// Checks that every row of the output comes from a single record.
    fn row_by_row(&self, plan: &LogicalPlan) -> Result<()> {
        if !self.streams(plan) {
            return Ok(());
        }
        let inputs = || plan.inputs().into_iter().try_for_each(|input| self.row_by_row(input));
        let refusal = match plan {
            LogicalPlan::Unnest(_) if has_aggregate(plan) => {
                "unnest(…) of an aggregate can't be merged from batches: unnest in a subselect in FROM, below the aggregate, or \
                 where the table is read"
            }
            LogicalPlan::TableScan(_)
            | LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Unnest(_) => return inputs(),
            LogicalPlan::Union(union) => {
                if !union.inputs.iter().all(|arm| self.streams(arm)) {
                    "a part of this UNION reads no topic: its rows would be written again with each batch. Leave it \
                     out, and insert these rows into the table once, or send them to the topic"
                } else if union.inputs.iter().any(|arm| has_aggregate(arm)) {
                    "a UNION of aggregates can't be merged from batches. UNION ALL the rows first, and GROUP BY once over \
                     all of them: SELECT …, count(*) AS n FROM (SELECT … FROM a UNION ALL SELECT … FROM b) AS both GROUP BY …"
                } else {
                    return inputs();
                }
            }
            LogicalPlan::Join(join) => match self.join(join) {
                None => return inputs(),
                Some(refusal) => refusal,
            },
            LogicalPlan::Sort(_) => {
                "ORDER BY over a stream would need all events, and a stream never ends. Leave it out here and order \
                 where the table is read"
            }
            LogicalPlan::Limit(_) => LIMIT,
            LogicalPlan::Distinct(distinct) if matches!(distinct.input().as_ref(), LogicalPlan::Union(_)) => {
                "UNION drops rows that are already there, and would need all events for it: write UNION ALL (and GROUP \
                 BY all columns over it, if each row must be there once)"
            }
            LogicalPlan::Distinct(_) => {
                "DISTINCT over a stream would need all events. Write GROUP BY over the same columns: the table then \
                 holds each row once"
            }
            LogicalPlan::Window(_) => OVER,
            LogicalPlan::Aggregate(_) => {
                "an aggregate over an aggregate, or joined afterwards, can't be merged from batches. Join first, group \
                 once, and compute the rest in an expression over the aggregates or where the table is read"
            }
            LogicalPlan::Subquery(_) => {
                "LATERAL can't be run over a stream: join a reference, or write unnest(…) in SELECT"
            }
            _ => {
                "this can't be run over a stream: write a SELECT over a topic, with WHERE, JOIN of references and GROUP BY"
            }
        };
        Err(SqlError::new(refusal))
    }

    /// Why the join can't be run; `None` if it can.
    fn join(&self, join: &Join) -> Option<&'static str> {
        let (left, right) = (self.streams(&join.left), self.streams(&join.right));
        let kept = match join.join_type {
            JoinType::Inner => left != right,
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => left && !right,
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => right && !left,
            _ => false,
        };
        if kept {
            return None;
        }
        if !(left && right) {
            return Some(
                "this outer join keeps the reference's side, and would give rows without an event. Keep the stream's \
                 side: `FROM topic LEFT JOIN reference ON …`",
            );
        }
        if matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti) {
            return Some(
                "EXCEPT and INTERSECT compare an event with those of other batches. UNION ALL both topics with a \
                 column that says where a row comes from, GROUP BY all others, and keep HAVING NOT bool_or(is_right) \
                 (or AND bool_or(is_right))",
            );
        }
        if self.topics(&join.right).any(|topic| self.topics(&join.left).any(|other| other == topic)) {
            return Some(
                "a topic can't be joined with itself: its other events are in other batches. Use GROUP BY with \
                 aggregates (FILTER (WHERE …) selects a kind of event), or write a table and join it with itself where \
                 it is read",
            );
        }
        Some(
            "a join of two streams would keep both sides in memory forever. Make one side a reference; or, for a match \
             within a window, UNION ALL both topics with a column that says where a row comes from, GROUP BY key and \
             tumble(…), and keep HAVING bool_or(is_left) AND bool_or(is_right); or write both into tables and join \
             them where they are read",
        )
    }
}

/// Why LIMIT is refused.
pub const LIMIT: &str = "LIMIT over a stream depends on how batches are cut. Leave it out, or filter with WHERE";
/// Why OVER is refused.
pub const OVER: &str =
    "OVER (…) looks at neighbouring events, which may be in another batch. Use tumble or hop in GROUP BY";

fn has_aggregate(plan: &LogicalPlan) -> bool {
    // The closure returns no error, so the walk can't either.
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Aggregate(_)))).unwrap_or(false)
}

/// Checks that a redelivery gives the same rows.
fn deterministic(expr: &Expr) -> Result<()> {
    let Expr::ScalarFunction(function) = expr else { return Ok(()) };
    let name = function.name();
    if expr.is_volatile_node() || matches!(name, "now" | "current_date" | "current_time" | "current_timestamp") {
        return Err(SqlError::new(format!(
            "{name}() gives a different result each time, so a redelivered batch would change the table. Use a field \
             of the event, or its timestamp `_timestamp`"
        )));
    }
    Ok(())
}
