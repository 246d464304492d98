use arrow::datatypes::DataType;
use millstream_core::{Error, Replacement, Result, quote_identifier};
use tokio_postgres::{GenericClient, types::Type};

use crate::{
    catalog::Catalog,
    definition::{NARROW, VIEW_COMMENT, range},
    types::Kind,
};

/// What ends the names of the old relations until they are dropped.
const OLD_SUFFIX: &str = "__old";

/// What is at a name: its oid, its kind, its comment.
const AT_NAME: &str =
    "SELECT oid, relkind::text, obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass($1)";

/// What people have put on the relations `$1` and a new table can't get: everything that depends on them but views, indexes,
/// and the checks `$2` that millstream makes itself: see [`own_checks`].
const UNKEPT: &str = r"SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_depend d
     LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
     LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
     LEFT JOIN pg_class v ON v.oid = r.ev_class
     LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
     LEFT JOIN pg_attribute a ON a.attrelid = k.conrelid AND cardinality(k.conkey) = 1 AND a.attnum = k.conkey[1]
     WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY($1) AND d.deptype IN ('n', 'a')
     AND (c.oid IS NULL OR c.relkind NOT IN ('i', 'I') AND c.oid <> ALL($1)) AND (v.oid IS NULL OR v.relkind <> 'v')
     AND (k.oid IS NULL OR k.contype <> 'n'
          AND (k.contype = 'c' AND EXISTS (SELECT FROM unnest($2) own WHERE
               format_type(a.atttypid, a.atttypmod) || ' ' || regexp_replace(pg_get_constraintdef(k.oid), '::[a-z]+|[''()]', '', 'g')
               = format(own, regexp_replace(quote_ident(a.attname), '::[a-z]+|[''()]', '', 'g')))) IS NOT TRUE)
     ORDER BY 1";

/// What is set on the relations `$1` themselves and isn't carried over.
const SETTINGS: &str = "SELECT 'row level security of ' || c.relname FROM pg_class c \
     WHERE c.oid = ANY($1) AND (c.relrowsecurity OR c.relforcerowsecurity) \
     UNION ALL SELECT 'the replica identity of ' || c.relname FROM pg_class c \
     WHERE c.oid = ANY($1) AND c.relkind = 'r' AND c.relreplident <> 'd' \
     UNION ALL SELECT 'a security label of ' || s.objoid::regclass::text FROM pg_seclabel s \
     WHERE s.classoid = 'pg_class'::regclass AND s.objoid = ANY($1) \
     UNION ALL SELECT 'being a part of ' || i.inhparent::regclass::text FROM pg_inherits i WHERE i.inhrelid = ANY($1)";

/// A relation of the old table.
pub(super) struct Relation {
    pub(super) oid: u32,
    pub(super) name: String,
    pub(super) is_view: bool,
}

impl Relation {
    /// What is at a name, with its comment.
    ///
    /// # Errors
    /// `Stop` when it is neither a plain table nor a view.
    pub(super) async fn find<C: GenericClient>(
        here: &Catalog<'_, C>,
        name: &str,
    ) -> Result<Option<(Self, Option<String>)>> {
        let found = here.query(AT_NAME, &[(&quote_identifier(name), Type::TEXT)]).await?;
        let Some(row) = found.first() else { return Ok(None) };
        let is_view = match row.get::<_, String>(1).as_str() {
            "r" => false,
            "v" => true,
            _ => return Err(in_the_way(name, "is neither a plain table nor a view")),
        };
        Ok(Some((Self { oid: row.get(0), name: name.to_owned(), is_view }, row.get(2))))
    }
}

/// The relations that have the names which the new table gets: as they are in the database, whatever plan they are of.
pub(super) struct Old {
    /// What readers know: a table, or a view over the states.
    pub(super) public: Option<Relation>,
    /// The states.
    pub(super) states: Option<Relation>,
    /// Does only the name say that these are the states? The view over them is missing, and the old plan is unknown.
    may_be_others: bool,
}

impl Old {
    /// # Errors
    /// `Stop` when one of the names is something else's.
    pub(super) async fn find<C: GenericClient>(here: &Catalog<'_, C>, replacement: &Replacement) -> Result<Self> {
        let public = replacement.table.public_name();
        let states = format!("{public}_state");
        let found = Relation::find(here, public).await?;
        let (of_states, _) = Relation::find(here, &states).await?.unzip();
        let plan = replacement.old_table.as_ref();
        let has_states = match &found {
            Some((relation, _)) => relation.is_view,
            // The view over them was dropped, perhaps.
            None => replacement.record.is_some() && plan.is_none_or(|plan| plan.view.is_some()),
        };
        if let Some((relation, comment)) = &found
            && relation.is_view
            && !comment.as_deref().is_some_and(|comment| comment.starts_with(VIEW_COMMENT))
        {
            return Err(in_the_way(public, "is a view that millstream has not made"));
        }
        let needs_states = replacement.table.view.is_some();
        match of_states {
            Some(_) if needs_states && !has_states => {
                Err(in_the_way(&states, "is needed for the states, and is there already"))
            }
            Some(relation) if has_states && relation.is_view => Err(in_the_way(&states, "is a view")),
            of_states => {
                let states = of_states.filter(|_| has_states);
                let may_be_others = found.is_none() && plan.is_none();
                Ok(Self { public: found.map(|(relation, _)| relation), states, may_be_others })
            }
        }
    }

