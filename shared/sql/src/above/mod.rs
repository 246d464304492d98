//! The plan above the aggregate: which outputs show a state unchanged, and the view that computes the others.

mod postgres;
mod total;
mod white_list;

use std::{collections::BTreeSet, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    common::{
        DFSchema, TableReference,
        tree_node::{Transformed, TreeNode},
    },
    datasource::provider_as_source,
    execution::session_state::SessionState,
    logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder},
    physical_plan::ExecutionPlan,
};
pub use millstream_core::View;
use millstream_core::{Column, Role, quote_identifier};

pub use self::total::{Op, Total, total};
use self::{
    postgres::{Postgres, type_name},
    white_list::WhiteList,
};
use crate::{error::Result, slot::SlotTable, states::column, stored::stored};

/// The hidden column that says which input row an output row came from.
pub const ROW: &str = "__row";
/// The name under which states are put into a [`Finisher`]'s plan.
pub const STATES: &str = "__states";

/// Turns state rows into the rows that readers see. `None` if the state rows are already the result.
pub type Finisher = Option<FinishPlan>;

/// A plan over the slot [`STATES`] (the table's columns and [`ROW`]) that gives the view's columns and [`ROW`].
pub struct FinishPlan {
    pub plan: Arc<dyn ExecutionPlan>,
    pub schema: SchemaRef,
}

/// Where each output column of the statement comes from.
pub struct Outputs {
    /// Name, and the column of the aggregate's output that it shows unchanged (if it shows one).
    columns: Vec<(String, Option<usize>)>,
    aggregate_columns: usize,
    filtered: bool,
}

impl Outputs {
    /// The name under which a column of the aggregate's output is shown.
    pub fn name_of(&self, index: usize) -> Option<String> {
        self.columns.iter().find(|(_, from)| *from == Some(index)).map(|(name, _)| name.clone())
    }

    /// Is every column of the aggregate's output shown, once and unchanged, and nothing else?
    pub fn is_whole(&self) -> bool {
        let mut from: Vec<_> = self.columns.iter().filter_map(|(_, from)| *from).collect();
        from.sort_unstable();
        !self.filtered && self.columns.len() == from.len() && from == (0..self.aggregate_columns).collect::<Vec<_>>()
    }

    /// If [`Self::is_whole`]: the aggregate's columns in the order in which they are shown.
    pub fn order(&self) -> Vec<usize> {
        self.columns.iter().filter_map(|(_, from)| *from).collect()
    }
}

/// Follows each output column of `root` down through `above` (top first) to the aggregate's output.
pub fn trace(above: &[LogicalPlan], aggregate: &DFSchema, root: &LogicalPlan) -> Result<Outputs> {
    let mut from: Vec<Option<usize>> = (0..aggregate.fields().len()).map(Some).collect();
    let mut filtered = false;
    for node in above.iter().rev() {
        match node {
            LogicalPlan::Projection(projection) => {
                let below = projection.input.schema();
                let trace_one = |expr: &Expr| match expr.clone().unalias_nested().data {
                    Expr::Column(column) => below.maybe_index_of_column(&column).and_then(|index| from[index]),
                    _ => None,
                };
                from = projection.expr.iter().map(trace_one).collect();
            }
            LogicalPlan::Filter(_) => filtered = true,
            _ => {}
        }
    }
    let names = root.schema().fields().iter().map(|field| field.name().clone());
    Ok(Outputs { columns: names.zip(from).collect(), aggregate_columns: aggregate.fields().len(), filtered })
}

/// Builds the view and the finisher. `finished` computes each column of the aggregate's output from the table's
/// `columns`.
pub async fn finish(
    state: &SessionState,
    above: &[LogicalPlan],
    root: &LogicalPlan,
    columns: &[Column],
    finished: Vec<Expr>,
    into: &str,
    plain: bool,
) -> Result<(Finisher, Option<View>)> {
    if plain {
        return Ok((None, None));
    }
    let mut fields: Vec<Field> =
        columns.iter().map(|column| Field::new(&column.name, column.data_type.clone(), column.nullable)).collect();
    let keys = columns.iter().filter(|column| column.role == Role::Key).map(|column| column.name.as_str());
    let states = DFSchema::try_from(Schema::new(fields.clone()))?;
    let flat = Flat::of(above, root, finished)?.total(&WhiteList::new(state, &states, keys.clone().collect()))?;
    let view = View {
        name: into.to_owned(),
        columns: flat.columns(&states)?,
        select: flat.select(&states, &format!("{into}_state"))?,
        together: keys.map(str::to_owned).collect(),
    };

    fields.push(Field::new(ROW, DataType::Int64, false));
    let run = flat.plan(Arc::new(Schema::new(fields)))?;
    let mut out: Vec<Field> =
        view.columns.iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true)).collect();
    out.push(Field::new(ROW, DataType::Int64, true));
    let plan = state.create_physical_plan(&run).await?;
    Ok((Some(FinishPlan { plan, schema: Arc::new(Schema::new(out)) }), Some(view)))
}

/// A column of a flat SELECT: its name, its type, and what it is of the columns below.
pub type Shown = (String, DataType, Expr);

/// What is to be returned of the columns that are shown, and which further columns come behind them.
pub type Beside<'a, T> = &'a dyn Fn(&[Shown]) -> (T, Vec<Expr>);

