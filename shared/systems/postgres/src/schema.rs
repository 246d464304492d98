//! The tables: what is there, what should be, and the statements that close the gap.

use std::time::Duration;

use arrow::datatypes::DataType;
use millstream_core::{Column, Error, Result, Role, Table, View};
use tokio_postgres::{GenericClient, IsolationLevel, types::Type};

use crate::{
    connect::Pool,
    error,
    statement::{key_columns, kind},
    types::{Kind, quoted},
};

/// The most time that creating tables and indexes may take: an index on a table that is there already is slow.
const CREATE_LIMIT: Duration = Duration::from_secs(300);
/// PostgreSQL cuts longer names off (NAMEDATALEN - 1).
const MAX_NAME_BYTES: usize = 63;
/// Taken while tables are created, so that instances that start at once don't trip over each other: `IF NOT EXISTS` is
/// no help against that. "millstr" in ASCII.
const CREATE_LOCK: i64 = 0x006d_696c_6c73_7472;
/// `NULLS NOT DISTINCT` came with 15.
const OLDEST_SERVER: i32 = 150_000;

/// A remedy that waits behind a long reader has all writers wait behind itself: it had better give up.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '3s'";

const CREATE_FENCES: &str = "CREATE TABLE millstream_fences (function text COLLATE \"C\", topic text COLLATE \"C\", \
     generation bigint, partition integer, start_offset bigint NOT NULL, next_offset bigint NOT NULL, \
     last_timestamp_ms bigint, max_event_time_us bigint, upstream jsonb NOT NULL DEFAULT '{}', \
     topic_id text, updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (function, topic, generation, partition)) \
     WITH (fillfactor = 50)";

/// Version 0.1 made the table without it. A null is a fence from before, so that older processes may go on writing.
const ADD_TOPIC_ID: &str = "ALTER TABLE millstream_fences ADD COLUMN IF NOT EXISTS topic_id text";

const COLUMNS: &str = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull AND NOT \
     (a.atthasdef OR a.attidentity <> '') FROM pg_attribute a WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 \
     AND NOT a.attisdropped ORDER BY a.attnum";

/// A unique index on exactly these columns for which null equals null, or no column may be null.
const KEY_INDEX: &str = "SELECT 1 FROM pg_index i CROSS JOIN LATERAL (SELECT array_agg(a.attname::text ORDER BY \
     a.attname::text COLLATE \"C\") AS names, bool_and(a.attnotnull) AS filled FROM pg_attribute a \
     WHERE a.attrelid = i.indrelid AND a.attnum IN (SELECT i.indkey[s] FROM generate_series(0, i.indnkeyatts - 1) s)) k \
     WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND \
     i.indexprs IS NULL AND k.names = $2::text[] AND (i.indnullsnotdistinct OR k.filled)";

const ONE_ROW_INDEX: &str = "SELECT 1 FROM pg_index i WHERE i.indrelid = to_regclass($1) AND i.indisunique AND \
     i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1 AND pg_get_expr(i.indexprs, i.indrelid) = 'true'";

/// A column of a table or view that is there.
pub(crate) struct Present {
    pub(crate) name: String,
    /// As `format_type` spells it.
    pub(crate) sql_type: String,
    /// Must an insert name it?
    required: bool,
}

/// Something that is not as it should be, and the statements that make it so if that can be done without harm.
struct Difference {
    what: String,
    remedy: Option<String>,
}

impl Difference {
    fn missing(what: String, remedy: String) -> Self {
        Self { what, remedy: Some(remedy) }
    }

    fn misfit(what: String) -> Self {
        Self { what, remedy: None }
    }
}

/// See [`millstream_core::Sink::prepare`].
pub(crate) async fn prepare(pool: &Pool, table: &Table, create: bool) -> Result<()> {
    check_names(table)?;
    let what = format!("preparing table {}", table.name);
    let mut client = pool.client(&what).await?;
    let work = async {
        let here = Catalog { client: &**client, pool, what: &what };
        here.check_server().await?;
        let mut differences = here.differences(table).await?;
        if create && differences.iter().any(|difference| difference.remedy.is_some()) {
            differences = close_gap(pool, &what, &mut client, table).await?;
        }
        stop_at(&pool.doing(&what), &differences, create)
    };
    let outcome = pool.within(CREATE_LIMIT, &what, work).await;
    pool.settle(client, outcome).await.map_err(|error| match error {
        // Rows that are there may refuse an index: no record is to blame, a person must act.
        Error::Poison(cause) => Error::Stop(cause),
        other => other,
    })
}

