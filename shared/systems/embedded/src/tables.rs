use std::{collections::HashSet, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{Field, Schema, SchemaRef},
};
use millstream_core::{Error, OddRow, Result, Role, Table, quote_identifier};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

use crate::{columns, connections::Work, positions::Positions, row_reader::RowReader};

/// The number that a state row and its finished row have in common. (SQLite keeps an implicit row number only until the
/// next VACUUM.)
pub(crate) const ROW: &str = "millstream_row";
/// A table of the file: its columns, and the statements on it. `_rowid_` names a row's number whether the table has
/// [`ROW`] or not.
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) schema: SchemaRef,
    /// Which columns are keys.
    pub(crate) keys: Vec<usize>,
    /// The keys by which rows are found to be merged and finished: rows that are equal in them depend on each other.
    pub(crate) together: Vec<usize>,
    /// What each column is for, for the comparison with the table that is there.
    roles: Vec<String>,
    has_row_column: bool,
    /// Are its rows kept by their positions?
    pub(crate) positions: Option<Positions>,
}

impl Stored {
    /// The table that holds what [`millstream_core::Sink::write`] is given.
    pub(crate) fn states(table: &Table) -> Self {
        let columns = table.columns.iter().enumerate();
        let keys: Vec<_> = columns.filter(|(_, column)| column.role == Role::Key).map(|(index, _)| index).collect();
        let depends = |key: &usize| match &table.view {
            Some(view) => view.together.contains(&table.columns[*key].name),
            None => true,
        };
        Self {
            name: table.name.clone(),
            schema: table.schema(),
            together: keys.iter().copied().filter(depends).collect(),
            keys,
            roles: table.columns.iter().map(|column| role_name(&column.role)).collect(),
            has_row_column: table.view.is_some(),
            positions: Positions::of(table),
        }
    }

