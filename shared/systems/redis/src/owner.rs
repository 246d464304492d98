//! Who fills a table: a record in the table's own key. See [`millstream_core::Owner`].
//!
//! The record is the one place where an adoption is decided, by compare-and-swap. Fences are in other slots of a cluster, so a
//! renamed function gets copies of them before, and the old ones go after: a claim that ends in the middle is made again.

use std::sync::PoisonError;

use chrono::DateTime;
use millstream_core::{Claim, Error, Fence, Holding, Owner, OwnerRecord, Result, Rows, TopicPartition, fences_of_both};

use crate::{
    RedisSink,
    fence::fence_text,
    keys,
    scripts::{CLAIM, TERM},
    table::declaration,
};

/// The field of a copied fence that says whose it was, until the claim is made.
const COPIED_FROM: &str = "from";

impl RedisSink {
    pub(crate) async fn find_holding(&self) -> Result<Holding> {
        let record = self.read_record(&self.table.name).await?.map(|(record, _)| record);
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = record.clone();
        let fences = self.fences().await?;
        let mut command = redis::cmd("HMGET");
        command.arg(keys::table(&self.table.name)).arg("columns").arg("written");
        let found: (Option<String>, Option<String>) = self.connection.ask("looking for the table", &command).await?;
        let rows = match found {
            (None, _) => Rows::Missing,
            (Some(_), None) => Rows::Empty,
            (Some(_), Some(_)) => Rows::Present,
        };
        let other = self.other_table().await?;
        Ok(Holding { record, others: other.into_iter().map(|(record, _)| record).collect(), fences, rows })
    }

    /// A table's record, and its text.
    pub(crate) async fn read_record(&self, table: &str) -> Result<Option<(OwnerRecord, String)>> {
        let mut command = redis::cmd("HGET");
        command.arg(keys::table(table)).arg("record");
        let Some(text) = self.connection.ask::<Option<String>>("reading the owner", &command).await? else {
            return Ok(None);
        };
        let record = serde_json::from_str(&text).map_err(|error| {
            let doing = self.connection.doing("reading the owner");
            Error::stop(format!("{doing}: the owner in the key {} is damaged: remove it", keys::table(table)))
                .caused_by(error)
        })?;
        Ok(Some((record, text)))
    }

    pub(crate) async fn make_claim(&self, owner: &Owner, claim: &Claim, adapts: bool) -> Result<Option<OwnerRecord>> {
        let found = self.read_record(&self.table.name).await?;
        if found.as_ref().map(|(record, _)| record) != claim.expected() {
            return Ok(None);
        }
        let (before, text) = found.map_or((None, String::new()), |(record, text)| (Some(record), text));
        let old = before.as_ref().map(|record| record.owner.function.as_str());
        let renamed_from = old.filter(|old| matches!(claim, Claim::Adopt(_)) && *old != owner.function);
        let record = self.next_record(owner, claim, before.as_ref()).await?;
        let copied = match renamed_from {
            Some(old) => self.copy_fences(old, owner).await?,
            None => Vec::new(),
        };
        let columns = if adapts { declaration(&self.table)? } else { String::new() };
        if !self.swap_record(&self.table.name, &text, &record_text(&record)?, &columns).await? {
            return Ok(None);
        }
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = Some(record.clone());
        if let Some(old) = renamed_from {
            self.set_term(old, record.term, "").await?;
            self.remove_fences(old, &copied).await?;
        }
        if claim.begins_term() {
            if let Some((other, text)) = self.other_table().await? {
                self.swap_record(&other.table, &text, "", "").await?;
            }
            self.set_term(&owner.function, record.term, &self.table.name).await?;
        }
        if matches!(claim, Claim::Adopt(_)) {
            self.forget_rows(&owner.function).await?;
        }
        Ok(Some(record))
    }

    /// The record of another table that this function fills.
    async fn other_table(&self) -> Result<Option<(OwnerRecord, String)>> {
        let mut command = redis::cmd("HGET");
        command.arg(keys::function(&self.function)).arg("table");
        let table: Option<String> = self.connection.ask("reading the function", &command).await?;
        let Some(table) = table.filter(|table| *table != self.table.name) else { return Ok(None) };
        Ok(self.read_record(&table).await?.filter(|(record, _)| record.owner.function == self.function))
    }

