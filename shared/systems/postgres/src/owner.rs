//! Who fills a table, as rows of `millstream_owners`: see [`millstream_core::Owner`].

use futures::future::try_join3;
use millstream_core::{
    Claim, Error, Holding, Owner, OwnerRecord, Result, Rows, Table, TopicPartition, WHOLE_TOPIC, fences_of_both,
    quote_identifier,
};
use tokio_postgres::{GenericClient, IsolationLevel, Row, types::Type};

use crate::{
    catalog::Catalog,
    connect::Pool,
    error,
    fence::{Parameters, partition_and_fence},
    limits::QUERY_LIMIT,
};

/// Held while an owner changes: claims are rare, and two at once must not cross. "millsow" in ASCII.
const OWNER_LOCK: i64 = 0x006d_696c_6c73_6f77;

const RECORD: &str = "table_name, function, fingerprint, declaration, term, \
     to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS \"UTC\"'), adopted";

/// The fences of a function, from a table of any version: columns that it lacks are null.
const FENCES_OF_ANY_VERSION: &str = "SELECT start_offset, next_offset, last_timestamp_ms, max_event_time_us, \
     upstream::text, to_jsonb(f) ->> 'topic_id', COALESCE((to_jsonb(f) ->> 'rows')::bigint, 0), topic, generation, \
     partition FROM millstream_fences f WHERE function = $1";

/// The table and the function that a claim is about.
pub(crate) struct Owned<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) function: &'a str,
    pub(crate) table: &'a Table,
}