/// The columns of a table or view; none when it is missing.
pub(crate) async fn columns(pool: &Pool, table: &str) -> Result<Vec<Present>> {
    let name = quoted(table);
    let rows = pool.query(&format!("looking at table {table}"), COLUMNS, &[(&name, Type::TEXT)]).await?;
    Ok(rows.iter().map(present).collect())
}

fn present(row: &tokio_postgres::Row) -> Present {
    Present { name: row.get(0), sql_type: row.get(1), required: row.get(2) }
}

/// Applies all remedies under a lock, in one transaction, and returns what is still different.
async fn close_gap(
    pool: &Pool,
    what: &str,
    client: &mut deadpool_postgres::Object,
    table: &Table,
) -> Result<Vec<Difference>> {
    let failed = |error: tokio_postgres::Error| error::of_postgres(pool.doing(what), &error);
    let transaction =
        client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await.map_err(failed)?;
    let here = Catalog { client: &*transaction, pool, what };
    here.query("SELECT pg_advisory_xact_lock($1)", &[(&CREATE_LOCK, Type::INT8)]).await?;
    here.client.batch_execute(LOCK_TIMEOUT).await.map_err(failed)?;
    for remedy in here.differences(table).await?.into_iter().filter_map(|difference| difference.remedy) {
        here.client.batch_execute(&remedy).await.map_err(failed)?;
    }
    let left = here.differences(table).await?;
    transaction.commit().await.map_err(failed)?;
    Ok(left)
}

fn stop_at(doing: &str, differences: &[Difference], create: bool) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let list: String = differences.iter().map(|difference| format!("\n  - {}", difference.what)).collect();
    let advice = if !create && differences.iter().all(|difference| difference.remedy.is_some()) {
        "run `millstream up`, which creates what is missing"
    } else {
        "Change the SQL back; or give the function and its table (`into`) new names, both together, and run `millstream \
         up`: what the log still has is read from `start` into the new table. A new table under the function's old name \
         would lack everything before its fence, and a column that is added by hand (ALTER TABLE; millstream never alters \
         a table of yours) knows nothing of it"
    };
    Err(Error::stop(format!("{doing}: the database does not fit:{list}\n{advice}")))
}

fn check_names(table: &Table) -> Result<()> {
    let view = table.view.iter().flat_map(|view| view.columns.iter().map(|(name, _)| name).chain([&view.name]));
    let names = table.columns.iter().map(|column| &column.name).chain([&table.name]).chain(view);
    let bad: Vec<&str> =
        names.map(String::as_str).filter(|name| name.is_empty() || name.len() > MAX_NAME_BYTES).collect();
    if bad.is_empty() {
        return Ok(());
    }
    Err(Error::stop(format!(
        "names in PostgreSQL have 1 to {MAX_NAME_BYTES} bytes; give these another (AS …): {}",
        bad.join(", ")
    )))
}

/// The database's catalog, as seen by one connection or transaction.
struct Catalog<'a, C> {
    client: &'a C,
    pool: &'a Pool,
    what: &'a str,
}

type Parameter<'a> = (&'a (dyn tokio_postgres::types::ToSql + Sync), Type);

