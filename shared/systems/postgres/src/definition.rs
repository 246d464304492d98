//! The statements that create tables and views.

use arrow::datatypes::DataType;
use millstream_core::{Column, Result, Role, Table, View, quote_identifier};

use crate::{statement::kind, types::Kind};

pub(crate) const CREATE_FENCES: &str = "CREATE TABLE millstream_fences (function text COLLATE \"C\", topic text COLLATE \"C\", \
     generation bigint, partition integer, start_offset bigint NOT NULL, next_offset bigint NOT NULL, \
     last_timestamp_ms bigint, max_event_time_us bigint, upstream jsonb NOT NULL DEFAULT '{}', \
     topic_id text, rows bigint NOT NULL DEFAULT 0, term bigint, updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (function, topic, generation, partition)) \
     WITH (fillfactor = 50)";

/// The columns that millstream_fences has got since version 0.1. They are null or have a default, so that processes of older
/// versions may go on writing.
pub(crate) const ADDED_COLUMNS: [&str; 3] = ["topic_id text", "rows bigint NOT NULL DEFAULT 0", "term bigint"];

pub(crate) const CREATE_OWNERS: &str = "CREATE TABLE millstream_owners (table_name text COLLATE \"C\" PRIMARY KEY, \
     function text COLLATE \"C\" NOT NULL, fingerprint text NOT NULL, declaration text NOT NULL, term bigint NOT NULL, \
     adopted boolean NOT NULL DEFAULT false, since timestamptz NOT NULL DEFAULT now(), changes jsonb NOT NULL DEFAULT '[]')";

/// Begins the comment of every view of ours.
pub(crate) const VIEW_COMMENT: &str = "millstream: ";

pub(crate) fn create_table(table: &Table) -> Result<String> {
    let columns: Result<Vec<String>> = table.columns.iter().map(column_definition).collect();
    // Room on each page for the new version of a row that merges: an update that needs no change of the index.
    let fill = if table.combine.is_some() { " WITH (fillfactor = 80)" } else { "" };
    Ok(format!("CREATE TABLE {} ({}){fill}", quote_identifier(&table.name), columns?.join(", ")))
}

pub(crate) fn column_definition(column: &Column) -> Result<String> {
    let kind = kind(column)?;
    let name = quote_identifier(&column.name);
    // Ordered by bytes, as outside the database. So no update of the system's locales breaks an index.
    let collation = if kind == Kind::Text { " COLLATE \"C\"" } else { "" };
    let filled = if column.nullable { "" } else { " NOT NULL" };
    let check = range_of(column).map(|(low, high)| format!(" CHECK ({name} BETWEEN {low} AND {high})"));
    Ok(format!("{name} {kind}{collation}{filled}{}", check.unwrap_or_default()))
}

/// PostgreSQL's type of a state may be wider: a sum that overflows the narrow one must be an error here too.
pub(crate) fn range_of(column: &Column) -> Option<(i128, i128)> {
    range(&column.data_type).filter(|_| matches!(column.role, Role::State(_)))
}

/// The values of a type that PostgreSQL has not.
pub(crate) fn range(data_type: &DataType) -> Option<(i128, i128)> {
    Some(match data_type {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, u64::MAX.into()),
        _ => return None,
    })
}

/// Those types.
pub(crate) const NARROW: [DataType; 5] =
    [DataType::Int8, DataType::UInt8, DataType::UInt16, DataType::UInt32, DataType::UInt64];

/// Replaces the view, which keeps the rights granted on it. If its columns changed, it is re-created and the rights are
/// granted again.
pub(crate) fn create_view(view: &View) -> String {
    let (name, select) = (quote_identifier(&view.name), &view.select);
    let literal = name.replace('\'', "''");
    let comment = view_comment(view).replace('\'', "''");
    let mut tag = "$millstream$".to_owned();
    while select.contains(&tag) {
        tag.insert(1, '_');
    }
    format!(
        "DO {tag} DECLARE held aclitem[]; given record; BEGIN CREATE OR REPLACE VIEW {name} AS {select}; \
         EXCEPTION WHEN invalid_table_definition THEN \
         SELECT relacl INTO held FROM pg_class WHERE oid = to_regclass('{literal}'); \
         DROP VIEW {name}; CREATE VIEW {name} AS {select}; \
         FOR given IN SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS name, privilege_type, \
         CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS option FROM aclexplode(held) \
         WHERE grantee = 0 OR pg_get_userbyid(grantee) <> current_user LOOP EXECUTE format('GRANT %s ON %s TO %s%s', given.privilege_type, \
         to_regclass('{literal}'), given.name, given.option); END LOOP; \
         END {tag}; COMMENT ON VIEW {name} IS '{comment}'"
    )
}

pub(crate) fn view_comment(view: &View) -> String {
    format!("{VIEW_COMMENT}{}", view.select)
}

#[cfg(test)]
mod tests {
    use millstream_core::Merge;

    use super::*;

    #[test]
    fn a_table_is_created_with_proper_types() {
        let column =
            |name: &str, data_type, nullable, role| Column { name: name.to_owned(), data_type, nullable, role };
        let columns = vec![
            column("k", DataType::Utf8, true, Role::Key),
            column("n", DataType::UInt64, false, Role::State(Merge::Sum)),
        ];
        let table = Table { name: "flow".to_owned(), columns, combine: None, view: None };
        assert_eq!(
            create_table(&table).unwrap(),
            "CREATE TABLE \"flow\" (\"k\" text COLLATE \"C\", \"n\" numeric(20,0) NOT NULL CHECK (\"n\" BETWEEN 0 AND \
             18446744073709551615))"
        );
    }
}