impl Owned<'_> {
    /// See [`millstream_core::Sink::holding`].
    pub(crate) async fn holding(&self) -> Result<Holding> {
        let what = format!("looking at table {}", self.table.name);
        let mut client = self.pool.client(&what).await?;
        let work = async {
            let failed = |error: tokio_postgres::Error| error::of_postgres(self.pool.doing(&what), &error);
            // Of one instant: a fence and the rows under it must not be told apart by the writes of another process.
            let transaction =
                client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
            let transaction = transaction.start().await.map_err(failed)?;
            let here = Catalog { client: &*transaction, pool: self.pool, what: &what };
            let name = quote_identifier(&self.table.name);
            let sql = "SELECT to_regclass('millstream_owners') IS NOT NULL, to_regclass('millstream_fences') IS NOT NULL, \
                 to_regclass($1) IS NOT NULL";
            let there = here.query(sql, &[(&name, Type::TEXT)]).await?;
            let is_there = |at: usize| there.first().is_some_and(|row| row.get(at));
            // In one round trip.
            let (records, fences, rows) = try_join3(
                async { if is_there(0) { self.records(&here).await } else { Ok(Vec::new()) } },
                async { if is_there(1) { self.fences(&here, "").await } else { Ok(Vec::new()) } },
                async { if is_there(2) { rows_of(&here, &name).await } else { Ok(Rows::Missing) } },
            )
            .await?;
            let (own, others) = records.into_iter().partition(|record| record.table == self.table.public_name());
            transaction.commit().await.map_err(failed)?;
            Ok(Holding { record: Vec::into_iter(own).next(), others, fences, rows })
        };
        let outcome = self.pool.within(QUERY_LIMIT, &what, work).await;
        self.pool.settle(client, outcome).await
    }

    /// The record of the table.
    pub(crate) async fn record(&self) -> Result<Option<OwnerRecord>> {
        let sql = format!("SELECT {RECORD} FROM millstream_owners WHERE table_name = $1");
        let rows = self.pool.query("reading the owner", &sql, &[(&self.table.public_name(), Type::TEXT)]).await?;
        Ok(rows.first().map(record))
    }

    async fn records<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<Vec<OwnerRecord>> {
        let sql = format!("SELECT {RECORD} FROM millstream_owners WHERE table_name = $1 OR function = $2 ORDER BY 1");
        let table = self.table.public_name();
        let parameters: Parameters<'_> = vec![(&table, Type::TEXT), (&self.function, Type::TEXT)];
        Ok(here.query(&sql, &parameters).await?.iter().map(record).collect())
    }

    /// The function's fences without those of whole topics; `lock` may end the statement.
    pub(crate) async fn fences<C: GenericClient>(
        &self,
        here: &Catalog<'_, C>,
        lock: &str,
    ) -> Result<Vec<(TopicPartition, millstream_core::Fence)>> {
        let sql = format!(
            "{FENCES_OF_ANY_VERSION} AND partition <> {WHOLE_TOPIC} ORDER BY topic, generation, partition{lock}"
        );
        here.query(&sql, &[(&self.function, Type::TEXT)]).await?.iter().map(partition_and_fence).collect()
    }

    /// See [`millstream_core::Sink::claim`].
    pub(crate) async fn claim(&self, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>> {
        let what = format!("recording the owner of table {}", self.table.public_name());
        let mut client = self.pool.client(&what).await?;
        let work = async {
            let failed = |error: tokio_postgres::Error| error::of_postgres(self.pool.doing(&what), &error);
            let transaction = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await;
            let transaction = transaction.map_err(failed)?;
            let here = Catalog { client: &*transaction, pool: self.pool, what: &what };
            self.lock(&here).await?;
            let claimed = self.claim_locked(&here, owner, claim).await?;
            if claimed.is_some() {
                transaction.commit().await.map_err(failed)?;
            }
            Ok(claimed)
        };
        let outcome = self.pool.within(QUERY_LIMIT, &what, work).await;
        self.pool.settle(client, outcome).await
    }

    /// Makes other claims wait for the end of the transaction.
    pub(crate) async fn lock<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<()> {
        here.query("SELECT pg_advisory_xact_lock($1)", &[(&OWNER_LOCK, Type::INT8)]).await.map(drop)
    }

    /// The record of the table. The lock makes those wait who create fences in its term.
    pub(crate) async fn locked_record<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<Option<OwnerRecord>> {
        let sql = format!("SELECT {RECORD} FROM millstream_owners WHERE table_name = $1 FOR UPDATE");
        Ok(here.query(&sql, &[(&self.table.public_name(), Type::TEXT)]).await?.first().map(record))
    }

    /// Is the table's record this one? Where no records are kept yet, there is none.
    pub(crate) async fn is_record<C: GenericClient>(
        &self,
        here: &Catalog<'_, C>,
        expected: Option<&OwnerRecord>,
    ) -> Result<bool> {
        if here.query("SELECT 1 WHERE to_regclass('millstream_owners') IS NOT NULL", &[]).await?.is_empty() {
            return Ok(expected.is_none());
        }
        Ok(self.locked_record(here).await?.as_ref() == expected)
    }

    pub(crate) async fn claim_locked<C: GenericClient>(
        &self,
        here: &Catalog<'_, C>,
        owner: &Owner,
        claim: &Claim,
    ) -> Result<Option<OwnerRecord>> {
        let table = self.table.public_name();
        let found = self.locked_record(here).await?;
        if found.as_ref() != claim.expected() {
            return Ok(None);
        }
        let before = found.as_ref().map_or(owner.function.as_str(), |record| record.owner.function.as_str());
        let term = match claim {
            Claim::Renew(record) => record.term,
            Claim::First | Claim::Adopt(_) | Claim::Rebuild(_) => self.next_term(here, &owner.function, before).await?,
        };
        if claim.begins_term() {
            // Those of a rebuild are the new owner's already.
            let before = if matches!(claim, Claim::Rebuild(_)) { &owner.function } else { before };
            self.take_fences(here, &owner.function, before).await?;
        }
        self.put_record(here, owner, (term, claim.is_adopted()), found.as_ref()).await?;
        if claim.begins_term() {
            let forget = matches!(claim, Claim::Adopt(_));
            let sql =
                "UPDATE millstream_fences SET term = $2, rows = CASE WHEN $3 THEN 0 ELSE rows END WHERE function = $1";
            here.query(sql, &[(&owner.function, Type::TEXT), (&term, Type::INT8), (&forget, Type::BOOL)]).await?;
        }
        let sql = format!("SELECT {RECORD} FROM millstream_owners WHERE table_name = $1");
        Ok(here.query(&sql, &[(&table, Type::TEXT)]).await?.first().map(record))
    }

    /// Above every term that a fence of either function, or a table that one of them has filled, was in; and by the clock, above
    /// those of records that are gone.
    async fn next_term<C: GenericClient>(&self, here: &Catalog<'_, C>, new: &str, before: &str) -> Result<i64> {
        let sql = "SELECT 1 + GREATEST((extract(epoch FROM clock_timestamp()) * 1000000)::bigint, (SELECT max(term) FROM millstream_fences WHERE function IN ($1, $2)), \
             (SELECT max(term) FROM millstream_owners WHERE function IN ($1, $2) OR table_name = $3))";
        let table = self.table.public_name();
        let parameters: Parameters<'_> = vec![(&new, Type::TEXT), (&before, Type::TEXT), (&table, Type::TEXT)];
        Ok(here.query(sql, &parameters).await?.first().map_or(1, |row| row.get(0)))
    }

    /// Gives the fences of `before` to `new`, and removes the records of other tables that `new` filled.
    async fn take_fences<C: GenericClient>(&self, here: &Catalog<'_, C>, new: &str, before: &str) -> Result<()> {
        if new != before {
            let sql = "SELECT 1 FROM millstream_fences WHERE function = $1 LIMIT 1";
            if !here.query(sql, &[(&new, Type::TEXT)]).await?.is_empty() {
                return Err(Error::stop(fences_of_both(new, before, self.table.public_name())));
            }
            let sql = "UPDATE millstream_fences SET function = $1 WHERE function = $2";
            here.query(sql, &[(&new, Type::TEXT), (&before, Type::TEXT)]).await?;
        }
        let sql = "DELETE FROM millstream_owners WHERE function = $1 AND table_name <> $2";
        here.query(sql, &[(&new, Type::TEXT), (&self.table.public_name(), Type::TEXT)]).await.map(drop)
    }

    async fn put_record<C: GenericClient>(
        &self,
        here: &Catalog<'_, C>,
        owner: &Owner,
        (term, is_adopted): (i64, bool),
        before: Option<&OwnerRecord>,
    ) -> Result<()> {
        // A term that goes on keeps its beginning, and is no change.
        let sql = "INSERT INTO millstream_owners AS o (table_name, function, fingerprint, declaration, term, adopted) \
             VALUES ($1, $2, $3, $4, $5, $7) ON CONFLICT (table_name) DO UPDATE SET function = EXCLUDED.function, \
             fingerprint = EXCLUDED.fingerprint, declaration = EXCLUDED.declaration, term = EXCLUDED.term, adopted = EXCLUDED.adopted, \
             since = CASE WHEN o.term = EXCLUDED.term THEN o.since ELSE now() END, \
             changes = CASE WHEN o.term = EXCLUDED.term THEN o.changes ELSE o.changes || $6::text::jsonb END";
        let change = before.map_or_else(
            || "[]".to_owned(),
            |before| {
                serde_json::json!([{ "term": before.term, "since": before.since, "function": before.owner.function,
                "fingerprint": before.owner.fingerprint, "declaration": before.owner.declaration }])
                .to_string()
            },
        );
        let table = self.table.public_name();
        let parameters: Parameters<'_> = vec![
            (&table, Type::TEXT),
            (&owner.function, Type::TEXT),
            (&owner.fingerprint, Type::TEXT),
            (&owner.declaration, Type::TEXT),
            (&term, Type::INT8),
            (&change, Type::TEXT),
            (&is_adopted, Type::BOOL),
        ];
        here.query(sql, &parameters).await.map(drop)
    }
}

async fn rows_of<C: GenericClient>(here: &Catalog<'_, C>, name: &str) -> Result<Rows> {
    let rows = here.query(&format!("SELECT 1 FROM {name} LIMIT 1"), &[]).await?;
    Ok(if rows.is_empty() { Rows::Empty } else { Rows::Present })
}

fn record(row: &Row) -> OwnerRecord {
    let owner = Owner { function: row.get(1), fingerprint: row.get(2), declaration: row.get(3) };
    OwnerRecord { table: row.get(0), owner, term: row.get(4), since: row.get(5), adopted: row.get(6) }
}
