//! Columns that show the time of their records: a field of the topic, or the beginning or end of a window that it is in.

use std::collections::BTreeSet;

use datafusion::{
    common::Column,
    logical_expr::{BinaryExpr, Expr, Join, JoinType, LogicalPlan, Operator},
};
use millstream_core::timestamp_type;

use crate::window::{Window, length_us};

/// What a column shows: a time that is never after the field's own, moved by `shift_us`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The topics and their fields. Of a row, it is one of them.
    pub fields: BTreeSet<(String, String)>,
    /// How many microseconds a column is after the beginning of its window.
    pub shift_us: i64,
}

/// What finds the origins of columns.
pub(super) struct Origins<'a> {
    /// Is this the name of a topic?
    pub(super) is_topic: &'a dyn Fn(&str) -> bool,
}

impl Origins<'_> {
    /// What `expr`, over the rows of `plan`, shows; `None` if that is no time of a record.
    pub(super) fn of(&self, expr: &Expr, plan: &LogicalPlan) -> Option<Origin> {
        match expr {
            Expr::Alias(alias) => self.of(&alias.expr, plan),
            Expr::Cast(cast) if *cast.field.data_type() == timestamp_type() => self.of(&cast.expr, plan),
            Expr::Column(column) => self.of_column(index_of(column, plan)?, plan),
            Expr::ScalarFunction(function) => {
                let is_window = [Window::Tumble, Window::Hop].iter().any(|window| window.name() == function.name());
                match &function.args[..] {
                    [time, ..] if is_window => self.of(time, plan),
                    [_, time] if function.name() == "date_trunc" => self.of(time, plan),
                    _ => None,
                }
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let Expr::Literal(by, _) = right.as_ref() else { return None };
                let by_us = length_us(by).ok()?;
                let mut origin = self.of(left, plan)?;
                origin.shift_us = match op {
                    Operator::Plus => origin.shift_us.checked_add(by_us)?,
                    Operator::Minus => origin.shift_us.checked_sub(by_us)?,
                    _ => return None,
                };
                Some(origin)
            }
            _ => None,
        }
    }

    /// What a column of a plan shows.
    pub(super) fn of_column(&self, index: usize, plan: &LogicalPlan) -> Option<Origin> {
        match plan {
            LogicalPlan::Projection(projection) => self.of(projection.expr.get(index)?, &projection.input),
            LogicalPlan::SubqueryAlias(alias) => self.of_column(index, &alias.input),
            LogicalPlan::Filter(filter) => self.of_column(index, &filter.input),
            LogicalPlan::Unnest(unnest) => {
                let below = *unnest.dependency_indices.get(index)?;
                let is_unnested = unnest.list_type_columns.iter().any(|(column, _)| *column == below)
                    || unnest.struct_type_columns.contains(&below);
                if is_unnested { None } else { self.of_column(below, &unnest.input) }
            }
            LogicalPlan::Join(join) => self.of_joined(index, join),
            LogicalPlan::Union(union) => {
                let parts = union.inputs.iter().map(|input| self.of_column(index, input));
                parts.reduce(|all, part| all.zip(part).and_then(|(all, part)| both(all, part)))?
            }
            LogicalPlan::TableScan(scan) if (self.is_topic)(scan.table_name.table()) => {
                let field = plan.schema().fields().get(index).filter(|field| *field.data_type() == timestamp_type())?;
                let fields = BTreeSet::from([(scan.table_name.table().to_owned(), field.name().clone())]);
                Some(Origin { fields, shift_us: 0 })
            }
            _ => None,
        }
    }

    fn of_joined(&self, index: usize, join: &Join) -> Option<Origin> {
        let left = join.left.schema().fields().len();
        match join.join_type {
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => self.of_column(index, &join.right),
            _ if index < left => self.of_column(index, &join.left),
            _ => self.of_column(index - left, &join.right),
        }
    }
}

/// The parts of a UNION show the same only if they are moved by the same time.
fn both(mut all: Origin, part: Origin) -> Option<Origin> {
    all.fields.extend(part.fields);
    (all.shift_us == part.shift_us).then_some(all)
}

fn index_of(column: &Column, plan: &LogicalPlan) -> Option<usize> {
    plan.schema().maybe_index_of_column(column)
}
