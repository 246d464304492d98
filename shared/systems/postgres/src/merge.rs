//! How PostgreSQL merges two states of one key: the rules of [`Merge`] as SQL expressions.

use arrow::datatypes::DataType;
use millstream_core::{Column, Merge, Role, Table, quote_identifier};

use crate::types::Kind;

/// The merged state of `t`, the existing row, and `EXCLUDED`, the new row. Every right-hand side sees the old row. `None` for
/// a column that stays as it is.
pub(crate) fn merged(table: &Table, column: &Column) -> Option<String> {
    let Role::State(merge) = &column.role else { return None };
    let (old, new) = sides(&column.name);
    Some(match merge {
        Merge::Sum if matches!(column.data_type, DataType::Float32 | DataType::Float64) => {
            format!("COALESCE({}, {old}, {new})", sum_of_doubles(column, &old, &new))
        }
        Merge::Sum => format!("COALESCE({old} + {new}, {old}, {new})"),
        // Both leave nulls out.
        Merge::Min => format!("LEAST({}, {new})", of_column(table, &column.name, &old)),
        Merge::Max => format!("GREATEST({}, {new})", of_column(table, &column.name, &old)),
        Merge::And => format!("COALESCE({old} AND {new}, {old}, {new})"),
        Merge::Or => format!("COALESCE({old} OR {new}, {old}, {new})"),
        Merge::First { order } => first_by(table, order, "<", &old, &new),
        Merge::Last { order } => first_by(table, order, ">", &old, &new),
        Merge::Mean { count } => {
            let (n1, n2) = counts(count);
            // The same sum in the same order as DataFusion's, so that other hosts give the same digits.
            // PostgreSQL fails where a double overflows or underflows on the way.
            let seen = |mean: &str| format!("(CASE WHEN abs({mean}) < '1e-290' THEN 0 ELSE {mean} END)");
            let (a, b) = (seen(&old), seen(&new));
            let mean = format!(
                "CASE WHEN abs({old}) > '1e290' OR abs({new}) > '1e290' \
                 THEN {a} / ({n1} + {n2}) * {n1} + {b} / ({n1} + {n2}) * {n2} \
                 ELSE {a} * {n1} / ({n1} + {n2}) + {b} * {n2} / ({n1} + {n2}) END"
            );
            unless_empty(&n1, &n2, &old, &new, &mean)
        }
        Merge::SquaredDifferences { count, mean } => {
            let (n1, n2) = counts(count);
            let (mean1, mean2) = sides(mean);
            let delta = format!("({mean1} - {mean2})");
            let between = format!("{delta} * {delta} * {n1} * {n2} / ({n1} + {n2})");
            // The same as `Moments::add` of core: nothing overflows or underflows on the way.
            let between = format!(
                "CASE WHEN {delta} = 'NaN' THEN 'NaN' WHEN abs({delta}) < '1e-140' THEN 0 \
                 WHEN abs({delta}) > '1e140' THEN 'Infinity' ELSE {between} END"
            );
            let sum = format!("{old} + {new} + {between}");
            unless_empty(&n1, &n2, &old, &new, &sum)
        }
        Merge::Sketch => return None,
    })
}

/// Texts compare by their bytes, as they do outside the database, whatever the database's language is.
pub(crate) fn comparable(kind: Kind, expression: &str) -> String {
    if kind == Kind::Text { format!("{expression} COLLATE \"C\"") } else { expression.to_owned() }
}

/// A sum beyond the largest double is infinity, as IEEE 754 says. PostgreSQL itself would fail.
fn sum_of_doubles(column: &Column, old: &str, new: &str) -> String {
    let (name, largest) = match column.data_type {
        DataType::Float32 => ("real", f64::from(f32::MAX)),
        _ => ("float8", f64::MAX),
    };
    let largest = format!("'{largest:e}'::{name}");
    format!(
        "CASE WHEN {old} = 'NaN' OR {new} = 'NaN' THEN 'NaN'::{name} \
         WHEN {old} > 0 AND {new} > {largest} - {old} THEN 'Infinity'::{name} \
         WHEN {old} < 0 AND {new} < -{largest} - {old} THEN '-Infinity'::{name} ELSE {old} + {new} END"
    )
}

fn sides(name: &str) -> (String, String) {
    let name = quote_identifier(name);
    (format!("t.{name}"), format!("EXCLUDED.{name}"))
}

/// The new state if its order is lower (or higher) than the old one's, or if there was no state. A null order means no
/// state.
fn first_by(table: &Table, order: &str, before: &str, old: &str, new: &str) -> String {
    let (old_order, new_order) = sides(order);
    let compared = of_column(table, order, &new_order);
    format!(
        "CASE WHEN {compared} {before} {old_order} OR ({old_order} IS NULL AND {new_order} IS NOT NULL) \
         THEN {new} ELSE {old} END"
    )
}

fn counts(count: &str) -> (String, String) {
    let (old, new) = sides(count);
    (format!("{old}::double precision"), format!("{new}::double precision"))
}

fn unless_empty(n1: &str, n2: &str, old: &str, new: &str, otherwise: &str) -> String {
    format!(
        "CASE WHEN {new} IS NULL OR COALESCE({n2}, 0) = 0 THEN {old} \
         WHEN {old} IS NULL OR COALESCE({n1}, 0) = 0 THEN {new} ELSE {otherwise} END"
    )
}

fn of_column(table: &Table, name: &str, expression: &str) -> String {
    let kind = table.columns.iter().find(|column| column.name == name).and_then(|column| Kind::of(&column.data_type));
    kind.map_or_else(|| expression.to_owned(), |kind| comparable(kind, expression))
}
