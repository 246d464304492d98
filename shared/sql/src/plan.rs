//! From a statement to a table, a transform over batches, and the columns that must be decoded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::{
    common::{
        Column as PlanColumn,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    execution::{SessionStateBuilder, context::SessionContext, session_state::SessionState},
    logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder},
    prelude::SessionConfig,
    sql::{
        parser::Statement as ParsedStatement,
        sqlparser::ast::{self, ExcludeSelectItem, SelectItem, SetExpr, VisitMut, VisitorMut},
    },
};
use millstream_core::{Column, META_COLUMNS, Role, Table, Transform};

use crate::{
    above::{Finisher, View, finish},
    checked::CheckIntegers,
    error::{Result, SqlError},
    refuse::{self, Split},
    run::{Combiner, ReferenceTable, SqlTransform},
    sketch,
    slot::SlotTable,
    states::{self, column},
    window::{Window, instant},
};

/// A topic as a table: its fields, then the meta columns that may be named.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name in SQL.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
}

/// What is to be planned.
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

/// A statement, planned.
pub struct Planned {
    /// The table it writes.
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
/// Syntax, unknown names and types, with their place; and what can't be run exactly once over batches (ORDER BY, LIMIT,
/// DISTINCT, OVER, joins of two streams, exact medians, functions that give another result each time), with the reason
/// and what to write instead.
pub async fn plan(statement: &Statement<'_>) -> Result<Planned> {
    let state = session(statement)?;
    let parsed = parse(&state, statement)?;
    let logical = state.statement_to_plan(parsed).await?;
    let is_topic = |name: &str| statement.inputs.iter().any(|input| input.name == name);
    let Split { above, aggregate } = refuse::check(&logical, &is_topic)?;
    named(&logical)?;
    let (logical, columns, combine) = match aggregate {
        None => (logical.clone(), appended(&logical), None),
        Some(aggregate) => {
            let merged = merged(&state, &aggregate, &above, &logical, statement.into).await?;
            (merged.partial, merged.columns, Some((merged.finisher, merged.view)))
        }
    };
    let optimized = state.optimize(&logical)?;
    let physical = state.create_physical_plan(&optimized).await?;
    let table_of = |columns, view: Option<View>, combine| Table {
        name: if view.is_some() { format!("{}_state", statement.into) } else { statement.into.to_owned() },
        columns,
        combine,
        view,
    };
    let table = match combine {
        None => table_of(columns, None, None),
        Some((finisher, view)) => {
            // The combiner needs the table's columns, and the table the combiner: the columns come first.
            let bare = table_of(columns.clone(), view.clone(), None);
            let combiner = Combiner { table: bare, finisher, context: state.task_ctx() };
            table_of(columns, view, Some(Arc::new(combiner) as _))
        }
    };
    let transform = SqlTransform {
        plan: physical,
        context: state.task_ctx(),
        schema: table.schema(),
        references: statement.references.clone(),
    };
    let columns = columns_read(&optimized, &is_topic)?;
    Ok(Planned { table, transform: Arc::new(transform), columns })
}

fn session(statement: &Statement<'_>) -> Result<SessionState> {
    let mut config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    // Fields of JSON are written as they are: `branchName` is not `branchname`.
    options.sql_parser.enable_ident_normalization = false;
    let state = SessionStateBuilder::new().with_config(config).with_default_features().build();
    let context = SessionContext::new_with_state(state);
    context.add_analyzer_rule(Arc::new(CheckIntegers));
    for window in [Window::Tumble, Window::Hop, Window::HopStarts] {
        context.register_udf(window.udf());
    }
    context.register_udf(sketch::estimate_udf());
    let mut slots: Vec<_> =
        statement.inputs.iter().map(|input| (input.name.clone(), Arc::clone(&input.schema))).collect();
    slots.extend(statement.references.iter().map(|reference| (reference.name.clone(), Arc::clone(&reference.schema))));
    for (name, schema) in slots {
        let table = datafusion::common::TableReference::bare(name.clone());
        context.register_table(table, Arc::new(SlotTable { name, schema }))?;
    }
    Ok(context.state())
}

/// One SELECT, in which `*` of a topic means its own fields.
fn parse(state: &SessionState, statement: &Statement<'_>) -> Result<ParsedStatement> {
    let mut parsed = state.sql_to_statement(statement.sql, &datafusion::config::Dialect::PostgreSQL)?;
    let ParsedStatement::Statement(sql) = &mut parsed else {
        return Err(SqlError::new("only a SELECT can be run over a topic"));
    };
    if !matches!(sql.as_ref(), ast::Statement::Query(_)) {
        return Err(SqlError::new("only a SELECT can be run over a topic"));
    }
    let mut stars = Stars { inputs: &statement.inputs };
    // The visitor never breaks off.
    let _ = sql.visit(&mut stars);
    Ok(parsed)
}

/// Leaves the meta columns out of `*`.
struct Stars<'a> {
    inputs: &'a [Input],
}

impl VisitorMut for Stars<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> std::ops::ControlFlow<()> {
        self.set_expr(&mut query.body);
        std::ops::ControlFlow::Continue(())
    }
}