/// The nodes above the aggregate (top first, with the whole statement) as a plan over `aggregated`, which has the
/// aggregate's columns under the names in `finished`; `keys` are those of the groups. Every operation is total, as in a
/// view. `beside` is given the columns that are shown.
pub fn flatten<T>(
    state: &SessionState,
    (above, root): (&[LogicalPlan], &LogicalPlan),
    finished: Vec<Expr>,
    aggregated: LogicalPlan,
    keys: BTreeSet<&str>,
    beside: Beside<'_, T>,
) -> Result<(LogicalPlan, T)> {
    let schema = DFSchema::clone(aggregated.schema());
    let flat = Flat::of(above, root, finished)?.total(&WhiteList::new(state, &schema, keys))?;
    let types = flat.columns(&schema)?.into_iter().zip(&flat.outputs);
    let shown: Vec<Shown> = types.map(|((name, data_type), (_, expr))| (name, data_type, expr.clone())).collect();
    let (columns, further) = beside(&shown);
    Ok((flat.over(LogicalPlanBuilder::from(aggregated), further)?, columns))
}

/// The nodes above the aggregate as one flat SELECT over the states: its columns, and which rows it keeps. Every column
/// of the aggregate is replaced by the expression that finishes it: a name of the topic that was left here would fail
/// later, in a view.
struct Flat {
    outputs: Vec<(String, Expr)>,
    filters: Vec<Expr>,
}

impl Flat {
    /// `finished` gives each column of the aggregate's output; `root` is the whole statement.
    fn of(above: &[LogicalPlan], root: &LogicalPlan, finished: Vec<Expr>) -> Result<Self> {
        let mut columns = finished;
        let mut filters = Vec::new();
        for node in above.iter().rev() {
            let below = node.inputs()[0].schema();
            let replaced = |expr: &Expr| -> Result<Expr> {
                let replaced = expr.clone().unalias_nested().data.transform_up(|expr| {
                    let index = match &expr {
                        Expr::Column(column) => below.maybe_index_of_column(column),
                        _ => None,
                    };
                    Ok(index.map_or_else(|| Transformed::no(expr), |index| Transformed::yes(columns[index].clone())))
                });
                Ok(replaced?.data)
            };
            match node {
                LogicalPlan::Projection(projection) => {
                    columns = projection.expr.iter().map(replaced).collect::<Result<_>>()?;
                }
                LogicalPlan::Filter(filter) => filters.push(replaced(&filter.predicate)?),
                _ => {}
            }
        }
        let names = root.schema().fields().iter().map(|field| field.name().clone());
        Ok(Self { outputs: names.zip(columns).collect(), filters })
    }

    /// The same SELECT with every operation total.
    fn total(self, white_list: &WhiteList<'_>) -> Result<Self> {
        let outputs = self.outputs.into_iter().map(|(name, expr)| Ok((name, white_list.total(expr)?)));
        let filters = self.filters.into_iter().map(|filter| white_list.total(filter));
        Ok(Self { outputs: outputs.collect::<Result<_>>()?, filters: filters.collect::<Result<_>>()? })
    }

    fn columns(&self, states: &DFSchema) -> Result<Vec<(String, DataType)>> {
        let column = |(name, expr): &(String, Expr)| Ok((name.clone(), stored(&expr.get_type(states)?, name)?));
        self.outputs.iter().map(column).collect()
    }

    /// The SELECT in PostgreSQL's SQL, each column cast to its declared type.
    fn select(&self, states: &DFSchema, table: &str) -> Result<String> {
        let postgres = Postgres { schema: states };
        let mut columns = Vec::with_capacity(self.outputs.len());
        for (name, expr) in &self.outputs {
            let sql = postgres.sql(expr)?;
            let declared = type_name(&stored(&expr.get_type(states)?, name)?)?;
            let cast = if matches!(expr, Expr::Column(_)) { String::new() } else { format!("::{declared}") };
            columns.push(format!("{sql}{cast} AS {}", quote_identifier(name)));
        }
        let filters = self.filters.iter().map(|filter| postgres.sql(filter)).collect::<Result<Vec<_>>>()?;
        let filter = if filters.is_empty() { String::new() } else { format!(" WHERE {}", filters.join(" AND ")) };
        Ok(format!("SELECT {} FROM {}{filter}", columns.join(", "), quote_identifier(table)))
    }

    /// The SELECT as a plan over the slot [`STATES`], including [`ROW`].
    fn plan(&self, schema: SchemaRef) -> Result<LogicalPlan> {
        let slot = Arc::new(SlotTable { name: STATES.to_owned(), schema });
        let states = LogicalPlanBuilder::scan(TableReference::bare(STATES), provider_as_source(slot), None)?;
        self.over(states, vec![column(ROW)])
    }

    /// The SELECT over `rows`, with further columns behind its own.
    fn over(&self, rows: LogicalPlanBuilder, further: Vec<Expr>) -> Result<LogicalPlan> {
        let mut rows = rows;
        for filter in &self.filters {
            rows = rows.filter(filter.clone())?;
        }
        let exprs = self.outputs.iter().map(|(name, expr)| expr.clone().alias(name)).chain(further);
        Ok(rows.project(exprs.collect::<Vec<_>>())?.build()?)
    }
}
