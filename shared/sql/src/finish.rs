//! What stands above the aggregate: which outputs are states as they are, and the view over the others.

use std::{ops::ControlFlow, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    common::{
        DFSchema, TableReference,
        tree_node::{Transformed, TreeNode},
    },
    datasource::provider_as_source,
    execution::session_state::SessionState,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder},
    physical_plan::ExecutionPlan,
    sql::{
        sqlparser::ast::{self, VisitMut, VisitorMut},
        unparser::{Unparser, dialect::PostgreSqlDialect},
    },
};
pub use millstream_core::View;
use millstream_core::{Column, Role};

use crate::{error::Result, plan::stored, sketch, slot::SlotTable, states::column};

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
    let flat = Flat::of(above, root, finished)?;
    let keys = columns.iter().filter(|column| column.role == Role::Key).map(|column| column.name.clone()).collect();
    let view = view(&flat.over(&format!("{into}_state"), Arc::new(Schema::new(fields.clone())), false)?, into, keys)?;

    fields.push(Field::new(ROW, DataType::Int64, false));
    let run = flat.over(STATES, Arc::new(Schema::new(fields)), true)?;
    let mut out: Vec<Field> =
        view.columns.iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true)).collect();
    out.push(Field::new(ROW, DataType::Int64, true));
    let plan = state.create_physical_plan(&run).await?;
    Ok((Some(FinishPlan { plan, schema: Arc::new(Schema::new(out)) }), Some(view)))
}

/// The nodes above the aggregate as one flat SELECT over the states: what it gives, and which rows it keeps. Every
/// column of the aggregate is replaced by what finishes it, so that no name of the topic is left for a view to stumble over.
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

    /// As a plan over the states, in the table `table` of `schema`.
    fn over(&self, table: &str, schema: SchemaRef, with_row: bool) -> Result<LogicalPlan> {
        let slot = Arc::new(SlotTable { name: table.to_owned(), schema });
        let mut builder = LogicalPlanBuilder::scan(TableReference::bare(table), provider_as_source(slot), None)?;
        for filter in &self.filters {
            builder = builder.filter(filter.clone())?;
        }
        let mut exprs: Vec<Expr> = self.outputs.iter().map(|(name, expr)| expr.clone().alias(name)).collect();
        if with_row {
            exprs.push(column(ROW));
        }
        Ok(builder.project(exprs)?.build()?)
    }
}

fn view(plan: &LogicalPlan, into: &str, together: Vec<String>) -> Result<View> {
    let columns = plan
        .schema()
        .fields()
        .iter()
        .map(|field| Ok((field.name().clone(), stored(field.data_type(), field.name())?)))
        .collect::<Result<Vec<_>>>()?;
    let mut select = Unparser::new(&PostgreSqlDialect {}).plan_to_sql(plan)?;
    // The visitor never breaks off.
    let _ = select.visit(&mut SignedCasts);
    Ok(View { name: into.to_owned(), columns, select: spell_out_estimates(&select.to_string()), together })
}

/// PostgreSQL has no unsigned types: casts go to the next wider one that holds them, as the sink's columns do.
struct SignedCasts;

impl VisitorMut for SignedCasts {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::Cast { data_type, .. } = expr {
            let signed = match data_type {
                ast::DataType::BigIntUnsigned(_) => {
                    ast::DataType::Numeric(ast::ExactNumberInfo::PrecisionAndScale(20, 0))
                }
                ast::DataType::IntUnsigned(_) | ast::DataType::IntegerUnsigned(_) => ast::DataType::BigInt(None),
                ast::DataType::SmallIntUnsigned(_) => ast::DataType::Integer(None),
                ast::DataType::TinyIntUnsigned(_) | ast::DataType::TinyInt(_) => ast::DataType::SmallInt(None),
                _ => return ControlFlow::Continue(()),
            };
            *data_type = signed;
        }
        ControlFlow::Continue(())
    }
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
