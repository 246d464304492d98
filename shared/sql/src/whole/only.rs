//! A part of the rows, and the plan that computes only their groups.

use std::sync::Arc;

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::{and, filter_record_batch},
    datatypes::TimestampMicrosecondType,
    error::ArrowError,
};
use datafusion::{
    common::{
        ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, cast, lit, utils::conjunction},
};

use super::{Sample, WholeColumn, aggregates::key_name};
use crate::error::Result;

/// Which rows are wanted: all, if nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Only {
    /// Only those whose keys are in this sample.
    pub sample: Option<Sample>,
    /// Only those that are not before a time.
    pub since: Option<Since>,
}

/// Rows that are not before a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// The place of a column of timestamps.
    pub column: usize,
    /// Its smallest value, in microseconds since 1970.
    pub from_us: i64,
}

impl Only {
    /// Are all rows wanted?
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// The wanted rows of a batch, whose rows are named by the columns at `keys`.
    ///
    /// # Errors
    /// Of a type that can't be compared.
    pub fn filter(&self, rows: &RecordBatch, keys: &[usize]) -> std::result::Result<RecordBatch, ArrowError> {
        let keys: Vec<_> = keys.iter().map(|at| Arc::clone(rows.column(*at))).collect();
        let sample = self.sample.map(|sample| sample.mask(&keys)).transpose()?;
        let mask = match (sample, self.since.map(|since| since.mask(rows))) {
            (Some(sample), Some(since)) => and(&sample, &since)?,
            (Some(mask), None) | (None, Some(mask)) => mask,
            (None, None) => return Ok(rows.clone()),
        };
        filter_record_batch(rows, &mask)
    }

    /// The plan of an aggregate without the rows of unwanted groups: they are dropped below it. `keys` are the places of the
    /// columns that show a group, each with the number of the group.
    pub(super) fn below(
        &self,
        plan: LogicalPlan,
        columns: &[WholeColumn],
        keys: &[(usize, usize)],
    ) -> Result<LogicalPlan> {
        if self.is_all() || keys.is_empty() {
            return Ok(plan);
        }
        let narrowed = plan.transform_down(|node| {
            let LogicalPlan::Aggregate(aggregate) = node else { return Ok(Transformed::no(node)) };
            let Aggregate { input, group_expr, aggr_expr, .. } = aggregate;
            let key = |(place, number): &(usize, usize)| {
                let name = key_name(*number);
                let group = group_expr.iter().find(|group| matches!(group, Expr::Alias(alias) if alias.name == name));
                group.map(|group| cast(group.clone().unalias(), columns[*place].data_type.clone()))
            };
            let sample = self.sample.map(|sample| sample.of(keys.iter().filter_map(key).collect()));
            let since = self.since.and_then(|Since { column, from_us }| {
                let shown = keys.iter().find(|(place, _)| *place == column).and_then(key)?;
                Some(shown.gt_eq(lit(ScalarValue::TimestampMicrosecond(Some(from_us), Some("UTC".into())))))
            });
            let Some(wanted) = conjunction(sample.into_iter().chain(since)) else {
                let aggregate = Aggregate::try_new(input, group_expr, aggr_expr)?;
                return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
            };
            let rows = LogicalPlanBuilder::from(input.as_ref().clone()).filter(wanted)?.build()?;
            let aggregate = Aggregate::try_new(Arc::new(rows), group_expr, aggr_expr)?;
            Ok(Transformed::new(LogicalPlan::Aggregate(aggregate), true, TreeNodeRecursion::Stop))
        })?;
        Ok(narrowed.data)
    }
}

impl Since {
    /// Null is before every time.
    fn mask(&self, rows: &RecordBatch) -> BooleanArray {
        let times = rows.column(self.column).as_primitive_opt::<TimestampMicrosecondType>();
        let wanted = |time: Option<i64>| Some(time.is_some_and(|time| time >= self.from_us));
        times.into_iter().flatten().map(wanted).collect()
    }
}