    /// The table that has the rows.
    pub(super) fn rows(&self) -> Option<&Relation> {
        self.states.as_ref().or(self.public.as_ref())
    }

    pub(super) fn relations(&self) -> impl Iterator<Item = &Relation> {
        self.public.iter().chain(&self.states)
    }

    pub(super) fn oids(&self) -> Vec<u32> {
        self.relations().map(|relation| relation.oid).collect()
    }

    /// Lets readers go on, and makes writers wait: at the table, before they move a fence.
    pub(super) async fn keep_writers_out<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<()> {
        match self.rows() {
            Some(rows) => here.run(&format!("LOCK TABLE {} IN EXCLUSIVE MODE", quote_identifier(&rows.name))).await,
            None => Ok(()),
        }
    }

    /// Keeps readers and writers out until the end of the transaction. In the order in which readers take their locks, from the
    /// outermost view on: two that wait for each other would end one of them.
    pub(super) async fn lock<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<()> {
        for dependent in self.dependents(here).await?.iter().rev() {
            dependent.lock(here).await?;
        }
        for relation in self.relations() {
            here.run(&format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", quote_identifier(&relation.name))).await?;
        }
        Ok(())
    }

    /// What is on the old relations and can't be kept.
    pub(super) async fn unkept<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<Vec<String>> {
        let mut rows =
            here.query(UNKEPT, &[(&self.oids(), Type::OID_ARRAY), (&own_checks(), Type::TEXT_ARRAY)]).await?;
        rows.extend(here.query(SETTINGS, &[(&self.oids(), Type::OID_ARRAY)]).await?);
        let mut unkept: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let states = self.states.iter().filter(|_| self.may_be_others);
        unkept.extend(states.map(|states| {
            format!("table {} (the view over it is missing, so that it may be somebody else's)", states.name)
        }));
        Ok(unkept)
    }

    pub(super) async fn rename_away<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<()> {
        for relation in self.relations() {
            let (from, to) = (quote_identifier(&relation.name), quote_identifier(&renamed(&relation.name)));
            let kind = if relation.is_view { "VIEW" } else { "TABLE" };
            here.run(&format!("ALTER {kind} {from} RENAME TO {to}")).await?;
        }
        Ok(())
    }

    /// Drops what was renamed away, with all that is still on it. Returns that, each thing named.
    pub(super) async fn drop<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<Vec<String>> {
        let mut lost = Vec::new();
        for relation in self.relations() {
            let kind = if relation.is_view { "VIEW" } else { "TABLE" };
            let drop = format!("DROP {kind} {}", quote_identifier(&renamed(&relation.name)));
            if let Some(dependents) = here.try_run(&format!("{drop} RESTRICT")).await? {
                lost.extend(dependents.lines().map(str::to_owned));
                here.run(&format!("{drop} CASCADE")).await?;
            }
        }
        Ok(lost)
    }

    /// `Stop` if the new table was made in another schema than the old one is in: readers look there.
    pub(super) async fn check_schema<C: GenericClient>(&self, here: &Catalog<'_, C>, new: &str) -> Result<()> {
        let sql = "SELECT n.nspname::text, (SELECT m.nspname::text FROM pg_class d JOIN pg_namespace m ON m.oid = d.relnamespace \
             WHERE d.oid = to_regclass($2)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
        let Some(public) = &self.public else { return Ok(()) };
        let found = here.query(sql, &[(&public.oid, Type::OID), (&quote_identifier(new), Type::TEXT)]).await?;
        let Some(row) = found.first() else { return Ok(()) };
        match (row.get::<_, String>(0), row.get::<_, Option<String>>(1)) {
            (old, Some(new)) if old != new => Err(Error::stop(format!(
                "{} is in schema {old}, and new tables of this user go to schema {new}: set the user's search_path so that {old} \
                 comes first",
                public.name
            ))),
            _ => Ok(()),
        }
    }
}

/// Type and check of a column with values of a narrower type, without casts, quotes and parentheses; `%1$s` is its name.
fn own_checks() -> Vec<String> {
    let check = |data_type: &DataType| {
        let (kind, (low, high)) = (Kind::of(data_type)?, range(data_type)?);
        Some(format!("{kind} CHECK %1$s >= {low} AND %1$s <= {high}"))
    };
    NARROW.iter().filter_map(check).collect()
}

fn renamed(name: &str) -> String {
    format!("{name}{OLD_SUFFIX}")
}

fn in_the_way(name: &str, why: &str) -> Error {
    Error::stop(format!("{name} in PostgreSQL {why}: it can't be replaced. Rename it, or move it to another schema"))
}
