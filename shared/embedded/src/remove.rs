use millstream_core::Result;
use rusqlite::{Connection, OptionalExtension as _};

use crate::{Embedded, connections::Work, tables::quoted};

/// What is to be removed from the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Functions (`pipeline.function`): their fences, dead letters and committed offsets.
    pub functions: Vec<String>,
    /// Tables, whole; those that are not there are passed over.
    pub tables: Vec<String>,
    /// Topics with their records; those that are not there are passed over.
    pub topics: Vec<String>,
}

impl Embedded {
    /// Removes all of it in one step, for a new beginning. What runs meanwhile finds its fence gone and stops or begins
    /// anew.
    ///
    /// # Errors
    /// `Retry` when another process holds the write lock for too long.
    pub async fn remove(&self, removal: Removal) -> Result<()> {
        self.connections
            .write(move |connection| {
                removal.functions.iter().try_for_each(|function| remove_function(connection, function))?;
                removal.tables.iter().try_for_each(|table| remove_table(connection, table))?;
                removal.topics.iter().try_for_each(|topic| remove_topic(connection, topic))
            })
            .await
    }
}

fn remove_function(connection: &Connection, function: &str) -> Work<()> {
    for (table, column) in [
        ("millstream_fences", "function"),
        ("millstream_dead_letters", "function"),
        ("millstream_group_offsets", "\"group\""),
    ] {
        connection.execute(&format!("DELETE FROM {table} WHERE {column} = ?1"), [function])?;
    }
    Ok(())
}

fn remove_table(connection: &Connection, table: &str) -> Work<()> {
    // Only what is listed there is a function's table.
    if connection.execute("DELETE FROM millstream_tables WHERE name = ?1", [table])? > 0 {
        connection.execute_batch(&format!("DROP TABLE {}", quoted(table)))?;
    }
    Ok(())
}

fn remove_topic(connection: &Connection, topic: &str) -> Work<()> {
    let select = "SELECT id FROM millstream_topics WHERE name = ?1";
    let Some(id) = connection.query_row(select, [topic], |row| row.get::<_, i64>(0)).optional()? else { return Ok(()) };
    for table in ["millstream_records", "millstream_partitions", "millstream_group_offsets"] {
        connection.execute(&format!("DELETE FROM {table} WHERE topic_id = ?1"), [id])?;
    }
    connection.execute("DELETE FROM millstream_topics WHERE id = ?1", [id])?;
    Ok(())
}
