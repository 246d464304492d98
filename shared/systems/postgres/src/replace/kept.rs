//! Rights and comments go from the old relations to the new ones.

use millstream_core::{Result, Table, quote_identifier};
use tokio_postgres::{GenericClient, types::Type};

use super::old::{Old, Relation};
use crate::{catalog::Catalog, definition::VIEW_COMMENT};

/// Who but the owner has which right on the relation `$1`, or on a column of it.
const GRANTS: &str = "SELECT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END, g.privilege_type, \
     g.is_grantable, g.of FROM pg_class c CROSS JOIN LATERAL (SELECT e.*, NULL::text AS of FROM aclexplode(c.relacl) e \
     UNION ALL SELECT e.*, a.attname::text FROM pg_attribute a CROSS JOIN LATERAL aclexplode(a.attacl) e \
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) g \
     WHERE c.oid = $1 AND (g.grantee = 0 OR g.grantee <> c.relowner) ORDER BY 4 NULLS FIRST, 1, 2";

/// The comments on the relation `$1` (no column), and on its columns.
const COMMENTS: &str = "SELECT NULL::text, obj_description($1, 'pg_class') UNION ALL SELECT a.attname::text, \
     col_description($1, a.attnum) FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped";

const COLUMN_NAMES: &str =
    "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";

const OWNERS: &str = "SELECT relowner::regrole::text, relowner = current_user::regrole FROM pg_class WHERE oid = $1";

/// What is on the old relations, by the new relation that gets it.
pub(crate) struct Kept(Vec<On>);

struct On {
    /// The new relation.
    name: String,
    /// Its comment is millstream's own.
    is_view: bool,
    grants: Vec<Grant>,
    comments: Vec<(Option<String>, String)>,
    /// The owner, if it is another one than who runs this.
    owner: Option<String>,
}

#[derive(Clone)]
struct Grant {
    to: String,
    right: String,
    grantable: bool,
    column: Option<String>,
}

impl Kept {
    pub(super) async fn of<C: GenericClient>(here: &Catalog<'_, C>, old: &Old, new: &Table) -> Result<Self> {
        let mut kept = Vec::new();
        if let Some(public) = &old.public {
            kept.push(On::of(here, public, new.public_name(), new.view.is_some()).await?);
        }
        match (&old.states, &old.public, &new.view) {
            (Some(states), _, Some(_)) => kept.push(On::of(here, states, &new.name, false).await?),
            // Who wrote to the states writes to the table from now on.
            (Some(states), _, None) => {
                let on = On::of(here, states, &new.name, false).await?;
                match kept.first_mut() {
                    Some(public) => public.grants.extend(on.of_table()),
                    None => kept.push(On { comments: Vec::new(), grants: on.of_table(), ..on }),
                }
            }
            // Who wrote to the table writes to its states from now on.
            (None, Some(table), Some(_)) if !table.is_view => {
                let on = On::of(here, table, &new.name, false).await?;
                kept.push(On { comments: Vec::new(), grants: on.of_table(), ..on });
            }
            _ => {}
        }
        Ok(Self(kept))
    }

    /// What is on a view of ours that is made again under its name; none when there is no such view.
    pub(crate) async fn of_view<C: GenericClient>(here: &Catalog<'_, C>, name: &str) -> Result<Option<Self>> {
        match Relation::find(here, name).await? {
            Some((view, _)) if view.is_view => Ok(Some(Self(vec![On::of(here, &view, name, true).await?]))),
            _ => Ok(None),
        }
    }

    /// Returns what can't be put on the new relations.
    pub(crate) async fn put_on<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<Vec<String>> {
        let mut lost = Vec::new();
        for on in &self.0 {
            lost.extend(on.put(here).await?);
        }
        Ok(lost)
    }
}

impl On {
    async fn of<C: GenericClient>(here: &Catalog<'_, C>, from: &Relation, to: &str, is_view: bool) -> Result<Self> {
        let grant = |row: &tokio_postgres::Row| Grant {
            to: row.get(0),
            right: row.get(1),
            grantable: row.get(2),
            column: row.get(3),
        };
        let grants = here.query(GRANTS, &[(&from.oid, Type::OID)]).await?.iter().map(grant).collect();
        let comments = here.query(COMMENTS, &[(&from.oid, Type::OID)]).await?;
        let comment = |row: &tokio_postgres::Row| Some((row.get(0), row.get::<_, Option<String>>(1)?));
        let mut comments: Vec<(Option<String>, String)> = comments.iter().filter_map(comment).collect();
        comments.retain(|(of, comment)| of.is_some() || !comment.starts_with(VIEW_COMMENT));
        let owner = here.query(OWNERS, &[(&from.oid, Type::OID)]).await?;
        let owner = owner.first().filter(|row| !row.get::<_, bool>(1)).map(|row| row.get(0));
        Ok(Self { name: to.to_owned(), is_view, grants, comments, owner })
    }

    /// The rights on the table as a whole: its columns are others.
    fn of_table(&self) -> Vec<Grant> {
        self.grants.iter().filter(|grant| grant.column.is_none()).cloned().collect()
    }

    async fn put<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<Vec<String>> {
        let name = quote_identifier(&self.name);
        let columns = here.query(COLUMN_NAMES, &[(&name, Type::TEXT)]).await?;
        let columns: Vec<String> = columns.iter().map(|row| row.get(0)).collect();
        let mut lost = Vec::new();
        self.revoke_defaults(here, &name).await?;
        for Grant { to, right, grantable, column } in &self.grants {
            let of = match column {
                Some(column) if !columns.contains(column) => continue,
                Some(column) => format!(" ({})", quote_identifier(column)),
                None => String::new(),
            };
            let option = if *grantable { " WITH GRANT OPTION" } else { "" };
            let refused = here.try_run(&format!("GRANT {right}{of} ON {name} TO {to}{option}")).await?;
            lost.extend(refused.map(|why| format!("{right}{of} on {} for {to} ({why})", self.name)));
        }
        for (of, comment) in &self.comments {
            let literal = format!("'{}'", comment.replace('\'', "''"));
            let on = match of {
                Some(column) if !columns.contains(column) => continue,
                Some(column) => format!("COLUMN {name}.{}", quote_identifier(column)),
                None if self.is_view => {
                    lost.push(format!(
                        "the comment on {} (it becomes a view, whose comment is millstream's)",
                        self.name
                    ));
                    continue;
                }
                None => format!("TABLE {name}"),
            };
            here.run(&format!("COMMENT ON {on} IS E{}", literal.replace('\\', "\\\\"))).await?;
        }
        if let Some(owner) = &self.owner {
            let refused = here.try_run(&format!("ALTER TABLE {name} OWNER TO {owner}")).await?;
            lost.extend(refused.map(|why| format!("the owner {owner} of {} ({why})", self.name)));
        }
        Ok(lost)
    }

    /// Takes away the rights that default privileges have given to a new relation.
    async fn revoke_defaults<C: GenericClient>(&self, here: &Catalog<'_, C>, name: &str) -> Result<()> {
        let oid = here.query("SELECT to_regclass($1)::oid", &[(&name, Type::TEXT)]).await?;
        let Some(oid) = oid.first().and_then(|row| row.get::<_, Option<u32>>(0)) else { return Ok(()) };
        for row in here.query(GRANTS, &[(&oid, Type::OID)]).await? {
            here.run(&format!("REVOKE ALL ON {name} FROM {}", row.get::<_, String>(0))).await?;
        }
        Ok(())
    }
}
