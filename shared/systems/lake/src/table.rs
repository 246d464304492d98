use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use millstream_core::{Error, PartitionBy, Result, Role, Table, is_wider, type_name};
use object_store::path::Path;

use crate::names::{HOUR_COLUMN, Layout};

/// Fails for a table that a lake can't hold.
pub(crate) fn check(table: &Table, layout: Layout, by: PartitionBy) -> Result<()> {
    if table.combine.is_some() {
        return Err(Error::stop(format!(
            "lake: the table {} merges rows of one key (it has aggregates), and the lake only holds rows as they come; \
             send it to a database, or select plain rows",
            table.name
        )));
    }
    let hour = (by == PartitionBy::Hour).then_some((HOUR_COLUMN, "05"));
    for (folder, value) in [(layout.day_column(), "2026-11-21")].into_iter().chain(hour) {
        if let Some(column) = table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(folder)) {
            return Err(Error::stop(format!(
                "lake: the column {} of {} has the name of the folders ({folder}={value}), and readers would show the folder's \
                 value in its place; rename it in the SELECT",
                column.name, table.name
            )));
        }
    }
    Ok(())
}

/// What may be done to a table whose columns are others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// New nullable columns may be added at its end.
    Add,
    /// Columns may also get wider types. Files that are there keep theirs, and every reader that takes columns by name and
    /// casts them (this crate, DuckDB with `union_by_name`) reads both.
    Adapt,
}

/// Fails if rows of `want` don't fit a table that was created with `have`, and can't by `change`.
pub(crate) fn check_fit(have: &Schema, want: &Schema, table: &Path, change: Change) -> Result<()> {
    let differences = differences(have, want, change);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::stop(format!(
        "lake: the columns don't fit the table at {table}: {}; write to a new table, or select the columns as they are \
         there, with new ones at the end",
        differences.join("; ")
    )))
}

/// What doesn't fit.
pub(crate) fn differences(have: &Schema, want: &Schema, change: Change) -> Vec<String> {
    let mut differences = Vec::new();
    for (index, have) in have.fields().iter().enumerate() {
        match want.fields().get(index) {
            Some(want) if fits(have, want) || change == Change::Adapt && widens(have, want) => {}
            Some(want) => differences.push(format!("column {} is {}, not {}", index + 1, show(have), show(want))),
            None => differences.push(format!("column {} is {}, and is not written", index + 1, show(have))),
        }
    }
    for new in want.fields().iter().skip(have.fields().len()) {
        if !new.is_nullable() {
            differences.push(format!("{} is new and must be nullable", show(new)));
        } else if change == Change::None {
            differences.push(format!("{} is missing: run `millstream up`", show(new)));
        }
    }
    differences
}

fn widens(have: &Field, want: &Field) -> bool {
    have.name() == want.name()
        && (want.is_nullable() || !have.is_nullable())
        && is_wider(have.data_type(), want.data_type(), &Role::Value)
}

/// A column may become nullable, but not cease to be; so may what is inside it.
fn fits(have: &Field, want: &Field) -> bool {
    have.name() == want.name()
        && (want.is_nullable() || !have.is_nullable())
        && match (have.data_type(), want.data_type()) {
            (DataType::List(have), DataType::List(want)) => fits(have, want),
            (DataType::Struct(have), DataType::Struct(want)) => {
                have.len() == want.len() && have.iter().zip(want).all(|(have, want)| fits(have, want))
            }
            (have, want) => have == want,
        }
}

fn show(field: &Field) -> String {
    let null = if field.is_nullable() { "" } else { " not null" };
    format!("{} {}{null}", field.name(), type_name(field.data_type()))
}

/// The rows under the table's own schema, without the empty batches.
pub(crate) fn conform(rows: &[RecordBatch], schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    rows.iter().filter(|batch| batch.num_rows() > 0).map(|batch| conform_one(batch, schema)).collect()
}

fn conform_one(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let types = |schema: &Schema| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
    if types(&rows.schema()) != types(schema) {
        return Err(Error::stop("lake: internal: rows with other columns than the table's"));
    }
    for (column, field) in rows.columns().iter().zip(schema.fields()) {
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(Error::poison(format!("lake: the column {} must not be null", field.name())));
        }
    }
    RecordBatch::try_new(schema.clone(), rows.columns().to_vec())
        .map_err(|error| Error::stop("lake: internal: rows don't fit the table's columns").caused_by(error))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    fn schema(fields: &[(&str, DataType, bool)]) -> Schema {
        Schema::new(fields.iter().map(|(name, kind, null)| Field::new(*name, kind.clone(), *null)).collect::<Vec<_>>())
    }

    #[test]
    fn new_nullable_columns_at_the_end_fit() {
        let (int, text) = (DataType::Int64, DataType::Utf8);
        let have = schema(&[("a", int.clone(), false), ("b", text.clone(), true)]);
        let fit = |want: &[(&str, DataType, bool)], may_add| {
            let change = if may_add { Change::Add } else { Change::None };
            check_fit(&have, &schema(want), &Path::from("t"), change).map_err(|error| error.to_string())
        };
        let (a, b) = (("a", int.clone(), false), ("b", text.clone(), true));
        assert_eq!(fit(&[a.clone(), b.clone()], false), Ok(()));
        assert_eq!(fit(&[("a", int.clone(), true), b.clone(), ("c", int.clone(), true)], true), Ok(()));
        let error = fit(&[a.clone(), b.clone(), ("c", int.clone(), true)], false).unwrap_err();
        assert!(error.contains("c bigint is missing: run `millstream up`"), "{error}");
        let error = fit(&[("a", text.clone(), false), ("b", text, false), ("c", int, false)], true).unwrap_err();
        assert!(error.contains("column 1 is a bigint not null, not a string not null"), "{error}");
        assert!(error.contains("column 2 is b string, not b string not null"), "{error}");
        assert!(error.contains("c bigint not null is new and must be nullable"), "{error}");
        assert!(fit(&[a], true).unwrap_err().contains("column 2 is b string, and is not written"));
    }

    #[test]
    fn wider_types_are_adapted_and_nothing_else_takes_them() {
        let have = schema(&[("a", DataType::Int32, false), ("b", DataType::Decimal128(9, 2), true)]);
        let want = schema(&[("a", DataType::Int64, true), ("b", DataType::Decimal128(11, 2), true)]);
        assert_eq!(differences(&have, &want, Change::Adapt), [""; 0]);
        assert_eq!(differences(&have, &want, Change::Add).len(), 2);
        assert_eq!(differences(&want, &have, Change::Adapt).len(), 2, "not back");
    }

    #[test]
    fn what_is_inside_a_column_may_become_nullable_too() {
        let list = |null| DataType::List(Field::new_list_field(DataType::Float64, null).into());
        let object = |null| DataType::Struct(vec![Field::new("x", list(null), true)].into());
        let fit = |have, want| {
            check_fit(
                &schema(&[("o", object(have), true)]),
                &schema(&[("o", object(want), true)]),
                &Path::from("t"),
                Change::Add,
            )
        };
        assert!(fit(false, true).is_ok() && fit(true, true).is_ok());
        assert!(fit(true, false).is_err());
    }
}