    async fn next_record(&self, owner: &Owner, claim: &Claim, before: Option<&OwnerRecord>) -> Result<OwnerRecord> {
        let (term, since) = match (claim, before) {
            (Claim::Renew(record), _) => (record.term, record.since.clone()),
            (_, before) => {
                let old = before.map_or(owner.function.as_str(), |before| before.owner.function.as_str());
                let terms = [self.term_of(&owner.function).await?, self.term_of(old).await?];
                let highest = terms.into_iter().chain(before.map(|before| before.term)).max();
                (highest.unwrap_or_default() + 1, self.now().await?)
            }
        };
        let table = self.table.name.clone();
        Ok(OwnerRecord { table, owner: owner.clone(), term, since, adopted: claim.is_adopted() })
    }

    async fn term_of(&self, function: &str) -> Result<i64> {
        let mut command = redis::cmd("HGET");
        command.arg(keys::function(function)).arg("term");
        Ok(self.connection.ask::<Option<i64>>("reading the term", &command).await?.unwrap_or_default())
    }

    /// The server's clock, for a person.
    async fn now(&self) -> Result<String> {
        let (seconds, _): (i64, i64) = self.connection.ask("reading the time", &redis::cmd("TIME")).await?;
        let at = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
        Ok(at.format("%Y-%m-%d %H:%M:%S UTC").to_string())
    }

    async fn swap_record(&self, table: &str, before: &str, after: &str, columns: &str) -> Result<bool> {
        let mut script = CLAIM.key(keys::table(table));
        script.arg(before).arg(after).arg(columns);
        self.connection.run("recording the owner", &script).await
    }

    async fn set_term(&self, function: &str, term: i64, table: &str) -> Result<()> {
        let mut script = TERM.key(keys::function(function));
        script.arg(term).arg(table);
        self.connection.run::<i64>("beginning a term", &script).await.map(drop)
    }

    /// Gives the fences of `old` to the new owner too, unless it has some of its own.
    async fn copy_fences(&self, old: &str, owner: &Owner) -> Result<Vec<TopicPartition>> {
        for (partition, _) in self.fences_of(&owner.function).await? {
            let mut command = redis::cmd("HGET");
            command.arg(keys::fence(&owner.function, &partition)).arg(COPIED_FROM);
            let from: Option<String> = self.connection.ask("reading a fence", &command).await?;
            // Those of an adoption that ended in the middle are copied again.
            if from.as_deref() != Some(old) {
                return Err(Error::stop(fences_of_both(&owner.function, old, &self.table.name)));
            }
        }
        let fences = self.fences_of(old).await?;
        for (partition, fence) in &fences {
            let mut command = redis::cmd("HGET");
            command.arg(keys::fence(old, partition)).arg("created");
            let created: Option<String> = self.connection.ask("reading a fence", &command).await?;
            let fields = [
                ("next_offset", fence.next_offset.to_string()),
                ("fence", fence_text(fence)?),
                ("created", created.unwrap_or_default()),
                (COPIED_FROM, old.to_owned()),
            ];
            self.set(&keys::fence(&owner.function, partition), &fields).await?;
            self.set(&keys::function(&owner.function), &[(&*keys::fence_field(partition), String::new())]).await?;
        }
        Ok(fences.into_iter().map(|(partition, _)| partition).collect())
    }

    async fn set(&self, key: &str, fields: &[(&str, String)]) -> Result<()> {
        let mut command = redis::cmd("HSET");
        command.arg(key);
        for (field, value) in fields {
            command.arg(*field).arg(value);
        }
        self.connection.ask::<i64>("writing a fence", &command).await.map(drop)
    }

    async fn remove_fences(&self, old: &str, partitions: &[TopicPartition]) -> Result<()> {
        for partition in partitions {
            self.connection.ask::<i64>("removing a fence", redis::cmd("DEL").arg(keys::fence(old, partition))).await?;
            let mut command = redis::cmd("HDEL");
            command.arg(keys::function(old)).arg(keys::fence_field(partition));
            self.connection.ask::<i64>("removing a fence", &command).await?;
        }
        Ok(())
    }

    /// The fences are the owner's own now, and what they have counted is forgotten.
    async fn forget_rows(&self, function: &str) -> Result<()> {
        for (partition, fence) in self.fences_of(function).await? {
            let key = keys::fence(function, &partition);
            if fence.rows != 0 {
                self.set(&key, &[("fence", fence_text(&Fence { rows: 0, ..fence })?)]).await?;
            }
            self.connection.ask::<i64>("writing a fence", redis::cmd("HDEL").arg(key).arg(COPIED_FROM)).await?;
        }
        Ok(())
    }
}

pub(crate) fn record_text(record: &OwnerRecord) -> Result<String> {
    serde_json::to_string(record).map_err(|error| Error::stop("internal: redis: an owner has no JSON").caused_by(error))
}
