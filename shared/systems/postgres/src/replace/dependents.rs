use millstream_core::Result;
use tokio_postgres::{GenericClient, types::Type};

use super::old::Old;
use crate::catalog::Catalog;

/// The views that read the relations `$1` directly, the innermost first: name, definition, options, owner.
const DEPENDENTS: &str = "WITH RECURSIVE up (oid, depth) AS (SELECT unnest($1), 0 UNION \
     SELECT r.ev_class, up.depth + 1 FROM up JOIN pg_depend d ON d.refobjid = up.oid AND d.refclassid = 'pg_class'::regclass \
     AND d.classid = 'pg_rewrite'::regclass JOIN pg_rewrite r ON r.oid = d.objid \
     WHERE r.ev_class <> up.oid AND up.depth < 100) \
     SELECT v.oid::regclass::text, pg_get_viewdef(v.oid), array_to_string(v.reloptions, ', '), v.relowner::regrole::text \
     FROM (SELECT oid, max(depth) AS depth FROM up GROUP BY oid) u JOIN pg_class v ON v.oid = u.oid \
     WHERE v.relkind = 'v' AND v.oid <> ALL($1) AND EXISTS (SELECT FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid \
     AND d.classid = 'pg_rewrite'::regclass WHERE r.ev_class = v.oid AND d.refclassid = 'pg_class'::regclass \
     AND d.refobjid = ANY($1)) ORDER BY u.depth, v.oid";

/// A view of somebody's that reads the old table.
pub(super) struct Dependent {
    /// Quoted, and with its schema if it needs one.
    name: String,
    /// Its statement, which names the old table: read before that one is renamed, and good for the new one afterwards.
    select: String,
    options: Option<String>,
    owner: String,
}

impl Old {
    pub(super) async fn dependents<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<Vec<Dependent>> {
        let rows = here.query(DEPENDENTS, &[(&self.oids(), Type::OID_ARRAY)]).await?;
        let dependent = |row: &tokio_postgres::Row| Dependent {
            name: row.get(0),
            select: row.get(1),
            options: row.get(2),
            owner: row.get(3),
        };
        Ok(rows.iter().map(dependent).collect())
    }
}

impl Dependent {
    /// Locks the view alone, for `LOCK TABLE` would lock all tables beneath it: the owner stays who it is.
    pub(super) async fn lock<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<()> {
        // Who may not change the view can't replace it either, which is told then.
        here.try_run(&format!("ALTER VIEW {} OWNER TO {}", self.name, self.owner)).await.map(drop)
    }

    /// Makes the view read the new table, and keeps its rights and what depends on it. Returns why it can't be kept.
    pub(super) async fn replace<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<Option<String>> {
        let Self { name, select, options, .. } = self;
        let options = options.as_ref().map_or_else(String::new, |options| format!(" WITH ({options})"));
        let refused = here.try_run(&format!("CREATE OR REPLACE VIEW {name}{options} AS {select}")).await?;
        Ok(refused.map(|why| format!("view {name} ({why})")))
    }
}
