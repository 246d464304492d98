//! From a statement to a table, a transform over batches, and the columns that must be decoded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use arrow::datatypes::{DataType, Fields, SchemaRef};
use datafusion::{
    common::{
        DataFusionError,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    execution::session_state::SessionState,
    logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, simplify::SimplifyContext},
    optimizer::{Analyzer, simplify_expressions::ExprSimplifier},
};
use millstream_core::{Column, Role, Table, Transform};

use crate::{
    above::{Finisher, ROW, View, finish},
    casts,
    error::{Result, SqlError, place_of},
    finite, hop,
    messages::Known,
    names::{Names, folded, identifier, is_identifier},
    parse::parse,
    refuse::{self, Split},
    rehearse::rehearse,
    run::{Combiner, ReferenceTable, SqlTransform},
    session::{session, typing},
    states::{self, column},
    types, unnest,
    window::instant,
};

/// A topic as a table: its fields, then the meta columns.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name in SQL.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
}

/// What to plan.
#[derive(Clone, Debug)]
pub struct Statement<'a> {
    /// One SELECT.
    pub sql: &'a str,
    /// The topics of the function's `from`.
    pub inputs: Vec<Input>,
    /// Tables held in memory that topics may be joined with.
    pub references: Vec<Arc<ReferenceTable>>,
    /// The name of the table that the rows go to.
    pub into: &'a str,
}

/// A planned statement.
pub struct Planned {
    /// The table that it writes.
    pub table: Table,
    /// What turns decoded rows into rows of that table.
    pub transform: Arc<dyn Transform>,
    /// The columns that are read of each topic.
    pub columns: BTreeMap<String, BTreeSet<String>>,
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
    // A thread of its own has a stack for the deepest statement that is accepted, and a panic of the planner fails only
    // this statement.
    let planned = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("planner".to_owned()).stack_size(STACK_BYTES);
        let thread = thread.spawn_scoped(scope, || futures::executor::block_on(unguarded(statement)));
        thread.map(std::thread::ScopedJoinHandle::join)
    });
    let (planned, transform) = match planned {
        Ok(Ok(planned)) => planned?,
        Ok(Err(_)) => {
            return Err(SqlError::new(
                "internal: the planner failed at this statement. Please report it, and write the statement in another \
                 way",
            ));
        }
        Err(error) => {
            return Err(SqlError::new(format!("can't start a thread to plan the statement: {error}")));
        }
    };
    // Running the plan may need the caller's runtime.
    rehearse(&transform, &statement.inputs, &planned.columns).await?;
    Ok(planned)
}

/// The stack size of the planning thread.
const STACK_BYTES: usize = 64 << 20;

/// Plans the statement in the current thread. The transform is also returned before references are added.
async fn unguarded(statement: &Statement<'_>) -> Result<(Planned, SqlTransform)> {
    let state = session(statement)?;
    let known = known(&state, statement);
    let tell = |error| known.tell(error);
    let parsed = parse(&state, statement.sql, &statement.inputs).map_err(tell)?;
    let logical = state.statement_to_plan(parsed?).await.map_err(tell)?;
    let logical = casts::unmarked(logical).map_err(tell)?;
    let is_topic = |name: &str| statement.inputs.iter().any(|input| input.name == name);
    refuse::check(&logical, &is_topic, &|expr| fold(&state, expr))?;
    let logical = with_final_types(&state, logical).map_err(tell)?;
    named(&logical)?;
    let Split { above, aggregate } = refuse::split(&logical);
    let may_be_null = refuse::has_scalar_subquery(&logical);
    let (logical, mut columns, combine) = match aggregate {
        None => (logical.clone(), appended(&logical), None),
        Some(aggregate) => {
            let merged = merged(&state, &aggregate, &above, &logical, &is_topic, statement.into).await?;
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
    let bare = SqlTransform { plan: physical, context, schema, references, joins };
    let transform = SqlTransform { references: statement.references.clone(), ..bare.clone() };
    Ok((Planned { table, transform: Arc::new(transform), columns }, bare))
}

/// The names that the statement may use.
fn known<'a>(state: &SessionState, statement: &Statement<'a>) -> Known<'a> {
    let inputs = statement.inputs.iter().map(|input| input.name.clone());
    let references = statement.references.iter().map(|reference| reference.name.clone());
    let functions = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
    let mut fields = Vec::new();
    statement.inputs.iter().for_each(|input| of_objects(input.schema.fields(), &mut fields));
    let (tables, functions) = (inputs.chain(references).collect(), functions.cloned().collect());
    Known { sql: statement.sql, tables, functions, fields }
}

