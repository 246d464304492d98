//! A table whose plan has changed: see [`millstream_core::Sink::adopt`].

use std::sync::Arc;

use arrow::{array::RecordBatch, compute::concat_batches};
use millstream_core::{Claim, Error, Owner, OwnerRecord, Result, Role, fault, is_wider, quote_identifier};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{
    EmbeddedSink,
    checked_rows::CheckedRows,
    columns,
    connections::{Failure, Work, Writing},
    row_reader::RowReader,
    tables::Stored,
    write::Shown,
};

impl EmbeddedSink {
    /// See [`millstream_core::Sink::misfits`].
    pub(crate) async fn find_misfits(&self) -> Result<Vec<String>> {
        let (states, finished) = self.stored();
        let owned = self.owned();
        let find = move |connection: &Connection| {
            let conflict = owned.holding(connection)?.conflict(&owned.function);
            if let Err(Failure::Contract(Error::Stop(cause))) =
                refuse_other_layout(connection, &states, finished.as_deref())
            {
                return Ok(conflict.into_iter().chain([cause.to_string()]).collect());
            }
            let mut misfits = states.misfits(connection, false)?;
            misfits.extend(conflict);
            misfits.extend(finished.map_or(Ok(Vec::new()), |finished| finished.misfits(connection, true))?);
            Ok(misfits)
        };
        self.store.connections.read(find).await
    }

    /// Adds new columns to the states, gives them wider types, finishes every row anew, and makes the claim: one transaction. All
    /// of the table is in memory meanwhile.
    pub(crate) async fn adopt_tables(&self, owner: &Owner, claim: Claim) -> Result<Option<OwnerRecord>> {
        let (states, finished) = self.stored();
        let (owned, owner, now) = (self.owned(), owner.clone(), self.now());
        let writing = Writing::begin(&self.store.connections).await?;
        let (of_states, of_finished) = (states.clone(), finished.clone());
        let change = move |connection: &Connection| {
            refuse_other_layout(connection, &of_states, of_finished.as_deref())?;
            of_states.adapt(connection)?;
            let read = match &of_finished {
                None => None,
                Some(finished) => {
                    finished.replace(connection)?;
                    Some(read_numbered(connection, &of_states)?)
                }
            };
            fault::point("embedded.after_adapt");
            Ok((read, owned.claim(connection, &owner, &claim, &now)?))
        };
        let (writing, (read, claimed)) = writing.step(change).await?;
        // All of it is rolled back.
        let Some(record) = claimed else { return Ok(None) };
        let shown = match (finished, read) {
            (Some(table), Some((numbers, rows))) if rows.num_rows() > 0 => {
                let missing = || Error::stop("internal: a table of states without a way to finish them");
                let (rows, from) = self.combine().ok_or_else(missing)?.finish(&rows).await?;
                Some((Shown { rows: CheckedRows::new(&table, rows)?, table, from }, numbers))
            }
            _ => None,
        };
        let work =
            move |connection: &Connection| shown.map_or(Ok(()), |(shown, numbers)| shown.put(connection, &numbers));
        writing.commit(work, || fault::point("embedded.before_adopt_commit")).await?;
        fault::point("embedded.after_adopt_commit");
        Ok(Some(record))
    }
}

/// What was the result itself can't become states, nor the reverse: the rows would be lost, or taken for others.
fn refuse_other_layout(connection: &Connection, states: &Stored, finished: Option<&Stored>) -> Work<()> {
    let is_there = |name: &str| -> Work<bool> {
        let select = "SELECT EXISTS (SELECT 1 FROM millstream_tables WHERE name = ?1)";
        Ok(connection.query_row(select, [name], |row| row.get(0))?)
    };
    let states_of = format!("{}_state", states.name);
    match finished {
        None if is_there(&states_of)? => Err(Error::stop(format!(
            "table `{}` of the embedded store is finished from the states in `{states_of}`, and the new statement writes its \
             results themselves: the next change back would lose them",
            states.name
        ))
        .into()),
        Some(finished) if is_there(&finished.name)? && !is_there(&states.name)? => Err(Error::stop(format!(
            "table `{}` of the embedded store holds the results themselves, and the new statement needs their states \
             (a mean, or an expression over aggregates): they can't be computed from the results",
            finished.name
        ))
        .into()),
        _ => Ok(()),
    }
}

