//! From a statement to a table, a transform over batches, and the columns that must be decoded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        DataFusionError,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    execution::session_state::SessionState,
    logical_expr::{Expr, LogicalPlan, simplify::SimplifyContext},
    optimizer::{Analyzer, simplify_expressions::ExprSimplifier},
};
use millstream_core::{Column, Role, Table, Transform};

use crate::{
    above::View,
    carry::carry,
    casts,
    error::{Result, SqlError},
    fingerprint::fingerprint,
    lookup::key_plans,
    merging::merge,
    naming::{check_names, known},
    parse::parse,
    refuse::{self, Split},
    rehearse::rehearse,
    run::{Combiner, SqlTransform},
    session::{session, typing},
    statement::Statement,
    stored::stored,
    unnest,
};

/// A planned statement.
pub struct Planned {
    /// The table that it writes.
    pub table: Table,
    /// What turns decoded rows into rows of that table.
    pub transform: Arc<dyn Transform>,
    /// The columns that are read of each topic.
    pub columns: BTreeMap<String, BTreeSet<String>>,
    /// A hash of what the statement computes, whatever its spelling: see [`crate::hash`].
    pub fingerprint: String,
}

impl fmt::Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planned").field("table", &self.table).field("columns", &self.columns).finish_non_exhaustive()
    }
}

/// Plans a statement.
///
/// # Errors
/// Syntax, unknown names and types, with their place; what can't be run exactly once over batches (ORDER BY, LIMIT,
/// DISTINCT, OVER, joins of two streams, subqueries over a topic, exact medians, functions that give a different result
/// each time), with the reason and what to write instead; and statements that would fail for every record.
pub async fn plan(statement: &Statement<'_>) -> Result<Planned> {
    let (planned, transform) = in_planner_thread(|| futures::executor::block_on(unguarded(statement)))?;
    // Running the plan may need the caller's runtime.
    rehearse(&transform, &statement.inputs, &planned.columns).await?;
    Ok(planned)
}

/// The columns of the statement's table, without a trial of how it runs.
///
/// # Errors
/// Those of [`plan`], but for statements that would fail for every record.
pub fn columns(statement: &Statement<'_>) -> Result<Vec<Column>> {
    in_planner_thread(|| futures::executor::block_on(unguarded(statement))).map(|(planned, _)| planned.table.columns)
}

/// Runs `work` in a thread of its own, which has a stack for the deepest statement that is accepted. A panic of the planner
/// fails only this statement.
pub fn in_planner_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let done = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("planner".to_owned()).stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, work).map(std::thread::ScopedJoinHandle::join)
    });
    match done {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(SqlError::new(
            "internal: the planner failed at this statement. Please report it, and write the statement in another way",
        )),
        Err(error) => Err(SqlError::new(format!("can't start a thread to plan the statement: {error}"))),
    }
}

/// The stack size of the planning thread.
const STACK_BYTES: usize = 64 << 20;

/// Plans the statement in the current thread. The transform is also returned before references are added.
async fn unguarded(statement: &Statement<'_>) -> Result<(Planned, SqlTransform)> {
    let state = session(statement)?;
    let logical = typed(&state, statement).await?;
    let is_topic = |name: &str| statement.reads(name);
    let Split { above, aggregate } = refuse::split(&logical);
    let may_be_null = refuse::has_scalar_subquery(&logical);
    let (logical, mut columns, combine) = match aggregate {
        None => {
            let columns = appended(&logical);
            let (logical, columns) = with_carried(logical, columns, statement)?;
            (logical, columns, None)
        }
        Some(_) if !statement.carried.is_empty() => return Err(SqlError::new(AGGREGATED)),
        Some(aggregate) => {
            let merged = merge(&state, &aggregate, &above, &logical, &is_topic, statement.into).await?;
            (merged.partial, merged.columns, Some((merged.finisher, merged.view)))
        }
    };
    if may_be_null {
        columns.iter_mut().for_each(|column| column.nullable = true);
    }
    let optimized = state.optimize(&logical)?;
    let physical = unnest::bounded(state.create_physical_plan(&optimized).await?)?;
    let table_of = |columns, view: Option<View>, combine| Table {
        name: if view.is_some() { format!("{}_state", statement.into) } else { statement.into.to_owned() },
        columns,
        combine,
        view,
    };
    let table = match combine {
        None => table_of(columns, None, None),
        Some((finisher, view)) => {
            // The combiner needs the table's columns, and the table needs the combiner: so the columns come first.
            let bare = table_of(columns.clone(), view.clone(), None);
            let combiner = Combiner { table: bare, finisher, context: state.task_ctx() };
            table_of(columns, view, Some(Arc::new(combiner) as _))
        }
    };
    let columns = columns_read(&optimized, &is_topic)?;
    // The references are still empty while the statement is rehearsed over made-up records.
    let joins = optimized.exists(|node| Ok(matches!(node, LogicalPlan::Join(_))))?;
    let (context, schema, references) = (state.task_ctx(), table.schema(), Vec::new());
    let bare = SqlTransform { plan: physical, context, schema, references, lookups: Vec::new(), joins };
    let lookups = key_plans(&state, &optimized, statement).await?;
    lookups.iter().for_each(|keys| statement.references[keys.reference].set_asked_by(&keys.column));
    let transform = SqlTransform { references: statement.references.clone(), lookups, ..bare.clone() };
    let fingerprint = fingerprint(&optimized, &table)?;
    Ok((Planned { table, transform: Arc::new(transform), columns, fingerprint }, bare))
}

