//! The text of the statements that write. Everything that varies per call is a parameter.

use std::fmt::Write;

use millstream_core::{Column, Error, Merge, Result, Role, Table, quote_identifier};

use crate::{
    merge::{comparable, merged},
    types::Kind,
};

/// How many parameters of a writing statement come before the columns: the fence's key (4), where it must be, what it
/// becomes (6), and the term.
pub(crate) const FENCE_PARAMETERS: usize = 12;

/// The statements of one table.
pub(crate) struct Statements {
    /// Moves the fence alone. All three answer with how many fences moved: 1 or 0.
    pub(crate) move_fence: String,
    /// Moves the fence, and appends or merges rows.
    pub(crate) write: String,
    /// For tables with a sketch, which the database can't merge.
    pub(crate) sketch: Option<SketchStatements>,
}

/// A table with a sketch is merged outside the database, between these two statements of one transaction.
pub(crate) struct SketchStatements {
    /// Moves the fence, inserts the rows whose keys are new, locks the others and answers with them: the columns, then
    /// the count of moved fences, then whether there is such a row (one row of nulls when there is none).
    pub(crate) lock: String,
    /// Replaces the states of rows that are locked.
    pub(crate) replace: String,
}

const MOVED: &str = "WITH moved AS (UPDATE millstream_fences SET next_offset = $6, last_timestamp_ms = $7, \
     max_event_time_us = $8, upstream = $9::text::jsonb, topic_id = $10, rows = $11, term = $12, updated_at = now() \
     WHERE function = $1 AND topic = $2 AND generation = $3 AND partition = $4 AND next_offset = $5 AND \
     COALESCE(term, $12) = $12 RETURNING 1)";

impl Statements {
    /// # Errors
    /// `Stop` for a column of a type that PostgreSQL can't hold.
    pub(crate) fn of(table: &Table) -> Result<Self> {
        let source = "moved CROSS JOIN ";
        let count = "SELECT (SELECT count(*) FROM moved)";
        let write = match &table.combine {
            None => insert(table, source, FENCE_PARAMETERS, "")?,
            Some(_) => insert(table, source, FENCE_PARAMETERS, &on_conflict(table, |column| merged(table, column)))?,
        };
        let sketch = table.columns.iter().any(|column| column.role == Role::State(Merge::Sketch));
        Ok(Self {
            move_fence: format!("{MOVED} {count}"),
            write: format!("{MOVED}, written AS ({write}) {count}"),
            sketch: if sketch { Some(SketchStatements::of(table)?) } else { None },
        })
    }
}

impl SketchStatements {
    fn of(table: &Table) -> Result<Self> {
        let first = table.columns.iter().position(|column| matches!(column.role, Role::State(_)));
        // A row is locked by an update that changes nothing, because only an update's rows are returned.
        let touch = |column: &Column| {
            let is_first = first.is_some_and(|first| table.columns[first].name == column.name);
            is_first.then(|| format!("t.{}", quote_identifier(&column.name)))
        };
        let lock = insert(table, "moved CROSS JOIN ", FENCE_PARAMETERS, &on_conflict(table, touch))?;
        let returned = list(table, |column| format!("t.{}", quote_identifier(&column.name)));
        let read = list(table, |column| format!("w.{}", quote_identifier(&column.name)));
        let replace = |column: &Column| Some(format!("EXCLUDED.{}", quote_identifier(&column.name)));
        Ok(Self {
            // A row that this statement inserted has no xmax; one that ON CONFLICT locked and updated carries the lock.
            lock: format!(
                "{MOVED}, written AS ({lock} RETURNING t.xmax <> 0 AS existed, {returned}) \
                 SELECT {read}, m.count, w.existed FROM (SELECT count(*) FROM moved) m LEFT JOIN written w ON w.existed"
            ),
            replace: insert(table, "", 0, &on_conflict(table, replace))?,
        })
    }
}

/// `INSERT` of rows that come as one array per column, from parameter `before` + 1 on. Rows that merge go in the order
/// of their keys, so that two writers never wait for each other.
fn insert(table: &Table, source: &str, before: usize, on_conflict: &str) -> Result<String> {
    let mut arrays = String::new();
    let mut names = String::new();
    for (index, column) in table.columns.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let _ = write!(arrays, "{comma}${}::{}[]", before + index + 1, kind(column)?.base());
        let _ = write!(names, "{comma}c{index}");
    }
    let order = if table.combine.is_some() { order_by_keys(table)? } else { String::new() };
    Ok(format!(
        "INSERT INTO {} AS t ({}) SELECT {} FROM {source}unnest({arrays}) AS r({names}){order}{on_conflict}",
        quote_identifier(&table.name),
        list(table, |column| quote_identifier(&column.name)),
        names.split(", ").map(|name| format!("r.{name}")).collect::<Vec<_>>().join(", "),
    ))
}

fn order_by_keys(table: &Table) -> Result<String> {
    let mut keys = Vec::new();
    for (index, column) in table.columns.iter().enumerate().filter(|(_, column)| column.role == Role::Key) {
        keys.push(comparable(kind(column)?, &format!("r.c{index}")));
    }
    Ok(if keys.is_empty() { String::new() } else { format!(" ORDER BY {}", keys.join(", ")) })
}

/// What `ON CONFLICT` names, and the unique index is made of. A table without keys holds one row at most.
pub(crate) fn key_columns(table: &Table) -> String {
    let keys: Vec<String> = table.keys().map(|column| quote_identifier(&column.name)).collect();
    if keys.is_empty() { "(true)".to_owned() } else { keys.join(", ") }
}

