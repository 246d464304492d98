//! Columns of a topic that go along with every row of a statement, whether it selects them or not: where a row comes from.

use std::sync::Arc;

use datafusion::{
    common::{Column, DataFusionError, Result},
    logical_expr::{Expr, Filter, Join, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, Union, Unnest},
};

/// What a carried column is called below the top, where a statement may have a column of its name.
const PREFIX: &str = "__carried";

/// Adds the columns `names` of the topic that each row comes from to the output of `plan`, behind its own columns. The plan is
/// one that was checked: each row comes from one record.
pub fn carry(plan: LogicalPlan, names: &[&str], is_topic: &dyn Fn(&str) -> bool) -> Result<LogicalPlan> {
    let own = columns_of(&plan);
    let carried = Carrier { names, is_topic }.through(plan)?;
    let missing = || DataFusionError::Internal("a statement that reads no topic".to_owned());
    let from = carried.from.ok_or_else(missing)?;
    let behind = from.into_iter().zip(names).map(|(column, name)| Expr::Column(column).alias(*name));
    let exprs = own.into_iter().map(Expr::Column).chain(behind).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(carried.plan))?))
}

struct Carrier<'a> {
    names: &'a [&'a str],
    is_topic: &'a dyn Fn(&str) -> bool,
}

/// A part of a plan, and by which of its columns it carries; `None` for one that reads no topic.
struct Carried {
    plan: LogicalPlan,
    from: Option<Vec<Column>>,
    /// How many times the carried columns were renamed below.
    height: usize,
}

impl Carrier<'_> {
    fn through(&self, plan: LogicalPlan) -> Result<Carried> {
        match plan {
            LogicalPlan::TableScan(ref scan) if (self.is_topic)(scan.table_name.table()) => {
                let column = |name: &&str| Column::new(Some(scan.table_name.clone()), *name);
                let from = self.names.iter().map(column).collect();
                Ok(Carried { plan, from: Some(from), height: 0 })
            }
            LogicalPlan::Projection(projection) => {
                let input = self.through(Arc::unwrap_or_clone(projection.input))?;
                let height = input.height;
                self.project(projection.expr, input, height)
            }
            LogicalPlan::Filter(filter) => {
                let input = self.through(Arc::unwrap_or_clone(filter.input))?;
                let plan = LogicalPlan::Filter(Filter::try_new(filter.predicate, Arc::new(input.plan))?);
                Ok(Carried { plan, from: input.from, height: input.height })
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.through(Arc::unwrap_or_clone(alias.input))?;
                let named = |column: Column| Column::new(Some(alias.alias.clone()), column.name);
                let from = input.from.map(|from| from.into_iter().map(named).collect());
                let plan = SubqueryAlias::try_new(Arc::new(input.plan), alias.alias.clone())?;
                Ok(Carried { plan: LogicalPlan::SubqueryAlias(plan), from, height: input.height })
            }
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => self.union(union),
            other => Ok(Carried { plan: other, from: None, height: 0 }),
        }
    }

    /// A projection that also passes on what its input carries, under names that no column of a statement has, and no column of
    /// the input: the optimizer may put one of the input's columns beside them.
    fn project(&self, exprs: Vec<Expr>, input: Carried, height: usize) -> Result<Carried> {
        let renamed = self.renamed(height);
        let behind = input.from.iter().flatten().cloned().zip(&renamed);
        let behind = behind.map(|(column, renamed)| Expr::Column(column).alias(&renamed.name));
        let exprs = exprs.into_iter().chain(behind).collect();
        let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input.plan))?);
        Ok(Carried { plan, from: input.from.is_some().then_some(renamed), height: height + 1 })
    }

    fn renamed(&self, height: usize) -> Vec<Column> {
        let number = |at| height * self.names.len() + at;
        (0..self.names.len()).map(|at| Column::new_unqualified(format!("{PREFIX}{}", number(at)))).collect()
    }

    fn unnest(&self, unnest: Unnest) -> Result<Carried> {
        let input = self.through(Arc::unwrap_or_clone(unnest.input))?;
        let builder = LogicalPlanBuilder::from(input.plan);
        let plan = builder.unnest_columns_with_options(unnest.exec_columns, unnest.options)?.build()?;
        Ok(Carried { plan, from: input.from, height: input.height })
    }

    fn join(&self, join: Join) -> Result<Carried> {
        let (left, right) = (Arc::unwrap_or_clone(join.left), Arc::unwrap_or_clone(join.right));
        let (left, right) = (self.through(left)?, self.through(right)?);
        let (from, height) = (left.from.or(right.from), left.height.max(right.height));
        let plan = Join::try_new(
            Arc::new(left.plan),
            Arc::new(right.plan),
            join.on,
            join.filter,
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?;
        Ok(Carried { plan: LogicalPlan::Join(plan), from, height })
    }

    /// Each part gives its own columns and then the carried ones, so that the same ones stand at the same place.
    fn union(&self, union: Union) -> Result<Carried> {
        let part = |plan: Arc<LogicalPlan>| {
            let plan = Arc::unwrap_or_clone(plan);
            let own = columns_of(&plan).into_iter().map(Expr::Column).collect();
            Ok((own, self.through(plan)?))
        };
        let parts = union.inputs.into_iter().map(part).collect::<Result<Vec<(Vec<Expr>, Carried)>>>()?;
        let height = parts.iter().map(|(_, input)| input.height).max().unwrap_or(0);
        let project = |(own, input)| Ok(Arc::new(self.project(own, input, height)?.plan));
        let parts = parts.into_iter().map(project).collect::<Result<Vec<_>>>()?;
        let plan = LogicalPlan::Union(Union::try_new(parts)?);
        Ok(Carried { plan, from: Some(self.renamed(height)), height: height + 1 })
    }
}

fn columns_of(plan: &LogicalPlan) -> Vec<Column> {
    plan.schema().columns()
}
