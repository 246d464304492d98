use std::{collections::BTreeSet, path::Path, time::Duration};

use millstream_core::{Result, quote_identifier};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};

use crate::{Embedded, connections::Work, owner, replace::has_states};

/// What belongs to a function (`pipeline.function`), and the column that names it.
const OWNED: [(&str, &str); 4] = [
    ("millstream_fences", "function"),
    ("millstream_owners", "function"),
    ("millstream_dead_letters", "function"),
    ("millstream_group_offsets", "\"group\""),
];

/// What to remove from the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Functions (`pipeline.function`): their fences, dead letters and committed offsets.
    pub functions: Vec<String>,
    /// Tables, whole; those that are not there are passed over.
    pub tables: Vec<String>,
    /// What rebuilds have left: the function that fills a table, and the table, which has states perhaps. A table that another
    /// function fills, or nobody says who, is passed over.
    pub rebuilds: Vec<(String, String)>,
    /// Topics with their records; those that are not there are passed over.
    pub topics: Vec<String>,
}

impl Embedded {
    /// Pipelines that have sent records or have fences, dead letters or group offsets in the file, in the order of their
    /// names.
    ///
    /// # Errors
    /// `Retry` when the file can't be read now.
    pub async fn pipelines(&self) -> Result<Vec<String>> {
        self.connections
            .read(|connection| {
                let functions = OWNED.map(|(table, column)| format!("SELECT {column} AS function FROM {table}"));
                let senders = "SELECT pipeline || '.' FROM millstream_senders";
                let mut select = connection.prepare(&[functions.join(" UNION ").as_str(), senders].join(" UNION "))?;
                let functions = select.query_map([], |row| row.get::<_, String>(0))?;
                let pipelines = functions.map(|function| {
                    Ok(function?.split_once('.').map_or_else(String::new, |(pipeline, _)| pipeline.to_owned()))
                });
                Ok(pipelines.collect::<rusqlite::Result<BTreeSet<_>>>()?.into_iter().collect())
            })
            .await
    }

    /// Is the file open, in this process or another? Tries to end its write-ahead log, which succeeds only while no other
    /// connection is open; opening the file creates the log again. False for a missing file, and for one that isn't SQLite's.
    pub fn is_open(path: &Path) -> bool {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let Ok(connection) = Connection::open_with_flags(path, flags) else { return false };
        let alone = connection
            .busy_timeout(Duration::ZERO)
            .and_then(|()| connection.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0)));
        match alone {
            Ok::<String, _>(mode) => mode == "wal",
            Err(error) => {
                matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
            }
        }
    }

    /// Removes all of it in one step, for a fresh start. A function that runs meanwhile finds its fence gone, and stops or
    /// starts again.
    ///
    /// # Errors
    /// `Retry` when another process holds the write lock for too long.
    pub async fn remove(&self, removal: Removal) -> Result<()> {
        self.connections
            .write(move |connection| {
                for (function, table) in &removal.rebuilds {
                    remove_rebuild(connection, function, table)?;
                }
                removal.functions.iter().try_for_each(|function| remove_function(connection, function))?;
                removal.tables.iter().try_for_each(|table| remove_table(connection, table))?;
                removal.topics.iter().try_for_each(|topic| remove_topic(connection, topic))
            })
            .await
    }
}

fn remove_function(connection: &Connection, function: &str) -> Work<()> {
    for (table, column) in OWNED {
        connection.execute(&format!("DELETE FROM {table} WHERE {column} = ?1"), [function])?;
    }
    Ok(())
}

/// The name alone doesn't say whose a table is.
fn remove_rebuild(connection: &Connection, function: &str, table: &str) -> Work<()> {
    if owner::find(connection, table)?.is_none_or(|record| record.owner.function != *function) {
        return Ok(());
    }
    if has_states(connection, table)? {
        remove_table(connection, &format!("{table}_state"))?;
    }
    remove_table(connection, table)
}

pub(crate) fn remove_table(connection: &Connection, table: &str) -> Work<()> {
    // Only what is listed there is a function's table.
    if connection.execute("DELETE FROM millstream_tables WHERE name = ?1", [table])? > 0 {
        connection.execute_batch(&format!("DROP TABLE {}", quote_identifier(table)))?;
    }
    // Its function may have another name by now.
    connection.execute("DELETE FROM millstream_owners WHERE table_name = ?1", [table])?;
    Ok(())
}

fn remove_topic(connection: &Connection, topic: &str) -> Work<()> {
    let select = "SELECT id FROM millstream_topics WHERE name = ?1";
    let Some(id) = connection.query_row(select, [topic], |row| row.get::<_, i64>(0)).optional()? else { return Ok(()) };
    for table in ["millstream_records", "millstream_partitions", "millstream_senders", "millstream_group_offsets"] {
        connection.execute(&format!("DELETE FROM {table} WHERE topic_id = ?1"), [id])?;
    }
    connection.execute("DELETE FROM millstream_topics WHERE id = ?1", [id])?;
    Ok(())
}
