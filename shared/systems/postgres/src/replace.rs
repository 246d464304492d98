//! A table that was filled beside another one takes its place: see [`millstream_core::Replace`].

mod dependents;
mod indexes;
mod kept;
mod leftover;
mod old;

use std::time::Duration;

use async_trait::async_trait;
use millstream_core::{
    CatchUp, Claim, Error, Fence, OwnerRecord, Replace, Replaced, Replacement, Result, TopicPartition, fault,
    quote_identifier, reached_text,
};
use tokio_postgres::{GenericClient, types::Type};

pub(crate) use self::kept::Kept;
use self::old::Old;
use crate::{
    PostgresSink, catalog::Catalog, connect::Pool, definition::create_view, limits::QUERY_LIMIT, owner::Owned,
    schema::LOCK_TIMEOUT, transaction::transaction,
};

#[async_trait]
impl Replace for PostgresSink {
    async fn rehearse(&self, replacement: &Replacement) -> Result<Vec<String>> {
        let mut lost = self.carry_indexes(replacement).await?;
        let step = self.step(replacement);
        let (_, others) = step.run(None).await?;
        lost.extend(others);
        Ok(lost)
    }

    async fn take_place(&self, replacement: &Replacement, catch_up: &dyn CatchUp) -> Result<Replaced> {
        let lost = self.carry_indexes(replacement).await?;
        if !lost.is_empty() && !replacement.drop_dependents {
            return Err(not_kept(&lost));
        }
        Ok(self.step(replacement).run(Some(catch_up)).await?.0)
    }

    async fn discard(&self) -> Result<()> {
        let (function, public) = (&self.function, self.table.public_name());
        let what = format!("removing table {public}");
        transaction(&self.pool, &what, QUERY_LIMIT, async |here| {
            here.run(LOCK_TIMEOUT).await?;
            let there = "SELECT to_regclass('millstream_owners') IS NOT NULL";
            let has_owners = here.query(there, &[]).await?.first().is_some_and(|row| row.get(0));
            let record = if has_owners { self.owned().locked_record(&here).await? } else { None };
            let is_recorded = record.is_some_and(|record| record.owner.function == *function);
            for relation in leftover::find(&here, public, is_recorded).await? {
                let kind = if relation.is_view { "VIEW" } else { "TABLE" };
                here.run(&format!("DROP {kind} {}", quote_identifier(&relation.name))).await?;
            }
            if has_owners {
                here.query("DELETE FROM millstream_fences WHERE function = $1", &[(function, Type::TEXT)]).await?;
                here.query("DELETE FROM millstream_owners WHERE table_name = $1", &[(&public, Type::TEXT)]).await?;
            }
            Ok(Some(()))
        })
        .await
        .map(drop)
    }
}

/// The most time that the writers of the old table wait while the new one catches up.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(10);

impl PostgresSink {
    fn step<'a>(&'a self, replacement: &'a Replacement) -> Step<'a> {
        Step { pool: &self.pool, staging: self.owned(), replacement }
    }
}

/// One replacement.
struct Step<'a> {
    pool: &'a Pool,
    /// The table that takes the place.
    staging: Owned<'a>,
    replacement: &'a Replacement,
}