/// Collects the names of the fields of objects.
fn of_objects(fields: &Fields, names: &mut Vec<String>) {
    for field in fields {
        let mut data_type = field.data_type();
        while let DataType::List(item) = data_type {
            data_type = item.data_type();
        }
        if let DataType::Struct(inner) = data_type {
            names.extend(inner.iter().map(|field| field.name().clone()));
            of_objects(inner, names);
        }
    }
}

/// Adds the casts that make the types of each expression's parts fit: a union of an int and a bigint is a bigint.
fn with_final_types(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    Analyzer::with_rules(typing()).execute_and_check(plan, state.config_options(), |_, _| {})
}

/// Computes a constant expression.
fn fold(state: &SessionState, expr: &Expr) -> Result<Expr> {
    let options = Arc::clone(state.config_options());
    let context = SimplifyContext::builder().with_config_options(options).build();
    Ok(ExprSimplifier::new(context).simplify(expr.clone())?)
}

/// The name of an aggregate over a batch, followed by a number, until it gets its column's name.
const AGGREGATE: &str = "__aggregate_";

/// Checks that every output column has a name that a table can use.
fn named(plan: &LogicalPlan) -> Result<()> {
    let mut seen = BTreeMap::new();
    for field in plan.schema().fields() {
        let name = field.name();
        if !is_identifier(name) {
            return Err(SqlError::new(format!(
                "the output column `{name}` needs a name of letters, digits and _ (at most 63): write `… AS name`"
            )));
        }
        if name == ROW || name.starts_with(AGGREGATE) || name.starts_with(hop::COLUMN) {
            return Err(SqlError::new(format!(
                "`{name}` is reserved for millstream: give the column another name with AS"
            )));
        }
        if let Some(other) = seen.insert(folded(name), name) {
            let same = if other == name { "" } else { ", which a store may take for one name" };
            let names = if other == name { format!("`{name}`") } else { format!("`{other}` and `{name}`") };
            return Err(SqlError::new(format!(
                "two output columns are named {names}{same}: give one another name with AS"
            )));
        }
        stored(field.data_type(), name)?;
    }
    Ok(())
}

/// The type that a column is stored with.
pub(crate) fn stored(data_type: &DataType, name: &str) -> Result<DataType> {
    Ok(match data_type {
        DataType::Null => {
            return Err(SqlError::new(format!(
                "column `{name}` is always null and has no type: write CAST(NULL AS type)"
            )));
        }
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Timestamp(..) => instant(),
        DataType::Dictionary(_, value) => stored(value, name)?,
        DataType::Decimal256(..) => {
            return Err(SqlError::new(format!("column `{name}` has more than 38 digits: cast it to decimal(38, s)")));
        }
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Interval(_) | DataType::Duration(_) | DataType::Time32(_) | DataType::Time64(_) => {
            return Err(SqlError::new(format!(
                "column `{name}` is an interval or a time of day, which tables can't hold: write extract(epoch FROM …) \
                 of each time and subtract them, which gives seconds, or show the times themselves"
            )));
        }
        other => match types::unstorable(other) {
            None => finite::type_of(other),
            Some(part) => {
                return Err(SqlError::new(format!(
                    "column `{name}` has the type {part}, which tables can't hold: cast it to another type, as in \
                     CAST(x AS double)"
                )));
            }
        },
    })
}

fn appended(plan: &LogicalPlan) -> Vec<Column> {
    let column = |field: &Arc<arrow::datatypes::Field>| Column {
        name: field.name().clone(),
        // `named` has already checked all types.
        data_type: stored(field.data_type(), field.name()).unwrap_or(DataType::Utf8),
        nullable: field.is_nullable(),
        role: Role::Value,
    };
    plan.schema().fields().iter().map(column).collect()
}

struct Merged {
    /// Groups and partial states over a batch, in the table's columns.
    partial: LogicalPlan,
    columns: Vec<Column>,
    finisher: Finisher,
    view: Option<View>,
}

