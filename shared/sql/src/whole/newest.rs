//! The newest row of each entity, as a cache keeps it.

use datafusion::{
    common::{Column, Result},
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder},
};
use millstream_core::meta;

use crate::carry::carry;

/// Of the rows of `plan` with equal values in the column `entity`, the one whose record has the highest offset. Rows of equal
/// entities come from one partition.
pub fn of_each(plan: LogicalPlan, entity: &str, is_topic: &dyn Fn(&str) -> bool) -> Result<LogicalPlan> {
    let own = plan.schema().columns();
    let named: Vec<_> = own.iter().map(|column| Column::from_name(&column.name)).collect();
    let carried = LogicalPlanBuilder::from(carry(plan, &[meta::OFFSET], is_topic)?).alias("found")?.build()?;
    let of = |name: &str| Expr::Column(Column::new(Some("found"), name));
    let newest_first = vec![of(entity).sort(true, true), of(meta::OFFSET).sort(false, false)];
    let shown = named.iter().map(|column| of(&column.name)).collect();
    LogicalPlanBuilder::from(carried).distinct_on(vec![of(entity)], shown, Some(newest_first))?.build()
}
