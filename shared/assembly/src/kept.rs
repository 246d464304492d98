//! What a statement must be whose rows are kept by the positions of their events: in an event store or a cache.

use arrow::datatypes::DataType;
use millstream_core::{Column, Role, Table, type_name};
use millstream_pipeline::{Function, Pipeline, Reading};

use crate::used::joined_by;

/// A store without transactions gets the rows of a batch again after a crash, and they must be the same ones.
///
/// # Errors
/// What makes the rows depend on more than the events, for a person.
pub(crate) fn check(pipeline: &Pipeline, function: &Function) -> Result<(), String> {
    match joined_by(pipeline, function).next() {
        None => Ok(()),
        Some((reference, _)) => Err(format!(
            "it joins `{reference}`, and a function that uses `{}` can't: after a crash its rows are written again, and a reference \
             may have changed by then. Join it in a function that uses `transform`, and read the topic that it writes to",
            function.uses.name()
        )),
    }
}

/// Gives the column that `key` names its role.
///
/// # Errors
/// Why it can't be the key, for a person.
pub(crate) fn name_entity(function: &Function, reading: &Reading, table: &mut Table) -> Result<(), String> {
    let Some(key) = &reading.key else { return Ok(()) };
    let names: Vec<_> = own(&table.columns).map(|column| column.name.clone()).collect();
    let found = table.columns.iter_mut().find(|column| column.name == *key && column.role == Role::Value);
    let Some(column) = found else {
        return Err(format!("its key is `{key}`, which is not one of its columns: {}", names.join(", ")));
    };
    if !can_name(&column.data_type) {
        let is = type_name(&column.data_type);
        return Err(format!(
            "its key `{key}` is {is}; it must be a string, a boolean, an integer, a decimal, a date or a timestamp"
        ));
    }
    column.role = if function.into.system.has_feeds() { Role::Entity } else { Role::Newest };
    Ok(())
}

/// The columns that readers see.
pub(crate) fn own(columns: &[Column]) -> impl Iterator<Item = &Column> {
    columns.iter().filter(|column| column.role != Role::Carried)
}

/// Values that are equal exactly when their texts are.
fn can_name(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Utf8 | DataType::Boolean | DataType::Decimal128(..) | DataType::Date32 | DataType::Timestamp(..)
        )
}
