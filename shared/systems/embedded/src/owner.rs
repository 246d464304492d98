//! Who fills a table, as rows of `millstream_owners`: see [`millstream_core::Owner`].

use std::sync::Arc;

use millstream_core::{Claim, Error, Holding, Owner, OwnerRecord, Rows, fences_of_both, quote_identifier, term_ended};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;

use crate::{connections::Work, fences};

const RECORD: &str = "table_name, function, fingerprint, declaration, term, since, adopted";

/// The table and the function that a claim is about.
pub(crate) struct Owned {
    pub(crate) function: Arc<str>,
    /// The table as the pipeline file calls it.
    pub(crate) public: Arc<str>,
    /// The table that rows are written to.
    pub(crate) table: Arc<str>,
}

/// Fails when the table is in another term by now. A sink in term 0 asks for nothing.
pub(crate) fn check_term(connection: &Connection, public: &str, term: i64) -> Work<()> {
    if term == 0 {
        return Ok(());
    }
    match find(connection, public)? {
        Some(record) if record.term == term => Ok(()),
        record => Err(term_ended(public, record.as_ref()).into()),
    }
}

pub(crate) fn find(connection: &Connection, public: &str) -> Work<Option<OwnerRecord>> {
    let select = format!("SELECT {RECORD} FROM millstream_owners WHERE table_name = ?1");
    Ok(connection.query_row(&select, [public], read).optional()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<OwnerRecord> {
    let owner = Owner { function: row.get(1)?, fingerprint: row.get(2)?, declaration: row.get(3)? };
    Ok(OwnerRecord { table: row.get(0)?, owner, term: row.get(4)?, since: row.get(5)?, adopted: row.get(6)? })
}

impl Owned {
    /// See [`millstream_core::Sink::holding`].
    pub(crate) fn holding(&self, connection: &Connection) -> Work<Holding> {
        let select = format!("SELECT {RECORD} FROM millstream_owners WHERE function = ?1 AND table_name <> ?2");
        let mut select = connection.prepare(&select)?;
        let others = select.query_map(params![self.function, self.public], read)?.collect::<rusqlite::Result<_>>()?;
        Ok(Holding {
            record: find(connection, &self.public)?,
            others,
            fences: fences::list(connection, &self.function)?,
            rows: self.rows(connection)?,
        })
    }

    fn rows(&self, connection: &Connection) -> Work<Rows> {
        let select = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = ?1 COLLATE NOCASE AND type = 'table')";
        if !connection.query_row(select, [&self.table], |row| row.get::<_, bool>(0))? {
            return Ok(Rows::Missing);
        }
        let select = format!("SELECT EXISTS (SELECT 1 FROM {})", quote_identifier(&self.table));
        let has_rows = connection.query_row(&select, [], |row| row.get::<_, bool>(0))?;
        Ok(if has_rows { Rows::Present } else { Rows::Empty })
    }

    /// See [`millstream_core::Sink::claim`]. Runs within the caller's write transaction.
    pub(crate) fn claim(
        &self,
        connection: &Connection,
        owner: &Owner,
        claim: &Claim,
        now: &str,
    ) -> Work<Option<OwnerRecord>> {
        let found = find(connection, &self.public)?;
        if found.as_ref() != claim.expected() {
            return Ok(None);
        }
        let before = found.as_ref().map_or(owner.function.as_str(), |record| &record.owner.function);
        let (term, since) = match claim {
            Claim::Renew(record) => (record.term, record.since.as_str()),
            Claim::First | Claim::Adopt(_) | Claim::Rebuild(_) => {
                (self.next_term(connection, &owner.function, before)?, now)
            }
        };
        if claim.begins_term() {
            // Those of a rebuild are the new owner's already.
            let before = if matches!(claim, Claim::Rebuild(_)) { &owner.function } else { before };
            self.take_fences(connection, &owner.function, before)?;
        }
        let change = found.as_ref().filter(|found| found.term != term).map(|found| {
            json!([{ "term": found.term, "since": found.since, "function": found.owner.function,
                "fingerprint": found.owner.fingerprint, "declaration": found.owner.declaration }])
            .to_string()
        });
        connection.execute(
            "INSERT INTO millstream_owners (table_name, function, fingerprint, declaration, term, since, adopted)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?8)
             ON CONFLICT (table_name) DO UPDATE SET function = ?2, fingerprint = ?3, declaration = ?4, term = ?5, since = ?6,
                 adopted = ?8,
                 changes = CASE WHEN ?7 IS NULL THEN changes ELSE json_insert(changes, '$[#]', json_extract(?7, '$[0]')) END",
            params![self.public, owner.function, owner.fingerprint, owner.declaration, term, since, change, claim.is_adopted()],
        )?;
        if claim.begins_term() {
            let forget = matches!(claim, Claim::Adopt(_));
            connection.execute(
                "UPDATE millstream_fences SET term = ?2, rows = CASE WHEN ?3 THEN 0 ELSE rows END WHERE function = ?1",
                params![owner.function, term, forget],
            )?;
        }
        find(connection, &self.public)
    }

    /// Above every term that a fence of either function, or a table that one of them has filled, was in; and by the clock, above
    /// those of records that are gone.
    fn next_term(&self, connection: &Connection, new: &str, before: &str) -> Work<i64> {
        let select =
            "SELECT 1 + max(CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER), coalesce((SELECT max(term) FROM millstream_fences WHERE function IN (?1, ?2)), 0),
             coalesce((SELECT max(term) FROM millstream_owners WHERE function IN (?1, ?2) OR table_name = ?3), 0))";
        Ok(connection.query_row(select, params![new, before, self.public], |row| row.get(0))?)
    }

    /// Gives the fences of `before` to `new`, and removes the records of other tables that `new` filled.
    fn take_fences(&self, connection: &Connection, new: &str, before: &str) -> Work<()> {
        if new != before {
            let select = "SELECT EXISTS (SELECT 1 FROM millstream_fences WHERE function = ?1)";
            if connection.query_row(select, [new], |row| row.get::<_, bool>(0))? {
                return Err(Error::stop(fences_of_both(new, before, &self.public)).into());
            }
            connection.execute("UPDATE millstream_fences SET function = ?1 WHERE function = ?2", [new, before])?;
        }
        let delete = "DELETE FROM millstream_owners WHERE function = ?1 AND table_name <> ?2";
        connection.execute(delete, params![new, self.public])?;
        Ok(())
    }
}