    /// The table that holds the finished rows, where the first one holds states.
    pub(crate) fn finished(table: &Table) -> Option<Self> {
        let view = table.view.as_ref()?;
        let fields = view.columns.iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true));
        Some(Self {
            name: view.name.clone(),
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            keys: vec![],
            together: vec![],
            roles: view.columns.iter().map(|_| "value".to_owned()).collect(),
            has_row_column: true,
            positions: None,
        })
    }

    /// Creates the table if it is missing and `create`; checks its columns if it is there.
    pub(crate) fn prepare(&self, connection: &Connection, create: bool) -> Work<()> {
        self.check_names()?;
        let select = "SELECT schema FROM millstream_tables WHERE name = ?1";
        let declared: Option<String> = connection.query_row(select, [&self.name], |row| row.get(0)).optional()?;
        if let Some(declared) = declared {
            return Ok(self.compare(&declared)?);
        }
        let select = "SELECT count(*) FROM sqlite_master WHERE name = ?1 COLLATE NOCASE";
        if connection.query_row(select, [&self.name], |row| row.get::<_, i64>(0))? > 0 {
            return Err(self.stop("exists, but was not created by millstream: rename one of the two").into());
        }
        if !create {
            return Err(self.stop("does not exist: `millstream up` creates it").into());
        }
        connection.execute_batch(&self.create_sql()?)?;
        let insert = "INSERT INTO millstream_tables (name, schema) VALUES (?1, ?2)";
        connection.execute(insert, params![self.name, self.declaration().to_string()])?;
        Ok(())
    }

    pub(crate) fn stop(&self, message: &str) -> Error {
        Error::stop(format!("table `{}` of the embedded store {message}", self.name))
    }

    pub(crate) fn check_names(&self) -> Result<()> {
        let lower = self.name.to_lowercase();
        if lower.starts_with("millstream_") || lower.starts_with("sqlite_") {
            return Err(
                self.stop("has a reserved name: choose one that does not begin with `millstream_` or `sqlite_`")
            );
        }
        let mut seen = HashSet::new();
        for field in self.schema.fields() {
            let name = field.name().to_lowercase();
            let is_place = self.positions.is_some() && crate::positions::is_place(&name);
            if name == ROW || name == "_rowid_" || is_place {
                return Err(self.stop(&format!("can't have a column `{name}`: give it another name in the SQL")));
            }
            if !seen.insert(name) {
                return Err(self.stop(&format!("has two columns `{}`: SQLite ignores case", field.name())));
            }
        }
        Ok(())
    }

    pub(crate) fn declaration(&self) -> serde_json::Value {
        let column = |(field, role): (&Arc<Field>, &String)| json!({ "name": field.name(), "type": columns::type_name(field.data_type()), "role": role });
        self.schema.fields().iter().zip(&self.roles).map(column).collect()
    }

    /// Fails with a `Stop` that lists the differences between the table as it was created and as it should be.
    fn compare(&self, declared: &str) -> Result<()> {
        let differences = self.differences(declared)?;
        if differences.is_empty() {
            return Ok(());
        }
        Err(self.stop(&format!(
            "does not fit the pipeline file: {}. Change the SQL back; or fill a new table from the log, which takes \
             the place of this one: `millstream rebuild` with the function's name. A new table made by hand would lack \
             everything below the fence",
            differences.join("; ")
        )))
    }

    /// How the table that was declared as `declared` is not as it should be.
    pub(crate) fn differences(&self, declared: &str) -> Result<Vec<String>> {
        let declared = self.parsed(declared)?;
        let wanted = self.declaration();
        let wanted = wanted.as_array().map_or(&[][..], Vec::as_slice);
        let find_column = |columns: &[serde_json::Value], name: &serde_json::Value| {
            columns.iter().find(|column| column["name"] == *name).cloned()
        };
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let shown = |value: &serde_json::Value| columns::type_in_words(value.as_str().unwrap_or_default());
        let mut differences = Vec::new();
        for column in wanted {
            let name = text(&column["name"]);
            match find_column(&declared, &column["name"]) {
                None => {
                    let kind = columns::type_in_words(&text(&column["type"]));
                    differences.push(format!("it lacks column `{name}` ({kind})"));
                }
                Some(is) => differences.extend(
                    ["type", "role"].iter().filter(|part| is[**part] != column[**part]).map(|part| {
                        format!("the {part} of `{name}` is {}, not {}", shown(&is[*part]), shown(&column[*part]))
                    }),
                ),
            }
        }
        let surplus = declared.iter().filter(|column| find_column(wanted, &column["name"]).is_none());
        differences.extend(surplus.map(|column| format!("it has a column `{}` more", text(&column["name"]))));
        Ok(differences)
    }

    /// The columns as they are declared in the file.
    pub(crate) fn parsed(&self, declared: &str) -> Result<Vec<serde_json::Value>> {
        let broken = |error| self.stop("has a damaged declaration in millstream_tables").caused_by(error);
        serde_json::from_str(declared).map_err(broken)
    }

    fn create_sql(&self) -> Result<String> {
        let mut columns = Vec::new();
        for field in self.schema.fields() {
            let declared = columns::declared_type(field.data_type()).ok_or_else(|| {
                let name = millstream_core::type_name(field.data_type());
                self.stop(&format!("can't store column `{}` of type {name}: cast it in the SQL", field.name()))
            })?;
            columns.push(format!("{} {declared}", quote_identifier(field.name())));
        }
        if self.has_row_column {
            columns.push(format!("{ROW} INTEGER PRIMARY KEY"));
        }
        columns.extend(self.positions.into_iter().flat_map(|positions| positions.columns(self)));
        let mut sql = format!("CREATE TABLE {} ({});", quote_identifier(&self.name), columns.join(", "));
        sql += &self.key_index_sql();
        Ok(sql)
    }

    /// Creates the index of the keys; nothing for a table without keys.
    pub(crate) fn key_index_sql(&self) -> String {
        if self.keys.is_empty() {
            return String::new();
        }
        // Two nulls differ to this index: what keeps null keys unique is the look-up by IS in the write transaction.
        let keys: Vec<_> = self.keys.iter().map(|key| quote_identifier(self.schema.field(*key).name())).collect();
        // SQLite has one name space for tables and indexes, and no table may begin as this does.
        let index = quote_identifier(&format!("millstream_keys_of_{}", self.name));
        format!("CREATE UNIQUE INDEX {index} ON {} ({});", quote_identifier(&self.name), keys.join(", "))
    }

    fn column_list(&self) -> String {
        self.schema.fields().iter().map(|field| quote_identifier(field.name())).collect::<Vec<_>>().join(", ")
    }

    /// Inserts a row: its columns are the parameters.
    pub(crate) fn insert_sql(&self) -> String {
        let values = placeholders(self.schema.fields().len());
        format!("INSERT INTO {} ({}) VALUES ({values})", quote_identifier(&self.name), self.column_list())
    }

    /// Updates the columns that are no keys, which are the first parameters, of the row whose number is the last one;
    /// none when every column is a key.
    pub(crate) fn update_sql(&self) -> Option<String> {
        let values = (0..self.schema.fields().len()).filter(|column| !self.keys.contains(column));
        let set: Vec<_> =
            values.map(|column| format!("{} = ?", quote_identifier(self.schema.field(column).name()))).collect();
        (!set.is_empty())
            .then(|| format!("UPDATE {} SET {} WHERE _rowid_ = ?", quote_identifier(&self.name), set.join(", ")))
    }

    /// Puts a row under a number: the number, then its columns, are the parameters.
    pub(crate) fn replace_sql(&self) -> String {
        let values = placeholders(self.schema.fields().len() + 1);
        format!(
            "INSERT OR REPLACE INTO {} ({ROW}, {}) VALUES ({values})",
            quote_identifier(&self.name),
            self.column_list()
        )
    }

    /// Deletes the row of a number.
    pub(crate) fn delete_sql(&self) -> String {
        format!("DELETE FROM {} WHERE _rowid_ = ?", quote_identifier(&self.name))
    }

    /// The number and the columns of the rows whose [`Stored::together`] are the parameters; null equals null.
    pub(crate) fn select_together_sql(&self) -> String {
        let keys = self.together.iter().map(|key| format!("{} IS ?", quote_identifier(self.schema.field(*key).name())));
        let filter = keys.collect::<Vec<_>>().join(" AND ");
        // Without any, all rows depend on each other; without keys there is only one.
        let filter = if filter.is_empty() { "TRUE" } else { &filter };
        format!("SELECT _rowid_, {} FROM {} WHERE {filter}", self.column_list(), quote_identifier(&self.name))
    }

    /// The number and the columns of all rows.
    pub(crate) fn select_all_sql(&self) -> String {
        format!("SELECT _rowid_, {} FROM {}", self.column_list(), quote_identifier(&self.name))
    }

    /// Gives all rows to `take`, in no order.
    pub(crate) fn scan(&self, connection: &Connection, take: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Work<()> {
        self.scan_by(RowReader::new(self.schema.clone()), connection, take, &mut |_| Ok(()))
    }

    /// The rows with one of `keys` in the column `by`; of an event store's entity, the newest one.
    pub(crate) fn read_by(
        &self,
        connection: &Connection,
        by: &str,
        keys: &[rusqlite::types::Value],
    ) -> Work<Vec<RecordBatch>> {
        let mut rows = RowReader::new(self.schema.clone());
        let (source, by) = (self.newest_by(connection, by)?, quote_identifier(by));
        // Fewer than SQLite's limit of parameters.
        for keys in keys.chunks(500) {
            let sql =
                format!("SELECT {} FROM {source} WHERE {by} IN ({})", self.column_list(), placeholders(keys.len()));
            let mut select = connection.prepare(&sql)?;
            let mut found = select.query(rusqlite::params_from_iter(keys))?;
            while let Some(row) = found.next()? {
                rows.push(row, 0)?;
            }
        }
        Ok(rows.finish()?)
    }

    /// All rows that [`Stored::read_by`] finds by some key.
    pub(crate) fn read_all_by(&self, connection: &Connection, by: &str) -> Work<Vec<RecordBatch>> {
        let mut rows = RowReader::new(self.schema.clone());
        let sql = format!("SELECT {} FROM {}", self.column_list(), self.newest_by(connection, by)?);
        let mut select = connection.prepare(&sql)?;
        let mut found = select.query([])?;
        while let Some(row) = found.next()? {
            rows.push(row, 0)?;
        }
        Ok(rows.finish()?)
    }

    /// What is selected from when rows are found by the column `by`: of an event store's entity, the newest row.
    fn newest_by(&self, connection: &Connection, by: &str) -> Work<String> {
        let columns = declared_columns(connection, &self.name)?;
        let table = quote_identifier(&self.name);
        let Some(entity) = columns.iter().find(|column| column["role"] == role_name(&Role::Entity).as_str()) else {
            return Ok(table);
        };
        let entity = entity["name"].as_str().unwrap_or_default();
        if entity != by {
            let name = &self.name;
            return Err(Error::stop(format!("the rows of `{name}` can't be found by {by}: join it by {entity}")).into());
        }
        let by = quote_identifier(by);
        let newest_first = "_generation DESC, _offset DESC, _partition DESC";
        Ok(format!(
            "(SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY {by} ORDER BY {newest_first}) AS \"millstream age\" FROM \
             {table}) WHERE \"millstream age\" = 1)"
        ))
    }

    fn scan_by(
        &self,
        mut rows: RowReader,
        connection: &Connection,
        take: &mut dyn FnMut(RecordBatch) -> Result<()>,
        odd: &mut dyn FnMut(OddRow) -> Result<()>,
    ) -> Work<()> {
        let sql = format!("SELECT {} FROM {}", self.column_list(), quote_identifier(&self.name));
        let mut select = connection.prepare(&sql)?;
        let mut found = select.query([])?;
        while let Some(row) = found.next()? {
            rows.push(row, 0)?;
            rows.take_full().into_iter().try_for_each(&mut *take)?;
            rows.take_odd().into_iter().try_for_each(&mut *odd)?;
        }
        rows.finish()?.into_iter().try_for_each(take)?;
        Ok(rows.take_odd().into_iter().try_for_each(odd)?)
    }

    /// The same; rows that can't be read are given to `odd`.
    pub(crate) fn scan_with_odd(
        &self,
        connection: &Connection,
        take: &mut dyn FnMut(RecordBatch) -> Result<()>,
        odd: &mut dyn FnMut(OddRow) -> Result<()>,
    ) -> Work<()> {
        self.scan_by(RowReader::with_odd(self.schema.clone()), connection, take, odd)
    }

    /// All rows, in no order.
    pub(crate) fn read_all(&self, connection: &Connection) -> Work<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        self.scan(connection, &mut |batch| {
            rows.push(batch);
            Ok(())
        })?;
        Ok(rows)
    }
}

