//! The indexes that people have made on the old table.

use millstream_core::{Replacement, Result, quote_identifier};
use tokio_postgres::{GenericClient, types::Type};

use super::old::Old;
use crate::{
    PostgresSink,
    catalog::Catalog,
    schema::{CREATE_LIMIT, LOCK_TIMEOUT},
    transaction::transaction,
};

/// The indexes of the table `$1` but `$2` and those of constraints: name, what follows the table's name
/// in the definition, and is it unique?
const INDEXES: &str = "SELECT c.relname::text, substr(d.text, length(d.prefix) + 1), i.indisunique, starts_with(d.text, d.prefix) \
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid \
     JOIN pg_namespace n ON n.oid = t.relnamespace CROSS JOIN LATERAL (SELECT pg_get_indexdef(i.indexrelid) AS text, \
     format('CREATE %sINDEX %I ON %I.%I ', CASE WHEN i.indisunique THEN 'UNIQUE ' END, c.relname, n.nspname, t.relname) \
     AS prefix) d WHERE i.indrelid = $1 AND i.indexrelid <> ALL($2) \
     AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid) ORDER BY 1";

/// Renames an index of the table `$1` from the staging table's name to the table's.
const OWN_INDEXES: &str = "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
     WHERE i.indrelid = to_regclass($1) AND starts_with(c.relname::text, $2)";

struct Index {
    name: String,
    /// `USING …`
    definition: String,
}

impl PostgresSink {
    /// Gives the new table the indexes of the old one that it lacks. Returns those that it can't have.
    pub(super) async fn carry_indexes(&self, replacement: &Replacement) -> Result<Vec<String>> {
        let what = format!("indexes of table {}", self.table.name);
        let mut lost = Vec::new();
        transaction(&self.pool, &what, CREATE_LIMIT, async |here| {
            here.run(LOCK_TIMEOUT).await?;
            let old = Old::find(&here, replacement).await?;
            let Some(rows) = old.rows() else { return Ok(None) };
            let (wanted, unique) = find(&here, rows.oid, &own_indexes(&here, replacement, &rows.name).await?).await?;
            lost = unique;
            let name = quote_identifier(&self.table.name);
            let oid = here.query("SELECT to_regclass($1)::oid", &[(&name, Type::TEXT)]).await?;
            let Some(oid) = oid.first().and_then(|row| row.get::<_, Option<u32>>(0)) else { return Ok(None) };
            let (have, _) = find(&here, oid, &[]).await?;
            for index in wanted.iter().filter(|index| have.iter().all(|have| have.definition != index.definition)) {
                let create = format!("CREATE INDEX ON {name} {}", index.definition);
                lost.extend(here.try_run(&create).await?.map(|why| format!("index {} ({why})", index.name)));
            }
            Ok(Some(()))
        })
        .await?;
        Ok(lost)
    }
}

/// The indexes of the old table's keys, which millstream has made. If its plan is unknown, its keys are taken for those of the
/// new one.
async fn own_indexes<C: GenericClient>(
    here: &Catalog<'_, C>,
    replacement: &Replacement,
    name: &str,
) -> Result<Vec<u32>> {
    let table = replacement.old_table.as_ref().unwrap_or(&replacement.table);
    match table.combine {
        Some(_) => here.key_indexes(table, name).await,
        None => Ok(Vec::new()),
    }
}

/// The indexes of a table but `own`, and those that no other table can have.
async fn find<C: GenericClient>(here: &Catalog<'_, C>, table: u32, own: &[u32]) -> Result<(Vec<Index>, Vec<String>)> {
    let (mut indexes, mut unique) = (Vec::new(), Vec::new());
    for row in here.query(INDEXES, &[(&table, Type::OID), (&own, Type::OID_ARRAY)]).await? {
        let name: String = row.get(0);
        match row.get::<_, bool>(2) || !row.get::<_, bool>(3) {
            true => unique.push(format!("unique index {name} (rows of the new statement may violate it)")),
            false => indexes.push(Index { name, definition: row.get(1) }),
        }
    }
    Ok((indexes, unique))
}

/// Called when the old table is dropped: its names are free.
pub(super) async fn take_names<C: GenericClient>(
    here: &Catalog<'_, C>,
    names: &[Named],
    staging: &str,
    table: &str,
) -> Result<()> {
    let quoted = quote_identifier(table);
    let oid = here.query("SELECT to_regclass($1)::oid", &[(&quoted, Type::TEXT)]).await?;
    let Some(oid) = oid.first().and_then(|row| row.get::<_, Option<u32>>(0)) else { return Ok(()) };
    let (have, _) = find(here, oid, &[]).await?;
    for Named { name, definition } in names {
        if let Some(index) = have.iter().find(|index| index.definition == *definition && index.name != *name) {
            rename(here, &index.name, name).await?;
        }
    }
    for row in here.query(OWN_INDEXES, &[(&quoted, Type::TEXT), (&staging, Type::TEXT)]).await? {
        let from: String = row.get(0);
        rename(here, &from, &from.replacen(staging, table, 1)).await?;
    }
    Ok(())
}

/// An index of the old table.
pub(super) struct Named {
    name: String,
    definition: String,
}

impl Old {
    /// The names of its indexes, before it is dropped.
    pub(super) async fn index_names<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<Vec<Named>> {
        let Some(rows) = self.rows() else { return Ok(Vec::new()) };
        let (indexes, _) = find(here, rows.oid, &[]).await?;
        Ok(indexes.into_iter().map(|Index { name, definition }| Named { name, definition }).collect())
    }
}

/// Where the name is taken, the index keeps the one it has.
async fn rename<C: GenericClient>(here: &Catalog<'_, C>, from: &str, to: &str) -> Result<()> {
    let (from, to) = (quote_identifier(from), quote_identifier(to));
    here.try_run(&format!("ALTER INDEX {from} RENAME TO {to}")).await.map(drop)
}
