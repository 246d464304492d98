//! Prepares the database: checks the tables that a function needs, and creates what is missing.

use std::time::Duration;

use futures::future::try_join;
use millstream_core::{Claim, Error, Owner, OwnerRecord, Result, Table, fault, quote_identifier};
use tokio_postgres::{GenericClient, IsolationLevel, types::Type};

use crate::{
    catalog::{COLUMNS, Catalog, Difference, Present},
    connect::Pool,
    error,
    limits::QUERY_LIMIT,
    owner::Owned,
    transaction::transaction,
};

/// The most time that creating tables and indexes may take: an index on an existing table is slow.
pub(crate) const CREATE_LIMIT: Duration = Duration::from_secs(300);

/// PostgreSQL cuts longer names off (NAMEDATALEN - 1).
const MAX_NAME_BYTES: usize = 63;

/// An advisory lock, taken while tables are created: instances that start at once would collide, and `IF NOT EXISTS`
/// doesn't prevent that. "millstr" in ASCII.
const CREATE_LOCK: i64 = 0x006d_696c_6c73_7472;

/// A remedy that waits for a long reader makes all writers wait for itself: it gives up after this.
pub(crate) const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '3s'";

/// What may be done about differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedies {
    /// Nothing.
    None,
    /// What is missing may be created.
    Create,
    /// Columns may also be added to a table that is there, and get wider types.
    Adapt,
}

/// See [`millstream_core::Sink::prepare`]. Adapts nothing: see [`adopt`].
pub(crate) async fn prepare(pool: &Pool, table: &Table, create_missing: bool, term: i64) -> Result<()> {
    let remedies = if create_missing { Remedies::Create } else { Remedies::None };
    check_names(table)?;
    let what = format!("preparing table {}", table.name);
    let mut client = pool.client(&what).await?;
    let work = async {
        let here = Catalog { client: &**client, pool, what: &what };
        let ((), mut differences) = try_join(here.check_server(), here.differences(table, remedies)).await?;
        if create_missing && differences.iter().any(|difference| difference.remedy.is_some()) {
            differences = create(pool, &what, &mut client, table, term).await?;
        }
        stop_at(&pool.doing(&what), &differences, remedies)
    };
    let outcome = pool.within(CREATE_LIMIT, &what, work).await;
    pool.settle(client, outcome).await.map_err(|error| match error {
        // Existing rows may prevent an index: that is not the fault of one record, so a person must act.
        Error::Poison(cause) => Error::Stop(cause),
        other => other,
    })
}

/// See [`millstream_core::Sink::adopt`]. The table and the term of its fences change in one transaction: a writer of the old plan
/// waits for the table, and then finds that its term has ended.
pub(crate) async fn adopt(
    owned: &Owned<'_>,
    owner: &Owner,
    record: Option<&OwnerRecord>,
) -> Result<Option<OwnerRecord>> {
    check_names(owned.table)?;
    let what = format!("adopting table {}", owned.table.public_name());
    let adopted = transaction(owned.pool, &what, CREATE_LIMIT, async |here| {
        here.check_server().await?;
        lock(&here).await?;
        owned.lock(&here).await?;
        // First of all: to rewrite a table takes long, and keeps everybody out.
        if !owned.is_record(&here, record).await? {
            return Ok(None);
        }
        let left = close_gap(&here, owned.table, Remedies::Adapt).await?;
        stop_at(&owned.pool.doing(&what), &left, Remedies::Adapt)?;
        fault::point("postgres.after_adapt");
        let adopted = owned.claim_locked(&here, owner, &Claim::Adopt(record.cloned())).await?;
        fault::point("postgres.before_adopt_commit");
        Ok(adopted)
    })
    .await?;
    fault::point("postgres.after_adopt_commit");
    Ok(adopted)
}

/// See [`millstream_core::Sink::misfits`].
pub(crate) async fn misfits(pool: &Pool, table: &Table) -> Result<Vec<String>> {
    check_names(table)?;
    let what = format!("looking at table {}", table.name);
    let client = pool.client(&what).await?;
    let here = Catalog { client: &**client, pool, what: &what };
    let outcome = pool.within(QUERY_LIMIT, &what, here.differences(table, Remedies::Adapt)).await;
    let differences = pool.settle(client, outcome).await?;
    Ok(differences.into_iter().filter(|difference| difference.remedy.is_none()).map(|misfit| misfit.what).collect())
}

/// The columns of a table or view; none when it is missing.
pub(crate) async fn columns(pool: &Pool, table: &str) -> Result<Vec<Present>> {
    let name = quote_identifier(table);
    let rows = pool.query(&format!("looking at table {table}"), COLUMNS, &[(&name, Type::TEXT)]).await?;
    Ok(rows.iter().map(Present::of).collect())
}