async fn merged(
    state: &SessionState,
    aggregate: &Aggregate,
    above: &[LogicalPlan],
    root: &LogicalPlan,
    is_topic: &(dyn Fn(&str) -> bool + Sync),
    into: &str,
) -> Result<Merged> {
    let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
    if group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
        return Err(SqlError::new("GROUPING SETS, ROLLUP and CUBE are not supported: write one function per grouping"));
    }
    let outputs = crate::above::trace(above, schema, root)?;
    // A group that is written twice is one column of the aggregate, shown under two names.
    let mut distinct: Vec<Expr> = Vec::with_capacity(group_expr.len());
    for group in group_expr {
        if !distinct.contains(group) {
            distinct.push(group.clone());
        }
    }
    if schema.fields().len() != distinct.len() + aggr_expr.len() {
        return Err(SqlError::new("internal: the aggregate has other columns than its expressions"));
    }
    let (rows, groups) = hop::unnest(input, &distinct)?;
    let groups = finite::in_groups(groups, rows.schema())?;
    let mut names = Names::default();
    let mut columns = Vec::new();
    let mut values = Vec::new();
    let mut finished = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let name = names.free(&outputs.name_of(index).unwrap_or_else(|| format!("key_{}", index + 1)));
        let (_, field) = schema.qualified_field(index);
        let data_type = stored(field.data_type(), &name)?;
        columns.push(Column { name: name.clone(), data_type, nullable: field.is_nullable(), role: Role::Key });
        values.push(group.clone());
        finished.push(column(&name));
    }
    // Shown columns get their names first, then the states get theirs.
    let mut aggregates = Vec::with_capacity(aggr_expr.len());
    for (index, expr) in aggr_expr.iter().enumerate().map(|(index, expr)| (index + groups.len(), expr)) {
        let Expr::AggregateFunction(function) = expr.clone().unalias_nested().data else {
            return Err(SqlError::new("internal: not an aggregate function"));
        };
        let mut name = expr.schema_name().to_string();
        if name.contains("CAST(") {
            // This name says what the aggregate is of, without the cast.
            name = Expr::AggregateFunction(function.clone()).schema_name().to_string();
        }
        let base = names.free(&outputs.name_of(index).unwrap_or_else(|| identifier(&name)));
        aggregates.push((index, function, base, place_of(expr)));
    }
    let mut direct = true;
    for (index, function, base, place) in aggregates {
        let (_, field) = schema.qualified_field(index);
        let lowered = states::lower(&function, input, is_topic, field.data_type(), &base, &mut names);
        let lowered = lowered.map_err(|error| error.at(place))?;
        direct &= lowered.direct;
        for state in lowered.states {
            let data_type = stored(&state.data_type, &state.name)?;
            columns.push(Column { name: state.name, data_type, nullable: true, role: Role::State(state.merge) });
            values.push(state.partial);
        }
        finished.push(lowered.finish);
    }
    let partial = partial_plan(rows, groups, &values, &columns)?;
    let plain = direct && outputs.is_whole();
    if plain {
        // The table is the result: its columns are in the order of the SELECT.
        let order = outputs.order();
        columns = order.iter().map(|index| columns[*index].clone()).collect();
    }
    let (finisher, view) = finish(state, above, root, &columns, finished, into, plain).await?;
    let project = columns.iter().map(|have| column(&have.name)).collect::<Vec<_>>();
    let partial = LogicalPlanBuilder::from(partial).project(project)?.build()?;
    Ok(Merged { partial, columns, finisher, view })
}

/// Aggregates `values` by `groups` and names the results after the columns.
fn partial_plan(input: LogicalPlan, groups: Vec<Expr>, values: &[Expr], columns: &[Column]) -> Result<LogicalPlan> {
    let mut aggregates: Vec<Expr> = Vec::new();
    for value in values {
        value.apply(|expr| {
            if matches!(expr, Expr::AggregateFunction(_)) {
                if !aggregates.contains(expr) {
                    aggregates.push(expr.clone());
                }
                return Ok(TreeNodeRecursion::Jump);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    let number_of_groups = groups.len();
    // Numbered names: two different aggregates may still be written in the same way.
    let named = aggregates.iter().enumerate().map(|(index, expr)| expr.clone().alias(format!("{AGGREGATE}{index}")));
    let groups = groups.into_iter().enumerate().map(|(index, group)| group.alias(format!("{AGGREGATE}key_{index}")));
    let plan = LogicalPlanBuilder::from(input).aggregate(groups, named)?.build()?;
    let outputs: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let mut exprs = Vec::with_capacity(values.len());
    for (index, (value, column)) in values.iter().zip(columns).enumerate() {
        let value = if index < number_of_groups {
            outputs[index].clone()
        } else {
            let replaced = value.clone().transform_up(|expr| {
                let index = aggregates.iter().position(|aggregate| *aggregate == expr);
                Ok(match index {
                    Some(index) => Transformed::yes(outputs[number_of_groups + index].clone()),
                    None => Transformed::no(expr),
                })
            });
            replaced?.data
        };
        exprs.push(value.alias(&column.name));
    }
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
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