impl Stars<'_> {
    fn set_expr(&self, body: &mut SetExpr) {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::SetOperation { left, right, .. } => {
                self.set_expr(left);
                self.set_expr(right);
            }
            _ => {}
        }
    }

    fn select(&self, select: &mut ast::Select) {
        let meta_of = |factor: &ast::TableFactor| -> Vec<&str> {
            let ast::TableFactor::Table { name, .. } = factor else { return Vec::new() };
            let name = name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.as_str());
            let input = self.inputs.iter().find(|input| Some(input.name.as_str()) == name);
            let has = |input: &&Input, column: &str| input.schema.field_with_name(column).is_ok();
            input.map_or_else(Vec::new, |input| META_COLUMNS.into_iter().filter(|column| has(&input, column)).collect())
        };
        let factors = select
            .from
            .iter()
            .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
        let hidden: BTreeSet<&str> = factors.flat_map(meta_of).collect();
        if hidden.is_empty() {
            return;
        }
        for item in &mut select.projection {
            if let SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) = item
                && options.opt_exclude.is_none()
                && options.opt_except.is_none()
            {
                let names = hidden.iter().map(|name| ast::ObjectName::from(vec![ast::Ident::new(*name)])).collect();
                options.opt_exclude = Some(ExcludeSelectItem::Multiple(names));
            }
        }
    }
}

/// Every output column must have a name that a table can have.
fn named(plan: &LogicalPlan) -> Result<()> {
    let mut seen = BTreeSet::new();
    for field in plan.schema().fields() {
        let name = field.name();
        if !is_identifier(name) {
            return Err(SqlError::new(format!("the output column `{name}` needs a name: write `… AS name`")));
        }
        if !seen.insert(name) {
            return Err(SqlError::new(format!("two output columns are named `{name}`: give one another name with AS")));
        }
        stored(field.data_type(), name)?;
    }
    Ok(())
}

fn is_identifier(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && letters.all(|c| c.is_alphanumeric() || c == '_')
        && name.len() <= 63
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
                "column `{name}` is an interval or a time of day: cast it to text or a number"
            )));
        }
        other => other.clone(),
    })
}

fn appended(plan: &LogicalPlan) -> Vec<Column> {
    let column = |field: &Arc<arrow::datatypes::Field>| Column {
        name: field.name().clone(),
        // `named` has checked all types.
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
    into: &str,
) -> Result<Merged> {
    let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
    if group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
        return Err(SqlError::new("GROUPING SETS, ROLLUP and CUBE: write one function per grouping"));
    }
    let outputs = crate::above::trace(above, schema, root)?;
    let (input, groups) = unnest_hops(input, group_expr)?;
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
    let mut direct = true;
    for (index, expr) in aggr_expr.iter().enumerate().map(|(index, expr)| (index + groups.len(), expr)) {
        let Expr::AggregateFunction(function) = expr.clone().unalias_nested().data else {
            return Err(SqlError::new(format!("{expr} is no aggregate function")));
        };
        let base = names.free(&outputs.name_of(index).unwrap_or_else(|| identifier(&expr.schema_name().to_string())));
        let (_, field) = schema.qualified_field(index);
        let lowered = states::lower(&function, input.schema(), field.data_type(), &base)?;
        direct &= lowered.direct;
        for state in lowered.states {
            let data_type = stored(&state.data_type, &state.name)?;
            columns.push(Column { name: state.name, data_type, nullable: true, role: Role::State(state.merge) });
            values.push(state.partial);
        }
        finished.push(lowered.finish);
    }
    let partial = partial_plan(input, groups, &values, &columns)?;
    let plain = direct && outputs.is_whole();
    if plain {
        // The table is the result: its columns in the order in which they were asked for.
        let order = outputs.order();
        columns = order.iter().map(|index| columns[*index].clone()).collect();
    }
    let (finisher, view) = finish(state, above, root, &columns, finished, into, plain).await?;
    let project = columns.iter().map(|have| column(&have.name)).collect::<Vec<_>>();
    let partial = LogicalPlanBuilder::from(partial).project(project)?.build()?;
    Ok(Merged { partial, columns, finisher, view })
}

/// `hop` in GROUP BY becomes one row per window, and the window's start the group.
fn unnest_hops(input: &Arc<LogicalPlan>, groups: &[Expr]) -> Result<(LogicalPlan, Vec<Expr>)> {
    let mut input = input.as_ref().clone();
    let mut plain = Vec::with_capacity(groups.len());
    for group in groups {
        let bare = group.clone().unalias_nested().data;
        match bare {
            Expr::ScalarFunction(function) if function.name() == Window::Hop.name() => {
                let name = format!("__hop_{}", plain.len());
                let starts = Window::HopStarts.udf().call(function.args).alias(&name);
                let mut exprs: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
                exprs.push(starts);
                input = LogicalPlanBuilder::from(input)
                    .project(exprs)?
                    .unnest_column(PlanColumn::new_unqualified(&name))?
                    .build()?;
                plain.push(column(&name));
            }
            other => plain.push(other),
        }
    }
    Ok((input, plain))
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
    let plan = LogicalPlanBuilder::from(input).aggregate(groups, aggregates)?.build()?;
    let outputs: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let mut exprs = Vec::with_capacity(values.len());
    for (index, (value, column)) in values.iter().zip(columns).enumerate() {
        let value = if index < number_of_groups {
            outputs[index].clone()
        } else {
            let replaced = value.clone().transform_up(|expr| {
                Ok(if matches!(expr, Expr::AggregateFunction(_)) {
                    let name = expr.schema_name().to_string();
                    Transformed::yes(Expr::Column(PlanColumn::new_unqualified(name)))
                } else {
                    Transformed::no(expr)
                })
            });
            replaced?.data
        };
        exprs.push(value.alias(&column.name));
    }
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}

/// The columns that each topic's scans read, after the optimizer has pushed the projection down.
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

/// Names that are taken once.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn free(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = 2;
        while !self.0.insert(name.clone()) {
            name = format!("{wanted}_{number}");
            number += 1;
        }
        name
    }
}

/// `avg(price.price)` as `avg_price_price`, at most 40 letters.
fn identifier(text: &str) -> String {
    let words: Vec<String> = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let joined: String = words.join("_").chars().take(40).collect();
    if joined.starts_with(|c: char| c.is_ascii_digit()) { format!("_{joined}") } else { joined }
}
