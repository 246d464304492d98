use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::SchemaRef,
};
use millstream_core::{Result, quote_identifier};
use rusqlite::{Connection, types::ValueRef};

use crate::{
    Embedded, columns,
    connections::Work,
    tables::{Stored, column_names, with_columns},
};

/// Bytes of a binary value that are shown.
const SHOWN_BYTES: usize = 16;

impl Embedded {
    /// The rows of `table` that were first written last, newest first, as text for a person: the names of the columns,
    /// then at most `limit` rows. A null is shown as `null`.
    ///
    /// # Errors
    /// `Stop` when there is no such table; `Retry` when the file can't be read now.
    pub async fn newest_rows(&self, table: &str, limit: usize) -> Result<(Vec<String>, Vec<Vec<String>>)> {
        let table = table.to_owned();
        self.connections
            .read(move |connection| {
                let names = column_names(connection, &table)?;
                let columns = names.iter().map(|name| quote_identifier(name)).collect::<Vec<_>>().join(", ");
                let sql = format!("SELECT {columns} FROM {} ORDER BY _rowid_ DESC LIMIT ?1", quote_identifier(&table));
                let mut select = connection.prepare(&sql)?;
                let mut found = select.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
                let mut rows = Vec::new();
                while let Some(row) = found.next()? {
                    let cell = |column| row.get_ref(column).map(cell_text);
                    rows.push((0..names.len()).map(cell).collect::<rusqlite::Result<_>>()?);
                }
                Ok((names, rows))
            })
            .await
    }

    /// All rows of `table` as of one instant, with the columns that `schema` names, as its types: how a reference is
    /// loaded. Holds the whole table in memory.
    ///
    /// # Errors
    /// `Stop` when there is no such table or column, or a value does not fit its type; `Retry` when the file can't be read
    /// now.
    pub async fn read_table(&self, table: &str, schema: SchemaRef) -> Result<Vec<RecordBatch>> {
        let table = table.to_owned();
        self.connections.read(move |connection| checked(connection, &table, schema)?.read_all(connection)).await
    }

    /// The same for the rows with one of `keys` in the column `by`.
    ///
    /// # Errors
    /// Those of [`Embedded::read_table`].
    pub(crate) async fn read_table_by(
        &self,
        table: &str,
        schema: SchemaRef,
        by: &str,
        keys: &ArrayRef,
    ) -> Result<Vec<RecordBatch>> {
        let (table, by, keys) = (table.to_owned(), by.to_owned(), columns::encode(keys)?);
        self.connections
            .read(move |connection| checked(connection, &table, schema)?.read_by(connection, &by, &keys))
            .await
    }

    /// How many rows `table` has.
    ///
    /// # Errors
    /// `Stop` when there is no such table; `Retry` when the file can't be read now.
    pub(crate) async fn row_count(&self, table: &str) -> Result<u64> {
        let table = table.to_owned();
        self.connections
            .read(move |connection| {
                column_names(connection, &table)?;
                let select = format!("SELECT count(*) FROM {}", quote_identifier(&table));
                Ok(connection.query_row(&select, [], |row| row.get::<_, i64>(0))? as u64)
            })
            .await
    }
}

/// A table that has the columns of `schema`.
fn checked(connection: &Connection, table: &str, schema: SchemaRef) -> Work<Stored> {
    let names = column_names(connection, table)?;
    if let Some(field) = schema.fields().iter().find(|field| !names.contains(field.name())) {
        let (field, names) = (field.name(), names.join("`, `"));
        let missing = format!("table `{table}` has no column `{field}`, its columns are `{names}`");
        return Err(millstream_core::Error::stop(missing).into());
    }
    Ok(with_columns(table, schema))
}

impl Embedded {
    /// All rows that [`Embedded::read_table_by`] finds by some key.
    ///
    /// # Errors
    /// Those of [`Embedded::read_table`].
    pub(crate) async fn read_all_by(&self, table: &str, schema: SchemaRef, by: &str) -> Result<Vec<RecordBatch>> {
        let (table, by) = (table.to_owned(), by.to_owned());
        self.connections.read(move |connection| checked(connection, &table, schema)?.read_all_by(connection, &by)).await
    }
}

fn cell_text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(value) => value.to_string(),
        ValueRef::Real(value) => value.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => {
            let hex = bytes.iter().take(SHOWN_BYTES).map(|byte| format!("{byte:02x}")).collect::<String>();
            if bytes.len() > SHOWN_BYTES { format!("{hex}…") } else { hex }
        }
    }
}