/// Creates what is missing under a lock, in one transaction, and returns what is still different.
async fn create(
    pool: &Pool,
    what: &str,
    client: &mut deadpool_postgres::Object,
    table: &Table,
    term: i64,
) -> Result<Vec<Difference>> {
    let failed = |error: tokio_postgres::Error| error::of_postgres(pool.doing(what), &error);
    let transaction =
        client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await.map_err(failed)?;
    let here = Catalog { client: &*transaction, pool, what };
    lock(&here).await?;
    if term != 0 {
        check_term(&here, table, term).await?;
    }
    let left = close_gap(&here, table, Remedies::Create).await?;
    transaction.commit().await.map_err(failed)?;
    Ok(left)
}

/// Lets one process at a time change tables; whoever waits too long for another lock gives up.
async fn lock<C: GenericClient>(here: &Catalog<'_, C>) -> Result<()> {
    here.query("SELECT pg_advisory_xact_lock($1)", &[(&CREATE_LOCK, Type::INT8)]).await?;
    here.run(LOCK_TIMEOUT).await
}

/// Applies all remedies in the transaction at hand, and returns what is still different.
async fn close_gap<C: GenericClient>(
    here: &Catalog<'_, C>,
    table: &Table,
    remedies: Remedies,
) -> Result<Vec<Difference>> {
    let found = here.differences(table, remedies).await?;
    if remedies == Remedies::Adapt && found.iter().any(|difference| difference.remedy.is_none()) {
        // It can't be adopted as a whole.
        return Ok(found);
    }
    let view = table.view.as_ref().filter(|_| found.iter().any(|difference| difference.retypes));
    let kept = if let Some(view) = view { here.drop_view(view).await? } else { None };
    // A view that was dropped is missing.
    let found = if kept.is_some() { here.differences(table, remedies).await? } else { found };
    for remedy in found.into_iter().filter_map(|difference| difference.remedy) {
        here.run(&remedy).await?;
    }
    if let Some(kept) = kept {
        kept.put_on(here).await?.first().map_or(Ok(()), |lost| Err(not_kept(here, lost)))?;
    }
    here.differences(table, remedies).await
}

fn not_kept<C: GenericClient>(here: &Catalog<'_, C>, lost: &str) -> Error {
    Error::stop(format!(
        "{}: what is on the view can't be kept: {lost}. Nothing was changed",
        here.pool.doing(here.what)
    ))
}

/// Locks the owner's record, and checks its term: a process creates nothing in a table that has another owner by now.
async fn check_term<C: GenericClient>(here: &Catalog<'_, C>, table: &Table, term: i64) -> Result<()> {
    let sql = "SELECT term FROM millstream_owners WHERE table_name = $1 FOR SHARE";
    let found = here.query(sql, &[(&table.public_name(), Type::TEXT)]).await?;
    match found.first().map(|row| row.get::<_, i64>(0)) {
        Some(now) if now == term => Ok(()),
        _ => Err(Error::retry(format!("table {} has another owner or plan since a moment ago", table.public_name()))),
    }
}

fn stop_at(doing: &str, differences: &[Difference], remedies: Remedies) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let list: String = differences.iter().map(|difference| format!("\n  - {}", difference.what)).collect();
    let advice = if remedies == Remedies::None && differences.iter().all(|difference| difference.remedy.is_some()) {
        "run `millstream up`, which creates what is missing"
    } else {
        "Change the SQL back; or fill a new table from the log, which takes the place of this one: `millstream rebuild` with \
         the function's name. A new table made by hand would lack everything below the fence, and so would a column that is \
         added by hand (ALTER TABLE; millstream never alters a table of yours)"
    };
    Err(Error::stop(format!("{doing}: the database does not fit:{list}\n{advice}")))
}

fn check_names(table: &Table) -> Result<()> {
    let view = table.view.iter().flat_map(|view| view.columns.iter().map(|(name, _)| name).chain([&view.name]));
    let names = table.columns.iter().map(|column| &column.name).chain([&table.name]).chain(view);
    let bad: Vec<&str> =
        names.map(String::as_str).filter(|name| name.is_empty() || name.len() > MAX_NAME_BYTES).collect();
    if bad.is_empty() {
        return Ok(());
    }
    Err(Error::stop(format!(
        "names in PostgreSQL have 1 to {MAX_NAME_BYTES} bytes; give these another (AS …): {}",
        bad.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use millstream_core::{Column, Role};

    use super::*;

    #[test]
    fn names_that_would_be_cut_off_are_refused() {
        let column = Column { name: "k".into(), data_type: DataType::Utf8, nullable: true, role: Role::Key };
        let mut table = Table { name: "flow".to_owned(), columns: vec![column], combine: None, view: None };
        assert!(check_names(&table).is_ok());
        table.columns[0].name = "x".repeat(64);
        assert!(matches!(check_names(&table), Err(Error::Stop(_))));
    }

    #[test]
    fn every_difference_is_told() {
        let differences = ["a", "b"].map(|what| Difference::misfit(what.to_owned()));
        let error = stop_at("here", &differences, Remedies::Create).unwrap_err().to_string();
        assert!(error.starts_with("here: the database does not fit:\n  - a\n  - b\n"), "{error}");
    }
}
