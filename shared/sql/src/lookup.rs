//! References that are asked by key. Which keys a batch needs is found by running the other side of the join: only what WHERE
//! has left is asked for, and a key may come from another reference.

use std::{collections::HashSet, sync::Arc};

use arrow::{
    array::{Array as _, ArrayRef, RecordBatch},
    compute::{concat, filter},
    datatypes::DataType,
    row::{OwnedRow, Row, RowConverter, SortField},
};
use datafusion::{
    common::{
        Column, JoinType, NullEquality,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    execution::session_state::SessionState,
    logical_expr::{Expr, ExprSchemable as _, Join, LogicalPlan, LogicalPlanBuilder},
    physical_plan::ExecutionPlan,
};
use millstream_core::Error;

use crate::{
    error::{Result, SqlError, place_of},
    statement::Statement,
    types, unnest,
};

/// The plan that finds the keys of a reference that a batch needs.
#[derive(Clone, Debug)]
pub struct KeyPlan {
    /// Which of the statement's references.
    pub reference: usize,
    /// The column that it is asked by.
    pub column: String,
    /// Gives the keys as its one column, each once and perhaps a null.
    pub plan: Arc<dyn ExecutionPlan>,
}

/// The plans for all keys of an optimized plan, in an order in which a plan finds the rows that it needs itself.
///
/// # Errors
/// When a reference that is asked by key isn't joined by the equality of a column, or by two different ones.
pub async fn key_plans(state: &SessionState, plan: &LogicalPlan, statement: &Statement<'_>) -> Result<Vec<KeyPlan>> {
    let scans = scans(plan, statement)?;
    if scans.is_empty() {
        return Ok(Vec::new());
    }
    let mut asked = Vec::new();
    collect(plan, statement, &mut asked)?;
    if let Some(reference) = scans.iter().find(|scan| {
        let of = |all: &[usize]| all.iter().filter(|other| other == scan).count();
        of(&scans) != of(&asked.iter().map(|asked| asked.reference).collect::<Vec<_>>())
    }) {
        return Err(not_by_key(&statement.references[*reference].name));
    }
    let mut plans: Vec<KeyPlan> = Vec::new();
    for Asked { reference, column, keys } in asked {
        if let Some(other) = plans.iter().find(|other| other.reference == reference && other.column != column) {
            let name = &statement.references[reference].name;
            return Err(SqlError::new(format!(
                "the reference `{name}` has `lookup`, and is joined by `{}` and by `{column}`: it is asked by one column. \
                 Declare a second reference to the same table",
                other.column
            )));
        }
        let plan = unnest::bounded(state.create_physical_plan(&state.optimize(&keys)?).await?)?;
        plans.push(KeyPlan { reference, column, plan });
    }
    Ok(plans)
}

fn not_by_key(name: &str) -> SqlError {
    SqlError::new(format!(
        "the reference `{name}` has `lookup`: it is asked for the keys of each batch, so it must be joined with the topic by the \
         equality of one of its columns, as in FROM topic t LEFT JOIN {name} r ON r.id = t.id. Join it so, or leave `lookup` out"
    ))
}

/// A place of a plan where a reference is asked by key.
struct Asked {
    reference: usize,
    column: String,
    keys: LogicalPlan,
}

/// The references that are asked by key, once for each time that the plan reads them.
fn scans(plan: &LogicalPlan, statement: &Statement<'_>) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found.extend(index_of(statement, scan.table_name.table()));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn index_of(statement: &Statement<'_>, table: &str) -> Option<usize> {
    statement.references.iter().position(|reference| reference.is_asked() && reference.name == table)
}

/// Those beneath a join come before it: its keys may be made of their rows.
fn collect(plan: &LogicalPlan, statement: &Statement<'_>, asked: &mut Vec<Asked>) -> Result<()> {
    for input in plan.inputs() {
        collect(input, statement, asked)?;
    }
    let LogicalPlan::Join(join) = plan else { return Ok(()) };
    // On the side that is kept, a row without a partner would be missing.
    let right = matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti);
    let left = matches!(join.join_type, JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti);
    let by_value = join.null_equality == NullEquality::NullEqualsNothing && !join.null_aware;
    if right && by_value {
        asked.extend(asked_in(join, statement, true)?);
    }
    if left && by_value {
        asked.extend(asked_in(join, statement, false)?);
    }
    Ok(())
}

