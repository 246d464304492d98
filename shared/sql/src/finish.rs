//! What stands above the aggregate: which outputs are states as they are, and the view over the others.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    common::{Column as PlanColumn, DFSchema},
    datasource::provider_as_source,
    execution::session_state::SessionState,
    logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast},
    physical_plan::ExecutionPlan,
    sql::unparser::{Unparser, dialect::PostgreSqlDialect},
};
use millstream_core::Column;
pub use millstream_core::View;

use crate::{
    error::{Result, SqlError},
    plan::stored,
    sketch,
    slot::SlotTable,
};

/// The hidden column that says which input row an output row came from.
pub const ROW: &str = "__row";
/// The name under which states are put into a [`Finisher`]'s plan.
pub const STATES: &str = "__states";

/// Turns state rows into what readers see; none when they are that already.
pub type Finisher = Option<FinishPlan>;

/// A plan over the slot [`STATES`] (the table's columns and [`ROW`]) that gives the view's columns and [`ROW`].
pub struct FinishPlan {
    pub plan: Arc<dyn ExecutionPlan>,
    pub schema: SchemaRef,
}

/// Where each output column of the statement comes from.
pub struct Outputs {
    /// Name, and the column of the aggregate's output that it shows unchanged, if it does.
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

    /// For a whole one: the aggregate's columns in the order in which they are shown.
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

/// Builds what finishes the states. `finished` gives each column of the aggregate's output from the table's `columns`.
pub async fn finish(
    state: &SessionState,
    above: &[LogicalPlan],
    aggregate: &DFSchema,
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
    let builder = Builder { above, aggregate, finished };
    let table = format!("{into}_state");
    let shown = builder.build(&table, Arc::new(Schema::new(fields.clone())), false)?;
    let view = view(&shown, into)?;

    fields.push(Field::new(ROW, DataType::Int64, false));
    let run = builder.build(STATES, Arc::new(Schema::new(fields)), true)?;
    let mut out: Vec<Field> =
        view.columns.iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true)).collect();
    out.push(Field::new(ROW, DataType::Int64, true));
    let plan = state.create_physical_plan(&run).await?;
    Ok((Some(FinishPlan { plan, schema: Arc::new(Schema::new(out)) }), Some(view)))
}

struct Builder<'a> {
    above: &'a [LogicalPlan],
    aggregate: &'a DFSchema,
    finished: Vec<Expr>,
}

impl Builder<'_> {
    /// The nodes above the aggregate, over a scan of the states in the aggregate's place.
    fn build(&self, table: &str, schema: SchemaRef, with_row: bool) -> Result<LogicalPlan> {
        let slot = Arc::new(SlotTable { name: table.to_owned(), schema });
        let name = datafusion::common::TableReference::bare(table);
        let scan = LogicalPlanBuilder::scan(name, provider_as_source(slot), None)?.build()?;
        let mut exprs = Vec::with_capacity(self.finished.len() + 1);
        for (expr, (qualifier, field)) in self.finished.iter().zip(self.aggregate.iter()) {
            let have = expr.get_type(scan.schema())?;
            let expr =
                if &have == field.data_type() { expr.clone() } else { cast(expr.clone(), field.data_type().clone()) };
            exprs.push(expr.alias_qualified(qualifier.cloned(), field.name()));
        }
        if with_row {
            exprs.push(Expr::Column(PlanColumn::new_unqualified(ROW)));
        }
        let mut plan = LogicalPlanBuilder::from(scan).project(exprs)?.build()?;
        for node in self.above.iter().rev() {
            let mut exprs = node.expressions();
            if with_row && matches!(node, LogicalPlan::Projection(_)) {
                let row = plan.schema().iter().find(|(_, field)| field.name() == ROW);
                exprs.push(Expr::Column(
                    row.map(PlanColumn::from).ok_or_else(|| SqlError::new("internal: no row column"))?,
                ));
            }
            plan = node.with_new_exprs(exprs, vec![plan])?;
        }
        Ok(plan)
    }
}

fn view(plan: &LogicalPlan, into: &str) -> Result<View> {
    let columns = plan
        .schema()
        .fields()
        .iter()
        .map(|field| Ok((field.name().clone(), stored(field.data_type(), field.name())?)))
        .collect::<Result<Vec<_>>>()?;
    let select = Unparser::new(&PostgreSqlDialect {}).plan_to_sql(plan)?.to_string();
    Ok(View { name: into.to_owned(), columns, select: spell_out_estimates(&select) })
}

/// `__hll_estimate("x")` as SQL that PostgreSQL has.
fn spell_out_estimates(select: &str) -> String {
    let call = format!("{}(", sketch::ESTIMATE);
    let mut parts = select.split(&call);
    let mut spelled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // The argument is one column, whose name holds no parenthesis.
        let (column, rest) = part.split_once(')').unwrap_or((part, ""));
        spelled += &sketch::estimate_sql(column);
        spelled += rest;
    }
    spelled
}