impl Step<'_> {
    /// The whole step in one transaction, and what it loses. Without `catch_up` it is only rehearsed: it is rolled back.
    async fn run(&self, catch_up: Option<&dyn CatchUp>) -> Result<(Replaced, Vec<String>)> {
        let what = format!("putting table {} in its place", self.staging.table.public_name());
        let mut found = (Replaced::Changed, Vec::new());
        fault::point("postgres.before_swap");
        transaction(self.pool, &what, QUERY_LIMIT, async |here| {
            self.place().lock(&here).await?;
            here.run(LOCK_TIMEOUT).await?;
            let old = Old::find(&here, self.replacement).await?;
            if let Some(catch_up) = catch_up {
                if !self.is_unchanged(&here).await? {
                    return Ok(None);
                }
                old.keep_writers_out(&here).await?;
                if !self.has_caught_up(&here, catch_up).await? {
                    found.0 = Replaced::Behind;
                    return Ok(None);
                }
            }
            old.lock(&here).await?;
            found.1 = self.swap(&here, &old).await?;
            if catch_up.is_none() {
                return Ok(None);
            }
            if !found.1.is_empty() && !self.replacement.drop_dependents {
                return Err(not_kept(&found.1));
            }
            found.0 = Replaced::Done(self.move_fences(&here).await?);
            fault::point("postgres.before_swap_commit");
            Ok(Some(()))
        })
        .await?;
        if matches!(found.0, Replaced::Done(_)) {
            fault::point("postgres.after_swap_commit");
        }
        Ok(found)
    }

    /// Are both records those that were judged? Locks them: a process that creates a fence in this term waits.
    async fn is_unchanged<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<bool> {
        let place = self.place();
        let of_staging = self.staging.locked_record(here).await?;
        let is_ours = of_staging.is_some_and(|record| record.owner.function == self.staging.function);
        Ok(is_ours && place.locked_record(here).await? == self.replacement.record)
    }

    fn place(&self) -> Owned<'_> {
        Owned { pool: self.pool, function: &self.replacement.owner.function, table: &self.replacement.table }
    }

    /// Holds the fences of the old table, and lets the new one come as far. Readers don't wait for this.
    async fn has_caught_up<C: GenericClient>(&self, here: &Catalog<'_, C>, catch_up: &dyn CatchUp) -> Result<bool> {
        let before = Owned { function: self.replacement.before(), ..self.place() };
        let old = before.fences(here, " FOR UPDATE").await?;
        if self.replacement.is_behind(&old, &self.staging.fences(here, "").await?) {
            // Written over other connections. What was brought in stays, whatever comes of this.
            match tokio::time::timeout(CATCH_UP_LIMIT, catch_up.catch_up(&old)).await {
                Ok(done) => done?,
                Err(_) => return Ok(false),
            }
        }
        Ok(!self.replacement.is_behind(&old, &self.staging.fences(here, " FOR UPDATE").await?))
    }

    /// Gives the names, and all that is on them, to the new table, and drops the old one. Returns what can't be kept.
    async fn swap<C: GenericClient>(&self, here: &Catalog<'_, C>, old: &Old) -> Result<Vec<String>> {
        let (new, staging) = (&self.replacement.table, self.staging.table);
        old.check_schema(here, &staging.name).await?;
        let mut lost = old.unkept(here).await?;
        let kept = Kept::of(here, old, new).await?;
        let dependents = old.dependents(here).await?;
        let index_names = old.index_names(here).await?;
        old.rename_away(here).await?;
        fault::point("postgres.after_rename");
        if staging.view.is_some() {
            here.run(&format!("DROP VIEW {}", quote_identifier(staging.public_name()))).await?;
        }
        let (from, to) = (quote_identifier(&staging.name), quote_identifier(&new.name));
        here.run(&format!("ALTER TABLE {from} RENAME TO {to}")).await?;
        if let Some(view) = &new.view {
            here.run(&create_view(view)).await?;
        }
        lost.extend(kept.put_on(here).await?);
        for dependent in &dependents {
            lost.extend(dependent.replace(here).await?);
        }
        for dropped in old.drop(here).await? {
            // "view x depends on table y": what was named before it was tried is named once.
            let named = dropped.split(" depends on ").next().unwrap_or(&dropped).to_owned();
            if lost.iter().all(|lost| !lost.contains(&named)) {
                lost.push(named);
            }
        }
        indexes::take_names(here, &index_names, &staging.name, &new.name).await?;
        Ok(lost)
    }

    /// Gives the fences of the rebuild to the owner, and records it. The record of the rebuild stays.
    async fn move_fences<C: GenericClient>(&self, here: &Catalog<'_, C>) -> Result<OwnerRecord> {
        let Replacement { owner, record, .. } = self.replacement;
        let reached: Vec<(TopicPartition, Fence)> = self.staging.fences(here, "").await?;
        let (before, now, of_staging) = (self.replacement.before(), owner.function.as_str(), self.staging.function);
        let sql = "DELETE FROM millstream_fences WHERE function IN ($1, $2)";
        here.query(sql, &[(&before, Type::TEXT), (&now, Type::TEXT)]).await?;
        let sql = "UPDATE millstream_fences SET function = $1 WHERE function = $2";
        here.query(sql, &[(&now, Type::TEXT), (&of_staging, Type::TEXT)]).await?;
        let (reached, table) = (reached_text(&reached), self.staging.table.public_name());
        let sql = "UPDATE millstream_owners SET declaration = $1, term = term + 1 WHERE table_name = $2";
        here.query(sql, &[(&reached, Type::TEXT), (&table, Type::TEXT)]).await?;
        let claimed = self.place().claim_locked(here, owner, &Claim::Rebuild(record.clone())).await?;
        claimed.ok_or_else(|| Error::stop("internal: a record that was just read is another one"))
    }
}

fn not_kept(lost: &[String]) -> Error {
    Error::stop(format!("with the old table would go what can't be kept: {}", lost.join("; ")))
}