/// The right or left side of a join, if that is a reference which the other side, a topic, has the keys of.
fn asked_in(join: &Join, statement: &Statement<'_>, right: bool) -> Result<Option<Asked>> {
    let (side, other) = if right { (&join.right, &join.left) } else { (&join.left, &join.right) };
    let reads_topic = other
        .exists(|node| Ok(matches!(node, LogicalPlan::TableScan(scan) if statement.reads(scan.table_name.table()))))?;
    if !reads_topic {
        return Ok(None);
    }
    let mut unfit = None;
    for (left, on_right) in &join.on {
        let (of_side, key) = if right { (on_right, left) } else { (left, on_right) };
        let of_cast = if let Expr::Cast(cast) = of_side { cast.expr.as_ref() } else { of_side };
        let Expr::Column(column) = of_cast else { continue };
        let Some((reference, column)) = base_column(side, column, statement) else { continue };
        let field = statement.references[reference].schema.field_with_name(&column).cloned();
        let data_type = field.map_err(|error| SqlError::new(error.to_string()))?.data_type().clone();
        let of_key = key.get_type(other.schema())?;
        let is_key = data_type.is_integer() || matches!(data_type, DataType::Utf8 | DataType::Date32);
        if of_cast != of_side || of_key != data_type || !is_key {
            let name = &statement.references[reference].name;
            let unfit_here = SqlError::new(format!(
                "the reference `{name}` has `lookup`, and its column `{column}` of type {} is compared with one of type {}: the key of a lookup \
                 is a string, an integer or a date, of the same type on both sides. Declare the type that the topic's field has, \
                 or CAST that field",
                types::name(&data_type),
                types::name(&uncast(key, other).unwrap_or(of_key)),
            ));
            unfit.get_or_insert(unfit_here.at(place_of(of_side)));
            continue;
        }
        // Not filtered: a filter would be pushed down, and compute keys of rows that the statement has dropped by then.
        let keys = LogicalPlanBuilder::from(other.as_ref().clone());
        let keys = keys.project([key.clone().alias("key")])?.distinct()?.build()?;
        return Ok(Some(Asked { reference, column, keys }));
    }
    unfit.map_or(Ok(None), Err)
}

/// The type of what a cast is over.
fn uncast(key: &Expr, of: &LogicalPlan) -> Option<DataType> {
    let Expr::Cast(cast) = key else { return None };
    cast.expr.get_type(of.schema()).ok()
}

/// The reference and its column that a column of a plan is; `None` unless the plan only chooses rows and columns of it.
fn base_column(plan: &LogicalPlan, column: &Column, statement: &Statement<'_>) -> Option<(usize, String)> {
    let at = |input: &LogicalPlan, index: usize| {
        let (qualifier, field) = input.schema().qualified_field(index);
        Column::from((qualifier, field))
    };
    match plan {
        LogicalPlan::TableScan(scan) => Some((index_of(statement, scan.table_name.table())?, column.name.clone())),
        LogicalPlan::Filter(filter) => base_column(&filter.input, column, statement),
        LogicalPlan::SubqueryAlias(alias) => {
            let index = plan.schema().index_of_column(column).ok()?;
            base_column(&alias.input, &at(&alias.input, index), statement)
        }
        LogicalPlan::Projection(projection) => {
            let index = plan.schema().index_of_column(column).ok()?;
            match projection.expr.get(index)?.clone().unalias() {
                Expr::Column(column) => base_column(&projection.input, &column, statement),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The keys that a batch has already asked one reference for.
#[derive(Default)]
pub struct AskedKeys(HashSet<OwnedRow>);

impl AskedKeys {
    /// The keys that are asked for the first time; they count as asked from now on. `None` if there are none.
    ///
    /// # Errors
    /// `Stop`, which is a defect.
    pub fn first_asked(&mut self, found: &[RecordBatch]) -> millstream_core::Result<Option<ArrayRef>> {
        let internal = |error| Error::stop("internal: keys can't be compared").caused_by(error);
        let columns: Vec<_> = found.iter().map(|batch| batch.column(0).as_ref()).collect();
        if columns.is_empty() {
            return Ok(None);
        }
        let keys = concat(&columns).map_err(internal)?;
        let converter = RowConverter::new(vec![SortField::new(keys.data_type().clone())]).map_err(internal)?;
        let rows = converter.convert_columns(std::slice::from_ref(&keys)).map_err(internal)?;
        let first = |(at, row): (usize, Row<'_>)| keys.is_valid(at) && self.0.insert(row.owned());
        let new: Vec<bool> = rows.iter().enumerate().map(first).collect();
        let keys = filter(&keys, &new.into()).map_err(internal)?;
        Ok((!keys.is_empty()).then_some(keys))
    }
}
