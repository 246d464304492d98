//! What a rebuild has left under the names of its table.

use millstream_core::{Error, Result, quote_identifier};
use tokio_postgres::GenericClient;

use super::old::Relation;
use crate::{catalog::Catalog, definition::VIEW_COMMENT};

/// The relations with the names of table `public` and of its states, the view first. `is_recorded`: a rebuild is recorded as
/// the owner of the table. One that was killed just before that has left empty tables.
///
/// # Errors
/// `Stop` when one of them is none that a rebuild has made: a view of somebody's, or a table with rows.
pub(super) async fn find<C: GenericClient>(
    here: &Catalog<'_, C>,
    public: &str,
    is_recorded: bool,
) -> Result<Vec<Relation>> {
    let mut found = Vec::new();
    let mut has_states = false;
    if let Some((relation, comment)) = Relation::find(here, public).await? {
        has_states = relation.is_view;
        if has_states && !comment.is_some_and(|comment| comment.starts_with(VIEW_COMMENT)) {
            return Err(not_of_a_rebuild(public, "is a view that no rebuild has made"));
        }
        check_rows(here, &relation, is_recorded).await?;
        found.push(relation);
    }
    if let Some((states, _)) = Relation::find(here, &format!("{public}_state")).await? {
        if states.is_view {
            return Err(not_of_a_rebuild(&states.name, "is a view that no rebuild has made"));
        }
        check_rows(here, &states, is_recorded && has_states).await?;
        found.push(states);
    }
    Ok(found)
}

/// Nobody writes to a table that was found to be empty, until the transaction ends.
async fn check_rows<C: GenericClient>(here: &Catalog<'_, C>, table: &Relation, is_of_rebuild: bool) -> Result<()> {
    if table.is_view || is_of_rebuild {
        return Ok(());
    }
    let name = quote_identifier(&table.name);
    here.run(&format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")).await?;
    match here.query(&format!("SELECT 1 FROM {name} LIMIT 1"), &[]).await?.is_empty() {
        true => Ok(()),
        false => Err(not_of_a_rebuild(&table.name, "has rows that no rebuild has written")),
    }
}

fn not_of_a_rebuild(name: &str, why: &str) -> Error {
    Error::stop(format!(
        "{name} in PostgreSQL {why}, and a rebuild needs the name: rename or drop it. Nothing was changed"
    ))
}
