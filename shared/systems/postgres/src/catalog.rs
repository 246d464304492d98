//! What tables and views there are, and how they differ from what a function needs.

use futures::future::try_join4;
use millstream_core::{Error, Result, Role, Table, View, quote_identifier};
use tokio_postgres::{GenericClient, error::SqlState, types::Type};

use crate::{
    connect::Pool,
    definition::{
        ADDED_COLUMNS, CREATE_FENCES, CREATE_OWNERS, VIEW_COMMENT, column_definition, create_table, create_view,
        view_comment,
    },
    error,
    schema::Remedies,
    statement::{key_columns, kind},
};

/// `NULLS NOT DISTINCT` came with 15.
const OLDEST_SERVER: i32 = 150_000;

/// Name, type and "must an insert name it?" of each column of the table `$1`, for [`Present::of`].
pub(crate) const COLUMNS: &str = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull AND NOT \
     (a.atthasdef OR a.attidentity <> '') FROM pg_attribute a WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 \
     AND NOT a.attisdropped ORDER BY a.attnum";

/// A unique index on exactly these columns for which null equals null, or no column may be null.
const KEY_INDEX: &str = "SELECT i.indexrelid FROM pg_index i CROSS JOIN LATERAL (SELECT array_agg(a.attname::text ORDER BY \
     a.attname::text COLLATE \"C\") AS names, bool_and(a.attnotnull) AS filled FROM pg_attribute a \
     WHERE a.attrelid = i.indrelid AND a.attnum IN (SELECT i.indkey[s] FROM generate_series(0, i.indnkeyatts - 1) s)) k \
     WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND \
     i.indexprs IS NULL AND k.names = $2::text[] AND (i.indnullsnotdistinct OR k.filled)";

/// The unique indexes on other columns than these.
const OTHER_UNIQUE: &str = "SELECT i.indexrelid::regclass::text FROM pg_index i WHERE i.indrelid = to_regclass($1) AND \
     i.indisunique AND (i.indexprs IS NOT NULL AND cardinality($2::text[]) > 0 OR i.indexprs IS NULL AND (SELECT \
     array_agg(a.attname::text ORDER BY a.attname::text COLLATE \"C\") FROM pg_attribute a WHERE a.attrelid = i.indrelid AND \
     a.attnum IN (SELECT i.indkey[s] FROM generate_series(0, i.indnkeyatts - 1) s)) IS DISTINCT FROM $2::text[])";

const NOT_NULL: &str = "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND \
     attnotnull AND NOT attisdropped";

const ONE_ROW_INDEX: &str = "SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = to_regclass($1) AND i.indisunique AND \
     i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1 AND pg_get_expr(i.indexprs, i.indrelid) = 'true'";

/// The database's catalog, as seen by one connection or transaction.
pub(crate) struct Catalog<'a, C> {
    pub(crate) client: &'a C,
    pub(crate) pool: &'a Pool,
    pub(crate) what: &'a str,
}

type Parameter<'a> = (&'a (dyn tokio_postgres::types::ToSql + Sync), Type);