impl<C: GenericClient> Catalog<'_, C> {
    async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<tokio_postgres::Row>> {
        let failed = |error| error::of_postgres(self.pool.doing(self.what), &error);
        self.client.query_typed(sql, parameters).await.map_err(failed)
    }

    async fn check_server(&self) -> Result<()> {
        let sql = "SELECT current_setting('server_version_num')::integer, current_setting('server_version')";
        match self.query(sql, &[]).await?.first() {
            Some(row) if row.get::<_, i32>(0) < OLDEST_SERVER => Err(Error::stop(format!(
                "{}: this server is PostgreSQL {}; 15 or newer is needed (for UNIQUE NULLS NOT DISTINCT)",
                self.pool.doing(self.what),
                row.get::<_, String>(1)
            ))),
            _ => Ok(()),
        }
    }

    async fn columns(&self, table: &str) -> Result<Vec<Present>> {
        Ok(self.query(COLUMNS, &[(&quoted(table), Type::TEXT)]).await?.iter().map(present).collect())
    }

    /// In the order in which the remedies are to be applied.
    async fn differences(&self, table: &Table) -> Result<Vec<Difference>> {
        let mut differences = Vec::new();
        let fences = self.columns("millstream_fences").await?;
        if fences.is_empty() {
            differences
                .push(Difference::missing("table millstream_fences is missing".to_owned(), CREATE_FENCES.to_owned()));
        } else if fences.iter().all(|column| column.name != "topic_id") {
            let what = "table millstream_fences has no column topic_id, which is newer than the table";
            differences.push(Difference::missing(what.to_owned(), ADD_TOPIC_ID.to_owned()));
        }
        let have = self.columns(&table.name).await?;
        if have.is_empty() {
            differences.push(Difference::missing(format!("table {} is missing", table.name), create_table(table)?));
        } else {
            compare(table, &have, &mut differences)?;
        }
        let fits = differences.iter().all(|difference| difference.remedy.is_some());
        if fits && table.combine.is_some() && !self.has_key_index(table).await? {
            let keys = key_columns(table);
            let index = format!("CREATE UNIQUE INDEX ON {} ({}) NULLS NOT DISTINCT", quoted(&table.name), keys);
            let what = format!("table {} has no unique index on ({keys}) with NULLS NOT DISTINCT", table.name);
            differences.push(Difference::missing(what, index));
        }
        if let Some(view) = table.view.as_ref().filter(|_| fits) {
            differences.extend(self.view_difference(view).await?);
        }
        Ok(differences)
    }

    async fn has_key_index(&self, table: &Table) -> Result<bool> {
        let name = quoted(&table.name);
        let mut keys: Vec<&str> = table.keys().map(|column| column.name.as_str()).collect();
        keys.sort_unstable();
        let found = if keys.is_empty() {
            self.query(ONE_ROW_INDEX, &[(&name, Type::TEXT)]).await?
        } else {
            self.query(KEY_INDEX, &[(&name, Type::TEXT), (&keys, Type::TEXT_ARRAY)]).await?
        };
        Ok(!found.is_empty())
    }

    /// A view of ours carries the statement that it was made from as its comment: only such a view is ever replaced.
    async fn view_difference(&self, view: &View) -> Result<Option<Difference>> {
        let have: Vec<String> = self.columns(&view.name).await?.into_iter().map(|column| column.name).collect();
        if have.is_empty() {
            return Ok(Some(Difference::missing(format!("view {} is missing", view.name), create_view(view))));
        }
        let comment = self
            .query("SELECT obj_description(to_regclass($1), 'pg_class')", &[(&quoted(&view.name), Type::TEXT)])
            .await?;
        let comment = comment.first().and_then(|row| row.get::<_, Option<String>>(0)).unwrap_or_default();
        if comment == view_comment(view) {
            return Ok(None);
        }
        if comment.starts_with(VIEW_COMMENT) {
            let what = format!("view {} was made from another statement", view.name);
            return Ok(Some(Difference::missing(what, create_view(view))));
        }
        let want: Vec<&str> = view.columns.iter().map(|(name, _)| name.as_str()).collect();
        let misfit = || {
            let (want, have) = (want.join(", "), have.join(", "));
            Difference::misfit(format!("{} has the columns ({have}), not ({want}), and is not millstream's", view.name))
        };
        Ok((have != want).then(misfit))
    }
}

