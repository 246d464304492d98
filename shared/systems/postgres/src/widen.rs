//! Columns that get a wider type when a table is adapted: see [`millstream_core::is_wider`].

use arrow::datatypes::DataType;
use millstream_core::{Column, Error, Result, Role, Table, View, is_wider, quote_identifier, type_name};
use tokio_postgres::{GenericClient, types::Type};

use crate::{
    catalog::{Catalog, Difference, Present},
    definition::range_of,
    replace::Kept,
    statement::kind,
    types::Kind,
};

/// The checks on single columns of the table `$1` that look like millstream's: name, column, and both ends of the range.
const RANGES: &str = r"SELECT k.conname::text, a.attname::text, substring(d.text FROM '>= [^0-9-]*(-?[0-9]+)'),
     substring(d.text FROM '<= [^0-9-]*(-?[0-9]+)') FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid
     AND k.conkey = ARRAY[a.attnum] CROSS JOIN LATERAL (SELECT pg_get_constraintdef(k.oid) AS text) d
     WHERE k.conrelid = to_regclass($1) AND k.contype = 'c' AND d.text ~ '^CHECK \(\(\(.+ >= .+\) AND \(.+ <= .+\)\)\)$'";

/// The views that read the columns `$3` of the relation `$1` (all if that is null), but for the view `$2`.
const READERS: &str = "SELECT DISTINCT CASE v.relkind WHEN 'm' THEN 'materialized ' ELSE '' END || 'view ' || \
     v.oid::regclass FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid \
     JOIN pg_class v ON v.oid = r.ev_class WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass($1) \
     AND v.oid <> d.refobjid AND v.oid IS DISTINCT FROM to_regclass($2) AND ($3::text[] IS NULL OR d.refobjsubid IN \
     (SELECT attnum FROM pg_attribute WHERE attrelid = d.refobjid AND attname::text = ANY($3))) ORDER BY 1";

/// A check that keeps a column in the range of its type.
struct Range {
    name: String,
    column: String,
    range: (i128, i128),
}

impl Present {
    /// Can the column become `column`, with the rows that it has? What shares its SQL type with narrower types counts as the
    /// widest of them.
    pub(crate) fn widens_to(&self, column: &Column) -> bool {
        Kind::parse(&self.sql_type).is_some_and(|kind| is_wider(&kind.carrier(), &column.data_type, &column.role))
    }
}

impl<C: GenericClient> Catalog<'_, C> {
    /// How columns that are there get the wider types of the new plan, as one change of the table: it is written anew once.
    pub(crate) async fn widen(&self, table: &Table, have: &[Present], differences: &mut Vec<Difference>) -> Result<()> {
        let ranges = self.ranges(&table.name).await?;
        let (mut changes, mut retyped, mut said) = (Vec::new(), Vec::new(), Vec::new());
        for column in &table.columns {
            let Some(present) = have.iter().find(|present| present.name == column.name) else { continue };
            let (name, want) = (quote_identifier(&column.name), kind(column)?.to_string());
            let mut known = ranges.iter().filter(|range| range.column == column.name);
            match range_of(column) {
                Some(wanted) if known.all(|known| known.range != wanted) => differences.push(narrowed(table, column)),
                None if matches!(column.role, Role::State(_)) => {
                    let drop = |range: &Range| format!("DROP CONSTRAINT {}", quote_identifier(&range.name));
                    changes.extend(known.map(drop));
                }
                _ => {}
            }
            if present.sql_type != want && present.widens_to(column) {
                changes.push(format!("ALTER COLUMN {name} TYPE {want}"));
                retyped.push(column.name.as_str());
                said.push(format!("column {}.{} is {}, and must be {want}", table.name, column.name, present.sql_type));
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        if said.is_empty() {
            said.push(format!("a check on a column of {} is narrower than its type", table.name));
        }
        let remedy = format!("ALTER TABLE {} {}", quote_identifier(&table.name), changes.join(", "));
        differences.push(Difference { retypes: !retyped.is_empty(), ..Difference::missing(said.join("; "), remedy) });
        if !retyped.is_empty() {
            self.refuse_readers(table, &retyped, differences).await?;
        }
        Ok(())
    }

    /// The checks that millstream has made: those with the range of a type.
    async fn ranges(&self, table: &str) -> Result<Vec<Range>> {
        const KNOWN: [DataType; 5] =
            [DataType::Int8, DataType::UInt8, DataType::UInt16, DataType::UInt32, DataType::UInt64];
        let known: Vec<_> = KNOWN.iter().filter_map(crate::definition::range).collect();
        let rows = self.query(RANGES, &[(&quote_identifier(table), Type::TEXT)]).await?;
        let range = |row: &tokio_postgres::Row| {
            let end = |at: usize| row.get::<_, Option<&str>>(at)?.parse().ok();
            Some(Range { name: row.get(0), column: row.get(1), range: (end(2)?, end(3)?) })
        };
        Ok(rows.iter().filter_map(range).filter(|range| known.contains(&range.range)).collect())
    }

    /// PostgreSQL changes no type that a view reads. Our own view is made again; others are their owners' to drop.
    async fn refuse_readers(&self, table: &Table, columns: &[&str], differences: &mut Vec<Difference>) -> Result<()> {
        let (name, none) = (quote_identifier(&table.name), None::<Vec<&str>>);
        let own = match &table.view {
            Some(view) if self.is_own_view(view).await? => Some(quote_identifier(&view.name)),
            _ => None,
        };
        let mut readers =
            self.query(READERS, &[(&name, Type::TEXT), (&own, Type::TEXT), (&columns, Type::TEXT_ARRAY)]).await?;
        if let Some(view) = &own {
            let of_view = [(view as _, Type::TEXT), (&own as _, Type::TEXT), (&none as _, Type::TEXT_ARRAY)];
            readers.extend(self.query(READERS, &of_view).await?);
        }
        for row in readers {
            let reader: String = row.get(0);
            let (columns, table) = (columns.join(", "), table.public_name());
            let what = format!(
                "{reader} reads {table}, and PostgreSQL changes no type of a column that a view reads ({columns}): drop it \
                 first, and make it again afterwards"
            );
            differences.push(Difference::misfit(what));
        }
        Ok(())
    }

    /// Drops our view, whose columns get another type. Returns what people have put on it, none when there is no view.
    pub(crate) async fn drop_view(&self, view: &View) -> Result<Option<Kept>> {
        let Some(kept) = Kept::of_view(self, &view.name).await? else { return Ok(None) };
        match self.try_run(&format!("DROP VIEW {}", quote_identifier(&view.name))).await? {
            None => Ok(Some(kept)),
            Some(why) => Err(Error::stop(format!(
                "{}: view {} can't be made with wider types while something depends on it: {why}. Drop that first, and make it \
                 again afterwards. Nothing was changed",
                self.pool.doing(self.what),
                view.name
            ))),
        }
    }
}

fn narrowed(table: &Table, column: &Column) -> Difference {
    let name = type_name(&column.data_type);
    Difference::misfit(format!("column {}.{} may hold values that are no {name}", table.name, column.name))
}