fn placeholders(count: usize) -> String {
    vec!["?"; count].join(", ")
}

fn role_name(role: &Role) -> String {
    match role {
        Role::Value => "value".to_owned(),
        Role::Carried => "carried".to_owned(),
        Role::Entity => "entity".to_owned(),
        Role::Newest => "newest".to_owned(),
        Role::Key => "key".to_owned(),
        Role::State(merge) => format!("{merge:?}").to_lowercase(),
    }
}

/// A table that is only read: `schema` says by which columns.
pub(crate) fn with_columns(name: &str, schema: SchemaRef) -> Stored {
    Stored {
        name: name.to_owned(),
        roles: vec![],
        keys: vec![],
        together: vec![],
        has_row_column: false,
        positions: None,
        schema,
    }
}

/// The names of a table's columns; `Stop` when the file has no such table.
pub(crate) fn column_names(connection: &Connection, table: &str) -> Work<Vec<String>> {
    let declared = declared_columns(connection, table)?;
    Ok(declared.iter().filter_map(|column| column["name"].as_str()).map(str::to_owned).collect())
}

/// A table's columns as they were declared; `Stop` when the file has no such table.
fn declared_columns(connection: &Connection, table: &str) -> Work<Vec<serde_json::Value>> {
    let select = "SELECT schema FROM millstream_tables WHERE name = ?1";
    let missing = || {
        Error::stop(format!(
            "the embedded store has no table `{table}`. A function's own table is created by `millstream up`; a table from \
             elsewhere needs its database's address, or is read from a file"
        ))
    };
    let declared: String = connection.query_row(select, [table], |row| row.get(0)).optional()?.ok_or_else(missing)?;
    Ok(serde_json::from_str(&declared).unwrap_or_default())
}