/// The statement as a plan with final types, which can be run exactly once over batches.
pub async fn typed(state: &SessionState, statement: &Statement<'_>) -> Result<LogicalPlan> {
    let known = known(state, statement);
    let tell = |error| known.tell(error);
    let parsed = parse(state, statement.sql, &statement.inputs).map_err(tell)?;
    let logical = state.statement_to_plan(parsed?).await.map_err(tell)?;
    let logical = casts::unmarked(logical).map_err(tell)?;
    refuse::check(&logical, &|name| statement.reads(name), &|expr| fold(state, expr))?;
    let logical = with_final_types(state, logical).map_err(tell)?;
    check_names(&logical)?;
    Ok(logical)
}

/// Adds the casts that make the types of each expression's parts fit: a union of an int and a bigint is a bigint.
fn with_final_types(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    Analyzer::with_rules(typing()).execute_and_check(plan, state.config_options(), |_, _| {})
}

/// Computes a constant expression.
pub fn fold(state: &SessionState, expr: &Expr) -> Result<Expr> {
    let options = Arc::clone(state.config_options());
    let context = SimplifyContext::builder().with_config_options(options).build();
    Ok(ExprSimplifier::new(context).simplify(expr.clone())?)
}

fn appended(plan: &LogicalPlan) -> Vec<Column> {
    let column = |field: &Arc<arrow::datatypes::Field>| Column {
        name: field.name().clone(),
        // `check_names` has already checked all types.
        data_type: stored(field.data_type(), field.name()).unwrap_or(DataType::Utf8),
        nullable: field.is_nullable(),
        role: Role::Value,
    };
    plan.schema().fields().iter().map(column).collect()
}

/// Why groups can't be written where every row comes from one record.
const AGGREGATED: &str = "a topic, an event store and a cache get a row for each event, and a group has several: its sums would \
                          change with each batch. Leave GROUP BY and aggregates out, and sum in a function that writes a table";

/// The plan and its columns with what goes along with every row.
fn with_carried(
    plan: LogicalPlan,
    mut columns: Vec<Column>,
    statement: &Statement<'_>,
) -> Result<(LogicalPlan, Vec<Column>)> {
    if statement.carried.is_empty() {
        return Ok((plan, columns));
    }
    if let Some(own) = columns.iter().find(|column| statement.carried.contains(&column.name.as_str())) {
        let name = &own.name;
        return Err(SqlError::new(format!(
            "a record has its own `{name}`, so no field can have this name: call it something else, as in {name} AS source{name}"
        )));
    }
    let plan = carry(plan, statement.carried, &|name| statement.reads(name))?;
    let behind = plan.schema().fields().iter().skip(columns.len());
    columns.extend(behind.map(|field| Column {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        nullable: true,
        role: Role::Carried,
    }));
    Ok((plan, columns))
}

/// The columns that the scans of each topic read, once the optimizer has pushed the projections down.
fn columns_read(plan: &LogicalPlan, is_topic: &dyn Fn(&str) -> bool) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut columns: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && is_topic(scan.table_name.table())
        {
            let read = columns.entry(scan.table_name.table().to_owned()).or_default();
            read.extend(scan.projected_schema.fields().iter().map(|field| field.name().clone()));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(columns)
}