impl<C: GenericClient> Catalog<'_, C> {
    pub(crate) async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<tokio_postgres::Row>> {
        let failed = |error| error::of_postgres(self.pool.doing(self.what), &error);
        self.client.query_typed(sql, parameters).await.map_err(failed)
    }

    /// Statements without an answer.
    pub(crate) async fn run(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(|error| error::of_postgres(self.pool.doing(self.what), &error))
    }

    /// A statement of a transaction, which goes on as before when the server refuses it: then the answer is why.
    pub(crate) async fn try_run(&self, sql: &str) -> Result<Option<String>> {
        self.run("SAVEPOINT millstream").await?;
        match self.client.batch_execute(sql).await {
            Ok(()) => self.run("RELEASE SAVEPOINT millstream").await.map(|()| None),
            Err(error) => match error.as_db_error().filter(|refused| error::is_refusal(refused.code().code())) {
                Some(refused) => {
                    // What depends on something is listed there.
                    let detail =
                        refused.detail().filter(|_| *refused.code() == SqlState::DEPENDENT_OBJECTS_STILL_EXIST);
                    let why = detail.unwrap_or(refused.message()).to_owned();
                    self.run("ROLLBACK TO SAVEPOINT millstream").await.map(|()| Some(why))
                }
                None => Err(error::of_postgres(self.pool.doing(self.what), &error)),
            },
        }
    }

    pub(crate) async fn check_server(&self) -> Result<()> {
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
        Ok(self.query(COLUMNS, &[(&quote_identifier(table), Type::TEXT)]).await?.iter().map(Present::of).collect())
    }

    /// All differences, in the order in which their remedies must be applied.
    pub(crate) async fn differences(&self, table: &Table, remedies: Remedies) -> Result<Vec<Difference>> {
        let mut differences = Vec::new();
        // Asked at once, which takes one round trip: it is what every start waits for.
        let (fences, owners, have, is_table) = try_join4(
            self.columns("millstream_fences"),
            self.columns("millstream_owners"),
            self.columns(&table.name),
            self.is_table(&table.name),
        )
        .await?;
        if fences.is_empty() {
            differences
                .push(Difference::missing("table millstream_fences is missing".to_owned(), CREATE_FENCES.to_owned()));
        } else {
            for definition in ADDED_COLUMNS {
                let name = definition.split(' ').next().unwrap_or(definition);
                if fences.iter().all(|column| column.name != name) {
                    let what = format!("table millstream_fences has no column {name}, which is newer than the table");
                    let remedy = format!("ALTER TABLE millstream_fences ADD COLUMN IF NOT EXISTS {definition}");
                    differences.push(Difference::missing(what, remedy));
                }
            }
        }
        if owners.is_empty() {
            let what = "table millstream_owners is missing".to_owned();
            differences.push(Difference::missing(what, CREATE_OWNERS.to_owned()));
        }
        if have.is_empty() {
            differences.push(Difference::missing(format!("table {} is missing", table.name), create_table(table)?));
        } else if !is_table {
            differences.push(Difference::misfit(format!("{} is no table, and rows must be written to it", table.name)));
        } else {
            compare(table, &have, remedies == Remedies::Adapt, &mut differences)?;
            if remedies == Remedies::Adapt {
                self.widen(table, &have, &mut differences).await?;
                self.refuse_leftovers(table, &mut differences).await?;
            }
        }
        let fits = differences.iter().all(|difference| difference.remedy.is_some());
        if fits && table.combine.is_some() && self.key_indexes(table, &table.name).await?.is_empty() {
            let keys = key_columns(table);
            let index =
                format!("CREATE UNIQUE INDEX ON {} ({}) NULLS NOT DISTINCT", quote_identifier(&table.name), keys);
            let what = format!("table {} has no unique index on ({keys}) with NULLS NOT DISTINCT", table.name);
            differences.push(Difference::missing(what, index));
        }
        if let Some(view) = table.view.as_ref().filter(|_| fits) {
            differences.extend(self.view_difference(view).await?);
        }
        Ok(differences)
    }

    /// What keeps rows of another plan out of a table that is there.
    async fn refuse_leftovers(&self, table: &Table, differences: &mut Vec<Difference>) -> Result<()> {
        let name = quote_identifier(&table.name);
        let mut keys: Vec<&str> = table.keys().map(|column| column.name.as_str()).collect();
        keys.sort_unstable();
        let rows = self.query(OTHER_UNIQUE, &[(&name, Type::TEXT), (&keys, Type::TEXT_ARRAY)]).await?;
        for row in rows {
            let index: String = row.get(0);
            let what = format!(
                "table {} has the unique index {index}, which rows of the new statement would violate: drop it first",
                table.name
            );
            differences.push(Difference::misfit(what));
        }
        for row in self.query(NOT_NULL, &[(&name, Type::TEXT)]).await? {
            let column: String = row.get(0);
            if table.columns.iter().any(|have| have.name == column && have.nullable) {
                let remedy = format!("ALTER TABLE {name} ALTER COLUMN {} DROP NOT NULL", quote_identifier(&column));
                let what = format!("column {}.{column} is NOT NULL, and may be null now", table.name);
                differences.push(Difference::missing(what, remedy));
            }
        }
        Ok(())
    }

    async fn is_table(&self, name: &str) -> Result<bool> {
        let is_table = "SELECT relkind IN ('r', 'p') FROM pg_class WHERE oid = to_regclass($1)";
        let found = self.query(is_table, &[(&quote_identifier(name), Type::TEXT)]).await?;
        Ok(found.first().is_some_and(|row| row.get(0)))
    }

    /// The indexes by which rows of this table, which has that name in the database, merge.
    pub(crate) async fn key_indexes(&self, table: &Table, name: &str) -> Result<Vec<u32>> {
        let name = quote_identifier(name);
        let mut keys: Vec<&str> = table.keys().map(|column| column.name.as_str()).collect();
        keys.sort_unstable();
        let found = if keys.is_empty() {
            self.query(ONE_ROW_INDEX, &[(&name, Type::TEXT)]).await?
        } else {
            self.query(KEY_INDEX, &[(&name, Type::TEXT), (&keys, Type::TEXT_ARRAY)]).await?
        };
        Ok(found.iter().map(|row| row.get(0)).collect())
    }

    async fn comment(&self, name: &str) -> Result<String> {
        let sql = "SELECT obj_description(to_regclass($1), 'pg_class')";
        let comment = self.query(sql, &[(&quote_identifier(name), Type::TEXT)]).await?;
        Ok(comment.first().and_then(|row| row.get::<_, Option<String>>(0)).unwrap_or_default())
    }

    /// Has millstream made this view?
    pub(crate) async fn is_own_view(&self, view: &View) -> Result<bool> {
        Ok(self.comment(&view.name).await?.starts_with(VIEW_COMMENT))
    }

    /// A view of ours has the statement that it was created from as its comment: only such a view is ever replaced.
    async fn view_difference(&self, view: &View) -> Result<Option<Difference>> {
        let have: Vec<String> = self.columns(&view.name).await?.into_iter().map(|column| column.name).collect();
        if have.is_empty() {
            return Ok(Some(Difference::missing(format!("view {} is missing", view.name), create_view(view))));
        }
        let comment = self.comment(&view.name).await?;
        if comment == view_comment(view) {
            return Ok(None);
        }
        if comment.starts_with(VIEW_COMMENT) {
            let what = format!("view {} was created from another statement", view.name);
            return Ok(Some(Difference::missing(what, create_view(view))));
        }
        if self.is_table(&view.name).await? {
            return Ok(Some(Difference::misfit(format!(
                "{} is a table, and must be a view over {}_state, for the statement needs states (a mean, or an expression over \
                 aggregates). They can't be computed from the results that the table holds",
                view.name, view.name
            ))));
        }
        let want: Vec<&str> = view.columns.iter().map(|(name, _)| name.as_str()).collect();
        let misfit = || {
            let (want, have) = (want.join(", "), have.join(", "));
            Difference::misfit(format!("{} has the columns ({have}), not ({want}), and is not millstream's", view.name))
        };
        Ok((have != want).then(misfit))
    }
}

