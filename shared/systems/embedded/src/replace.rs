//! A table that was filled beside another one takes its place: see [`millstream_core::Replace`].

use async_trait::async_trait;
use millstream_core::{
    CatchUp, Claim, Error, Replace, Replaced, Replacement, Result, fault, quote_identifier, reached_text,
};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{
    EmbeddedSink,
    connections::{Work, Writing},
    fences, owner,
    owner::Owned,
    remove::remove_table,
    tables::{ROW, Stored},
};

#[async_trait]
impl Replace for EmbeddedSink {
    async fn rehearse(&self, replacement: &Replacement) -> Result<Vec<String>> {
        fault::point("embedded.before_swap");
        let step = self.step(replacement);
        let writing = Writing::begin(&self.store.connections).await?;
        // What is not committed is rolled back.
        let (_, lost) = writing.step(move |connection| step.replace(connection).map(|(_, lost)| lost)).await?;
        Ok(lost)
    }

    async fn take_place(&self, replacement: &Replacement, _: &dyn CatchUp) -> Result<Replaced> {
        let step = self.step(replacement);
        let may_drop = replacement.drop_dependents;
        fault::point("embedded.before_swap");
        let work = move |connection: &Connection| {
            let (replaced, lost) = step.replace_checked(connection)?;
            if !lost.is_empty() && !may_drop {
                return Err(Error::stop(format!("with the old table would go: {}", lost.join("; "))).into());
            }
            if matches!(replaced, Replaced::Done(_)) {
                fault::point("embedded.before_swap_commit");
            }
            Ok(replaced)
        };
        let replaced = self.store.connections.write(work).await?;
        if matches!(replaced, Replaced::Done(_)) {
            fault::point("embedded.after_swap_commit");
        }
        Ok(replaced)
    }

    async fn discard(&self) -> Result<()> {
        let owned = self.owned();
        self.store
            .connections
            .write(move |connection| {
                check_leftovers(connection, &owned)?;
                connection.execute("DELETE FROM millstream_fences WHERE function = ?1", [&owned.function])?;
                // Both, for its plan may have been another one.
                remove_table(connection, &owned.public)?;
                remove_table(connection, &format!("{}_state", owned.public))
            })
            .await
    }
}

impl EmbeddedSink {
    fn step(&self, replacement: &Replacement) -> Step {
        let (states, finished) = self.stored();
        let renamed = match finished {
            Some(finished) => {
                let to = replacement.table.public_name().to_owned();
                vec![(states.name.clone(), replacement.table.name.clone()), (finished.name.clone(), to)]
            }
            None => vec![(states.name.clone(), replacement.table.name.clone())],
        };
        let place = Owned {
            function: replacement.owner.function.as_str().into(),
            public: replacement.table.public_name().into(),
            table: replacement.table.name.as_str().into(),
        };
        let keys = format!("millstream_keys_of_{}", states.name);
        let states = Stored::states(&replacement.table);
        Step { staging: self.owned(), place, renamed, keys, states, now: self.now(), replacement: replacement.clone() }
    }
}

/// Does the table with the name of `public`'s states hold them? It may as well be what another function fills, or what one has
/// filled that has left the pipeline file.
pub(crate) fn has_states(connection: &Connection, public: &str) -> Work<bool> {
    let states = format!("{public}_state");
    if owner::find(connection, &states)?.is_some() {
        return Ok(false);
    }
    // Only states, and what is finished from them, have such a column.
    let is_one_of_two = |table: &str| -> rusqlite::Result<Option<bool>> {
        let select = "SELECT max(name = ?2) FROM pragma_table_info(?1)";
        connection.query_row(select, params![table, ROW], |row| row.get(0))
    };
    Ok(is_one_of_two(&states)? == Some(true) && is_one_of_two(public)? != Some(false))
}