/// What happens to a row that is there: each state for which `becomes` gives an expression is set to it.
fn on_conflict(table: &Table, becomes: impl Fn(&Column) -> Option<String>) -> String {
    let states = table.columns.iter().filter(|column| matches!(column.role, Role::State(_)));
    let set: Vec<String> = states
        .filter_map(|column| {
            becomes(column).map(|expression| format!("{} = {expression}", quote_identifier(&column.name)))
        })
        .collect();
    let action = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", set.join(", ")) };
    format!(" ON CONFLICT ({}) DO {action}", key_columns(table))
}

fn list(table: &Table, column: impl Fn(&Column) -> String) -> String {
    table.columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

/// The kind of a column.
///
/// # Errors
/// `Stop` for a type that PostgreSQL can't hold.
pub(crate) fn kind(column: &Column) -> Result<Kind> {
    Kind::of(&column.data_type).ok_or_else(|| {
        Error::stop(format!("column {} is {}, which PostgreSQL can't hold", column.name, column.data_type))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{array::RecordBatch, datatypes::DataType};
    use async_trait::async_trait;
    use millstream_core::Combine;

    use super::*;

    struct Never;

    #[async_trait]
    impl Combine for Never {
        async fn combine(&self, _: &[RecordBatch]) -> Result<RecordBatch> {
            Err(Error::stop("not called"))
        }
        async fn finish(&self, _: &RecordBatch) -> Result<(RecordBatch, Vec<usize>)> {
            Err(Error::stop("not called"))
        }
    }

    fn table(columns: &[(&str, DataType, Role)], merges: bool) -> Table {
        let columns = columns.iter().map(|(name, data_type, role)| Column {
            name: (*name).to_owned(),
            data_type: data_type.clone(),
            nullable: true,
            role: role.clone(),
        });
        let combine = merges.then(|| Arc::new(Never) as Arc<dyn Combine>);
        Table { name: "flow".to_owned(), columns: columns.collect(), combine, view: None }
    }

    fn state(merge: Merge) -> Role {
        Role::State(merge)
    }

    #[test]
    fn rows_are_inserted_only_where_the_fence_moved() {
        let table = table(&[("a b", DataType::Utf8, Role::Value), ("n", DataType::Int64, Role::Value)], false);
        let statements = Statements::of(&table).unwrap();
        assert_eq!(
            statements.write,
            format!(
                "{MOVED}, written AS (INSERT INTO \"flow\" AS t (\"a b\", \"n\") SELECT r.c0, r.c1 FROM moved CROSS JOIN \
                 unnest($13::text[], $14::bigint[]) AS r(c0, c1)) SELECT (SELECT count(*) FROM moved)"
            )
        );
        assert!(statements.sketch.is_none());
    }

    #[test]
    fn rows_that_merge_go_in_the_order_of_their_keys() {
        let columns = [
            ("k", DataType::Utf8, Role::Key),
            ("sum", DataType::Decimal128(18, 2), state(Merge::Sum)),
            ("at", DataType::Date32, Role::Key),
        ];
        let write = Statements::of(&table(&columns, true)).unwrap().write;
        let expected = "ORDER BY r.c0 COLLATE \"C\", r.c2 ON CONFLICT (\"k\", \"at\") DO UPDATE SET \"sum\" = \
                        COALESCE(t.\"sum\" + EXCLUDED.\"sum\", t.\"sum\", EXCLUDED.\"sum\"))";
        assert!(write.contains(expected), "{write}");
    }

    #[test]
    fn a_table_without_keys_or_without_states_merges_too() {
        let global = Statements::of(&table(&[("n", DataType::Int64, state(Merge::Sum))], true)).unwrap().write;
        assert!(global.contains("AS r(c0) ON CONFLICT ((true)) DO UPDATE SET \"n\" ="), "{global}");
        let distinct = Statements::of(&table(&[("k", DataType::Int64, Role::Key)], true)).unwrap().write;
        assert!(distinct.contains("ON CONFLICT (\"k\") DO NOTHING)"), "{distinct}");
    }

    #[test]
    fn each_rule_has_its_expression() {
        let columns = [
            ("o", DataType::Binary, state(Merge::Max)),
            ("s", DataType::Utf8, state(Merge::Min)),
            ("b", DataType::Boolean, state(Merge::And)),
            ("l", DataType::Utf8, state(Merge::Last { order: "o".to_owned() })),
            ("h", DataType::Binary, state(Merge::Sketch)),
        ];
        let table = table(&columns, true);
        let rule = |index: usize| merged(&table, &table.columns[index]);
        assert_eq!(rule(0).unwrap(), r#"GREATEST(t."o", EXCLUDED."o")"#);
        assert_eq!(rule(1).unwrap(), r#"LEAST(t."s" COLLATE "C", EXCLUDED."s")"#);
        assert_eq!(rule(2).unwrap(), r#"COALESCE(t."b" AND EXCLUDED."b", t."b", EXCLUDED."b")"#);
        assert_eq!(
            rule(3).unwrap(),
            r#"CASE WHEN EXCLUDED."o" > t."o" OR (t."o" IS NULL AND EXCLUDED."o" IS NOT NULL) THEN EXCLUDED."l" ELSE t."l" END"#
        );
        assert_eq!(rule(4), None);
        let sketch = Statements::of(&table).unwrap().sketch.unwrap();
        assert!(sketch.lock.contains(r#"DO UPDATE SET "o" = t."o" RETURNING t.xmax <> 0"#), "{}", sketch.lock);
        assert!(sketch.replace.contains(r#"unnest($1::bytea[]"#) && sketch.replace.contains(r#""h" = EXCLUDED."h""#));
    }

    #[test]
    fn a_type_without_a_place_stops() {
        let table = table(&[("x", DataType::Float16, Role::Value)], false);
        assert!(matches!(Statements::of(&table), Err(Error::Stop(_))));
    }
}