fn compare(table: &Table, have: &[Present], adapt: bool, differences: &mut Vec<Difference>) -> Result<()> {
    for column in &table.columns {
        let want = kind(column)?.to_string();
        match have.iter().find(|present| present.name == column.name) {
            None if adapt && column.nullable && column.role != Role::Key => {
                let remedy =
                    format!("ALTER TABLE {} ADD COLUMN {}", quote_identifier(&table.name), column_definition(column)?);
                differences
                    .push(Difference::missing(format!("table {} has no column {}", table.name, column.name), remedy));
            }
            None => differences
                .push(Difference::misfit(format!("table {} has no column {} {want}", table.name, column.name))),
            Some(present) if adapt && present.widens_to(column) => {}
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

/// Something that is not as it should be, and the statement that corrects it if that can be done without harm.
pub(crate) struct Difference {
    pub(crate) what: String,
    pub(crate) remedy: Option<String>,
    /// Does the remedy change the type of a column?
    pub(crate) retypes: bool,
}

impl Difference {
    pub(crate) fn missing(what: String, remedy: String) -> Self {
        Self { what, remedy: Some(remedy), retypes: false }
    }

    pub(crate) fn misfit(what: String) -> Self {
        Self { what, remedy: None, retypes: false }
    }
}

/// A column of a table or view that is there.
pub(crate) struct Present {
    pub(crate) name: String,
    /// As `format_type` spells it.
    pub(crate) sql_type: String,
    /// Must an insert name it?
    required: bool,
}

impl Present {
    /// From a row of [`COLUMNS`].
    pub(crate) fn of(row: &tokio_postgres::Row) -> Self {
        Self { name: row.get(0), sql_type: row.get(1), required: row.get(2) }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use millstream_core::{Column, Merge, Role};

    use super::*;

    fn column(name: &str, data_type: DataType, nullable: bool, role: Role) -> Column {
        Column { name: name.to_owned(), data_type, nullable, role }
    }

    fn table() -> Table {
        let columns = vec![
            column("k", DataType::Utf8, true, Role::Key),
            column("n", DataType::UInt64, false, Role::State(Merge::Sum)),
        ];
        Table { name: "flow".to_owned(), columns, combine: None, view: None }
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
        compare(&table(), &have, false, &mut differences).unwrap();
        let listed: Vec<_> = differences.into_iter().map(|difference| difference.what).collect();
        let parts = ["no column k text", "flow.n is bigint, not numeric(20,0)", "flow.must is NOT NULL"];
        assert_eq!(listed.len(), parts.len(), "{listed:?}");
        for part in parts {
            assert!(listed.iter().any(|what| what.contains(part)), "{listed:?}");
        }
    }
}