fn compare(table: &Table, have: &[Present], differences: &mut Vec<Difference>) -> Result<()> {
    for column in &table.columns {
        let want = kind(column)?.to_string();
        match have.iter().find(|present| present.name == column.name) {
            None => differences
                .push(Difference::misfit(format!("table {} has no column {} {want}", table.name, column.name))),
            Some(present) if present.sql_type != want => differences.push(Difference::misfit(format!(
                "column {}.{} is {}, not {want}",
                table.name, column.name, present.sql_type
            ))),
            Some(_) => {}
        }
    }
    let unknown = |present: &&Present| present.required && table.columns.iter().all(|have| have.name != present.name);
    for present in have.iter().filter(unknown) {
        let what = format!("column {}.{} is NOT NULL, has no default and gets no value", table.name, present.name);
        differences.push(Difference::misfit(what));
    }
    Ok(())
}

fn create_table(table: &Table) -> Result<String> {
    let columns: Result<Vec<String>> = table.columns.iter().map(column_definition).collect();
    // Room on each page for the new version of a row that merges: an update that needs no change of the index.
    let fill = if table.combine.is_some() { " WITH (fillfactor = 80)" } else { "" };
    Ok(format!("CREATE TABLE {} ({}){fill}", quoted(&table.name), columns?.join(", ")))
}

fn column_definition(column: &Column) -> Result<String> {
    let kind = kind(column)?;
    let name = quoted(&column.name);
    // By bytes: as outside the database, and no update of the system's languages breaks an index.
    let collation = if kind == Kind::Text { " COLLATE \"C\"" } else { "" };
    let filled = if column.nullable { "" } else { " NOT NULL" };
    // PostgreSQL's type is wider: a sum that overflows the narrow one is an error here as everywhere.
    let range = match (&column.role, &column.data_type) {
        (Role::State(_), DataType::Int8) => Some((i128::from(i8::MIN), i128::from(i8::MAX))),
        (Role::State(_), DataType::UInt8) => Some((0, i128::from(u8::MAX))),
        (Role::State(_), DataType::UInt16) => Some((0, i128::from(u16::MAX))),
        (Role::State(_), DataType::UInt32) => Some((0, i128::from(u32::MAX))),
        (Role::State(_), DataType::UInt64) => Some((0, i128::from(u64::MAX))),
        _ => None,
    };
    let check = range.map(|(low, high)| format!(" CHECK ({name} BETWEEN {low} AND {high})")).unwrap_or_default();
    Ok(format!("{name} {kind}{collation}{filled}{check}"))
}

const VIEW_COMMENT: &str = "millstream: ";

fn view_comment(view: &View) -> String {
    format!("{VIEW_COMMENT}{}", view.select)
}

/// Replaces the view, which keeps the rights given on it; where its columns changed it is re-created, and given them again.
fn create_view(view: &View) -> String {
    let (name, select) = (quoted(&view.name), &view.select);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, data_type: DataType, nullable: bool, role: Role) -> Column {
        Column { name: name.to_owned(), data_type, nullable, role }
    }

    fn table() -> Table {
        let columns = vec![
            column("k", DataType::Utf8, true, Role::Key),
            column("n", DataType::UInt64, false, Role::State(millstream_core::Merge::Sum)),
        ];
        Table { name: "flow".to_owned(), columns, combine: None, view: None }
    }

    #[test]
    fn a_table_is_created_with_proper_types() {
        assert_eq!(
            create_table(&table()).unwrap(),
            "CREATE TABLE \"flow\" (\"k\" text COLLATE \"C\", \"n\" numeric(20,0) NOT NULL CHECK (\"n\" BETWEEN 0 AND \
             18446744073709551615))"
        );
    }

    #[test]
    fn each_difference_is_listed() {
        let present = |name: &str, sql_type: &str, required| Present {
            name: name.to_owned(),
            sql_type: sql_type.to_owned(),
            required,
        };
        let have = [present("n", "bigint", true), present("must", "text", true), present("may", "text", false)];
        let mut differences = Vec::new();
        compare(&table(), &have, &mut differences).unwrap();
        let error = stop_at("here", &differences, true).unwrap_err().to_string();
        assert_eq!(differences.len(), 3, "{error}");
        for part in ["no column k text", "flow.n is bigint, not numeric(20,0)", "flow.must is NOT NULL"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn names_that_would_be_cut_off_are_refused() {
        let mut table = table();
        assert!(check_names(&table).is_ok());
        table.columns[0].name = "x".repeat(64);
        assert!(matches!(check_names(&table), Err(Error::Stop(_))));
    }
}