/// `Stop` if a name of a rebuild's table is another one's: no rebuild is recorded for it, and it has rows, or another owner.
fn check_leftovers(connection: &Connection, rebuild: &Owned) -> Work<()> {
    let public = rebuild.public.to_string();
    let is_recorded =
        owner::find(connection, &public)?.is_some_and(|record| record.owner.function == *rebuild.function);
    let states = format!("{public}_state");
    let has_states = has_states(connection, &public)?;
    for (name, is_ours) in [(public, is_recorded), (states, is_recorded && has_states)] {
        let is_there = "SELECT EXISTS (SELECT 1 FROM millstream_tables WHERE name = ?1)";
        if is_ours || !connection.query_row(is_there, [&name], |row| row.get::<_, bool>(0))? {
            continue;
        }
        let select = format!("SELECT EXISTS (SELECT 1 FROM {})", quote_identifier(&name));
        let has_rows = connection.query_row(&select, [], |row| row.get::<_, bool>(0))?;
        if has_rows || owner::find(connection, &name)?.is_some() {
            let what = format!(
                "table `{name}` of the embedded store is none that a rebuild has made, and a rebuild needs the name: give its \
                 function a table of another name (`into`), and remove this one. Nothing was changed"
            );
            return Err(Error::stop(what).into());
        }
    }
    Ok(())
}

/// Does SQLite refuse an index, and not fail?
fn is_misfit(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(error, rusqlite::Error::SqlInputError { .. })
        || matches!(code, Some(rusqlite::ErrorCode::ConstraintViolation | rusqlite::ErrorCode::Unknown))
}

/// An index or a trigger of somebody's.
struct OnIt {
    kind: String,
    name: String,
    /// The statement that makes it.
    sql: String,
}

impl OnIt {
    fn is_index(&self) -> bool {
        self.kind == "index"
    }
}

/// One replacement.
struct Step {
    /// The table that takes the place.
    staging: Owned,
    place: Owned,
    /// The tables of the rebuild, each with the name that it gets.
    renamed: Vec<(String, String)>,
    /// The index of the new table's keys.
    keys: String,
    /// The new table in its place.
    states: Stored,
    now: String,
    replacement: Replacement,
}

impl Step {
    /// Nothing happens unless both records are those that were judged, and the new table has come as far as the old one.
    fn replace_checked(&self, connection: &Connection) -> Work<(Replaced, Vec<String>)> {
        let Replacement { record, .. } = &self.replacement;
        let of_staging = owner::find(connection, &self.staging.public)?;
        let is_ours = of_staging.is_some_and(|record| record.owner.function == *self.staging.function);
        if !is_ours || owner::find(connection, &self.place.public)? != *record {
            return Ok((Replaced::Changed, Vec::new()));
        }
        let old = fences::list(connection, self.replacement.before())?;
        if self.replacement.is_behind(&old, &fences::list(connection, &self.staging.function)?) {
            return Ok((Replaced::Behind, Vec::new()));
        }
        self.replace(connection)
    }