/// The rows with their numbers.
fn read_numbered(connection: &Connection, states: &Stored) -> Work<(Vec<i64>, RecordBatch)> {
    let mut select = connection.prepare(&states.select_all_sql())?;
    let mut found = select.query([])?;
    let (mut numbers, mut rows) = (Vec::new(), RowReader::new(Arc::clone(&states.schema)));
    while let Some(row) = found.next()? {
        numbers.push(row.get(0)?);
        rows.push(row, 1)?;
    }
    let batches = rows.finish()?;
    let broken = |error| Error::stop("internal: rows of one table differ in type").caused_by(error);
    Ok((numbers, concat_batches(&states.schema, &batches).map_err(broken)?))
}

impl Stored {
    /// Creates the table if it is missing, adds the columns that it lacks, which hold nulls in the rows that are there, and gives
    /// columns wider types.
    fn adapt(&self, connection: &Connection) -> Work<()> {
        let (declared, is_there) = self.find(connection)?;
        if !is_there {
            // Somebody has dropped it.
            connection.execute("DELETE FROM millstream_tables WHERE name = ?1", [&self.name])?;
        }
        let Some(declared) = declared.filter(|_| is_there) else { return self.prepare(connection, true) };
        let adapted = self.adapted(&declared)?;
        for statement in &adapted.statements {
            connection.execute_batch(statement)?;
        }
        let update = "UPDATE millstream_tables SET schema = ?2 WHERE name = ?1";
        connection.execute(update, params![self.name, adapted.declaration])?;
        self.prepare(connection, false)
    }

    /// The declaration of the table, and whether there is something of its name.
    fn find(&self, connection: &Connection) -> Work<(Option<String>, bool)> {
        let select = "SELECT schema FROM millstream_tables WHERE name = ?1";
        let declared: Option<String> = connection.query_row(select, [&self.name], |row| row.get(0)).optional()?;
        let is_there = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = ?1 COLLATE NOCASE)";
        Ok((declared, connection.query_row(is_there, [&self.name], |row| row.get(0))?))
    }

    /// What keeps the table from being adapted, or from being created anew if `is_replaced`.
    fn misfits(&self, connection: &Connection, is_replaced: bool) -> Work<Vec<String>> {
        self.check_names()?;
        match self.find(connection)? {
            (None, true) => Ok(vec![format!("`{}` was not created by millstream: rename one of the two", self.name)]),
            (Some(declared), true) if !is_replaced => Ok(self.differences(&self.adapted(&declared)?.declaration)?),
            _ => Ok(Vec::new()),
        }
    }

    /// How the table that was declared as `declared` gets the columns that it lacks, as far as they may be null and are no
    /// keys, and wider types. The rest are misfits.
    fn adapted(&self, declared: &str) -> Result<Adapted> {
        let mut declared = self.parsed(declared)?;
        let wanted = self.declaration();
        let mut statements = Vec::new();
        for (index, field) in self.schema.fields().iter().enumerate() {
            let (table, column) = (quote_identifier(&self.name), quote_identifier(field.name()));
            let is_key = self.keys.contains(&index);
            if let Some(have) = declared.iter_mut().find(|have| have["name"] == *field.name()) {
                let from = have["type"].as_str().and_then(columns::number_type);
                let role = if is_key { Role::Key } else { Role::Value };
                let Some(from) = from.filter(|from| is_wider(from, field.data_type(), &role)) else { continue };
                if let Some(digits) = columns::further_digits(&from, field.data_type()) {
                    // No two values become the same, so the index of the keys holds all the time.
                    statements.push(format!("UPDATE {table} SET {column} = {column} || '{digits}'"));
                }
                have["type"] = wanted[index]["type"].clone();
            } else if let Some(kind) = columns::declared_type(field.data_type())
                && field.is_nullable()
                && !is_key
            {
                statements.push(format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"));
                declared.push(wanted[index].clone());
            }
        }
        Ok(Adapted { statements, declaration: serde_json::Value::from(declared).to_string() })
    }

    /// Creates the table in place of the one that is there.
    fn replace(&self, connection: &Connection) -> Work<()> {
        if connection.execute("DELETE FROM millstream_tables WHERE name = ?1", [&self.name])? > 0 {
            connection.execute_batch(&format!("DROP TABLE IF EXISTS {}", quote_identifier(&self.name)))?;
        }
        self.prepare(connection, true)
    }
}

/// The statements that adapt a table, and its declaration afterwards.
struct Adapted {
    statements: Vec<String>,
    declaration: String,
}
