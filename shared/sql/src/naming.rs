//! Which names output columns can have, and which names a statement may use.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Fields};
use datafusion::{execution::session_state::SessionState, logical_expr::LogicalPlan};

use crate::{
    above::ROW,
    error::{Result, SqlError},
    hop,
    messages::Known,
    names::{folded, is_identifier},
    statement::Statement,
    stored::stored,
};

/// The name of an aggregate over a batch, followed by a number, until it gets its column's name.
pub(crate) const AGGREGATE: &str = "__aggregate_";

/// Checks that every output column has a name that a table can use.
pub(crate) fn check_names(plan: &LogicalPlan) -> Result<()> {
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

/// The names that the statement may use.
pub(crate) fn known<'a>(state: &SessionState, statement: &Statement<'a>) -> Known<'a> {
    let inputs = statement.inputs.iter().map(|input| input.name.clone());
    let references = statement.references.iter().map(|reference| reference.name.clone());
    let functions = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
    let mut fields = Vec::new();
    statement.inputs.iter().for_each(|input| add_object_fields(input.schema.fields(), &mut fields));
    let (tables, functions) = (inputs.chain(references).collect(), functions.cloned().collect());
    Known { sql: statement.sql, tables, functions, fields }
}

/// Collects the names of the fields of objects.
fn add_object_fields(fields: &Fields, names: &mut Vec<String>) {
    for field in fields {
        let mut data_type = field.data_type();
        while let DataType::List(item) = data_type {
            data_type = item.data_type();
        }
        if let DataType::Struct(inner) = data_type {
            names.extend(inner.iter().map(|field| field.name().clone()));
            add_object_fields(inner, names);
        }
    }
}