    /// The whole step, within the caller's write transaction; and what it loses.
    fn replace(&self, connection: &Connection) -> Work<(Replaced, Vec<String>)> {
        let (indexes, triggers) = self.drop_old(connection)?.into_iter().partition::<Vec<_>, _>(OnIt::is_index);
        // Otherwise views on the old name would keep a table from getting it.
        connection.pragma_update(None, "legacy_alter_table", true)?;
        let renamed = self.rename(connection);
        connection.pragma_update(None, "legacy_alter_table", false)?;
        renamed?;
        fault::point("embedded.after_rename");
        connection.execute_batch(&format!("DROP INDEX IF EXISTS {}", quote_identifier(&self.keys)))?;
        connection.execute_batch(&self.states.key_index_sql())?;
        // SQLite finds out only when a trigger fires whether it fits: then every write would fail, or it would never fire.
        let mut lost: Vec<_> = triggers.iter().map(|trigger| format!("trigger {}", trigger.name)).collect();
        for index in indexes {
            match connection.execute_batch(&index.sql) {
                Ok(()) => {}
                // The new table doesn't fit it. Any other error is one of the whole step, which it may have ended.
                Err(error) if is_misfit(&error) && !connection.is_autocommit() => {
                    lost.push(format!("index {}", index.name));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let record = self.move_fences(connection)?;
        Ok((Replaced::Done(record), lost))
    }

    fn rename(&self, connection: &Connection) -> Work<()> {
        for (from, to) in &self.renamed {
            let (quoted, into) = (quote_identifier(from), quote_identifier(to));
            connection.execute_batch(&format!("ALTER TABLE {quoted} RENAME TO {into}"))?;
            let update = "UPDATE millstream_tables SET name = ?2 WHERE name = ?1";
            connection.execute(update, params![from, to])?;
        }
        Ok(())
    }

    /// Drops the old table: what has the names that the new one gets. Returns the indexes and triggers that people have put on it.
    fn drop_old(&self, connection: &Connection) -> Work<Vec<OnIt>> {
        let public = &self.place.public;
        let mut on_it = Vec::new();
        for name in [public.to_string(), format!("{public}_state")] {
            let kind: Option<String> = connection
                .query_row("SELECT type FROM sqlite_master WHERE name = ?1 COLLATE NOCASE", [&name], |row| row.get(0))
                .optional()?;
            let is_ours = "SELECT EXISTS (SELECT 1 FROM millstream_tables WHERE name = ?1)";
            let is_ours: bool = connection.query_row(is_ours, [&name], |row| row.get(0))?;
            let is_old = is_ours && (name == **public || has_states(connection, public)?);
            let is_needed = self.renamed.iter().any(|(_, to)| to.eq_ignore_ascii_case(&name));
            match kind {
                Some(kind) if !is_ours && is_needed => {
                    let what =
                        format!("the {kind} `{name}` of the embedded store was not created by millstream: rename it");
                    return Err(Error::stop(what).into());
                }
                Some(_) if !is_old && is_needed => {
                    let what = format!(
                        "table `{name}` of the embedded store does not hold the states of `{public}`, and the name is needed for \
                         them: give the function that fills it, or this one, a table of another name (`into`)"
                    );
                    return Err(Error::stop(what).into());
                }
                _ if !is_old => continue,
                _ => {}
            }
            let own = format!("millstream_keys_of_{name}");
            let mut select = connection.prepare(
                "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = ?1 COLLATE NOCASE
                 AND type IN ('index', 'trigger') AND name <> ?2 COLLATE NOCASE AND sql IS NOT NULL",
            )?;
            let found = select.query_map(params![name, own], |row| {
                Ok(OnIt { kind: row.get(0)?, name: row.get(1)?, sql: row.get(2)? })
            })?;
            on_it.extend(found.collect::<rusqlite::Result<Vec<_>>>()?);
            connection.execute("DELETE FROM millstream_tables WHERE name = ?1", [&name])?;
            connection.execute_batch(&format!("DROP TABLE IF EXISTS {}", quote_identifier(&name)))?;
        }
        Ok(on_it)
    }

    /// Gives the fences of the rebuild to the owner, and records it. The record of the rebuild stays.
    fn move_fences(&self, connection: &Connection) -> Work<millstream_core::OwnerRecord> {
        let Replacement { owner, record, .. } = &self.replacement;
        let reached = reached_text(&fences::list(connection, &self.staging.function)?);
        for function in [self.replacement.before(), owner.function.as_str()] {
            connection.execute("DELETE FROM millstream_fences WHERE function = ?1", [function])?;
        }
        let update = "UPDATE millstream_fences SET function = ?2, term = NULL WHERE function = ?1";
        connection.execute(update, params![self.staging.function, owner.function])?;
        let update = "UPDATE millstream_owners SET declaration = ?2, term = term + 1 WHERE table_name = ?1";
        connection.execute(update, params![self.staging.public, reached])?;
        let claimed = self.place.claim(connection, owner, &Claim::Rebuild(record.clone()), &self.now)?;
        Ok(claimed.ok_or_else(|| Error::stop("internal: a record that was just read is another one"))?)
    }
}
