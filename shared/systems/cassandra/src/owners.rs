//! Owners: rows of `millstream_owners`, one for each table, which change by compare-and-swap alone.

use arrow::temporal_conversions::timestamp_s_to_datetime;
use millstream_core::{
    Claim, Clock, Error, Fence, Holding, Owner, OwnerRecord, Result, Rows, SystemClock, TopicPartition, WHOLE_TOPIC,
    fences_of_both,
};
use scylla::value::CqlValue;

use crate::{
    client::Client,
    fences::{FENCES, Held, text},
    kind::Cell,
    layout::{Declared, Part, create_table},
    sink::CassandraSink,
    statement::Does,
};

pub(crate) const OWNERS: &str = "millstream_owners";

/// An owner as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) record: OwnerRecord,
    /// The record's own text: what a compare-and-swap compares with.
    json: String,
    /// The function before, whose fences are not all this one's yet: the process that was to take them has died.
    pub(crate) takes_from: Option<String>,
}

/// The statement that makes the place of the owners.
pub(crate) fn define(client: &Client) -> String {
    let column = |name: &str, part| Declared { name: name.into(), cql: "text".into(), part };
    let columns =
        [column("table_name", Part::PartitionKey), column("record", Part::Value), column("takes_from", Part::Value)];
    create_table(&client.table(OWNERS), &columns, client.profile().table_options())
}

impl Client {
    pub(crate) async fn owner(&self, table: &str) -> Result<Option<Stored>> {
        let cql = format!("SELECT record, takes_from FROM {} WHERE table_name = ?", self.table(OWNERS));
        let rows = self.run("reading the owner", Does::ReadSwapped, &cql, &[text(table)]).await?;
        rows.into_iter().next().map(|row| self.stored(row.columns)).transpose()
    }

    /// Those of all tables of the keyspace.
    pub(crate) async fn owners(&self) -> Result<Vec<Stored>> {
        let cql = format!("SELECT record, takes_from FROM {}", self.table(OWNERS));
        let rows = self.run("reading the owners", Does::Read, &cql, &[]).await?;
        rows.into_iter().map(|row| self.stored(row.columns)).collect()
    }

    fn stored(&self, columns: Vec<Cell>) -> Result<Stored> {
        let damaged =
            || Error::stop(format!("{}: a row of {OWNERS} is damaged: put back its last good copy", self.place()));
        let mut columns = columns.into_iter();
        let (json, takes_from) = (columns.next().flatten(), columns.next().flatten());
        let Some(CqlValue::Text(json)) = json else { return Err(damaged()) };
        let record = serde_json::from_str(&json).map_err(|error| damaged().caused_by(error))?;
        let takes_from = takes_from.and_then(CqlValue::into_string);
        Ok(Stored { record, json, takes_from })
    }

    /// Puts a record in the place of what was found; false if it is no longer what is there.
    async fn put_owner(&self, found: Option<&Stored>, record: &OwnerRecord, takes_from: Option<&str>) -> Result<bool> {
        let json = serde_json::to_string(record)
            .map_err(|error| Error::stop("internal: an owner has no JSON form").caused_by(error))?;
        let (table, takes_from) = (text(&record.table), takes_from.and_then(text));
        let (cql, values) = match found {
            None => (
                format!(
                    "INSERT INTO {} (table_name, record, takes_from) VALUES (?, ?, ?) IF NOT EXISTS",
                    self.table(OWNERS)
                ),
                vec![table, text(&json), takes_from],
            ),
            Some(found) => (
                format!(
                    "UPDATE {} SET record = ?, takes_from = ? WHERE table_name = ? IF record = ?",
                    self.table(OWNERS)
                ),
                vec![text(&json), takes_from, table, text(&found.json)],
            ),
        };
        self.swap("recording the owner", &cql, &values).await
    }

    /// The fences of a function, and those that it has not taken yet from the one before.
    pub(crate) async fn fences_of(
        &self,
        function: &str,
        takes_from: Option<&str>,
    ) -> Result<Vec<(TopicPartition, Held)>> {
        let mut fences = self.fences(function, true).await?;
        if let Some(before) = takes_from {
            let mut rest = self.fences(before, true).await?;
            rest.retain(|(at, _)| !fences.iter().any(|(own, _)| own == at));
            fences.extend(rest);
        }
        Ok(fences)
    }

    async fn remove_owner(&self, stored: &Stored) -> Result<()> {
        let cql = format!("DELETE FROM {} WHERE table_name = ? IF record = ?", self.table(OWNERS));
        let values = [text(&stored.record.table), text(&stored.json)];
        self.swap("removing the owner of another table", &cql, &values).await.map(|_| ())
    }
}

impl CassandraSink {
    /// See [`millstream_core::Sink::holding`].
    pub(crate) async fn find_holding(&self) -> Result<Holding> {
        let tables = self.client.tables().await?;
        let has = |name: &str| tables.iter().any(|table| table == name);
        let owners = if has(OWNERS) { self.client.owners().await? } else { Vec::new() };
        let name = self.layout.table.public_name();
        // One of them is read again, where a compare-and-swap that was interrupted is finished.
        let own = if has(OWNERS) { self.client.owner(name).await? } else { None };
        let others = owners.into_iter().map(|stored| stored.record);
        let others = others.filter(|record| record.table != name && record.owner.function == self.function).collect();
        let mut fences = Vec::new();
        if has(FENCES) {
            let rest = own.as_ref().filter(|stored| stored.record.owner.function == self.function);
            let before = rest.and_then(|stored| stored.takes_from.as_deref());
            fences = self.client.fences_of(&self.function, before).await?;
        }
        let rows =
            if has(self.layout.rows()) { self.client.has_rows(self.layout.rows()).await? } else { Rows::Missing };
        Ok(Holding { record: own.map(|stored| stored.record), others, fences: of_partitions(fences), rows })
    }

    /// See [`millstream_core::Sink::claim`]. A claim that is interrupted leaves a record in the new term: the fences follow it
    /// with the next claim, with [`millstream_core::Sink::settle`], or one by one when they are written.
    pub(crate) async fn put_claim(&self, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>> {
        let mut found = self.client.owner(self.layout.table.public_name()).await?;
        if found.as_ref().map(|stored| &stored.record) != claim.expected() {
            return Ok(None);
        }
        if let Some(open) = found.as_ref().filter(|stored| stored.record.owner.function != owner.function)
            && open.takes_from.is_some()
        {
            // The row names one function to take from: the adoption before this one ends first, or its fences are forgotten.
            self.begin_at_fences(&open.record, open.takes_from.as_deref(), true).await?;
            found = self.client.owner(self.layout.table.public_name()).await?;
            if found.as_ref().map(|stored| &stored.record) != claim.expected() {
                return Ok(None);
            }
        }
        let before = found.as_ref().map(|stored| stored.record.owner.function.as_str());
        let own = self.client.fences(&owner.function, true).await?;
        let takes_from = match (claim, before) {
            (Claim::Adopt(_), Some(before)) if before != owner.function => {
                if own.iter().any(|(partition, _)| partition.partition != WHOLE_TOPIC) {
                    return Err(Error::stop(fences_of_both(&owner.function, before, self.layout.table.public_name())));
                }
                Some(before)
            }
            // An adoption by this function has not ended.
            _ => found.as_ref().and_then(|stored| stored.takes_from.as_deref()),
        };
        let term = match claim {
            Claim::Renew(record) => record.term,
            _ => self.next_term(&own, takes_from).await?,
        };
        let (table, since) = (
            self.layout.table.public_name().to_owned(),
            match claim {
                Claim::Renew(record) => record.since.clone(),
                _ => now(),
            },
        );
        let record = OwnerRecord { table, owner: owner.clone(), term, since, adopted: claim.is_adopted() };
        if !self.client.put_owner(found.as_ref(), &record, takes_from).await? {
            return Ok(None);
        }
        if claim.begins_term() {
            self.begin_at_fences(&record, takes_from, matches!(claim, Claim::Adopt(_))).await?;
            for stored in self.client.owners().await? {
                if stored.record.table != record.table && stored.record.owner.function == owner.function {
                    self.client.remove_owner(&stored).await?;
                }
            }
        }
        Ok(Some(record))
    }

    /// Finishes an adoption that was interrupted: see [`millstream_core::Sink::settle`].
    pub(crate) async fn finish_adoption(&self) -> Result<()> {
        let Some(stored) = self.client.owner(self.layout.table.public_name()).await? else { return Ok(()) };
        if stored.record.owner.function == self.function && stored.takes_from.is_some() {
            self.begin_at_fences(&stored.record, stored.takes_from.as_deref(), true).await?;
        }
        Ok(())
    }

    /// A term that is above all others.
    async fn next_term(&self, own: &[(TopicPartition, Held)], takes_from: Option<&str>) -> Result<i64> {
        let of_owners = self.client.owners().await?.into_iter().map(|stored| stored.record.term);
        let taken = match takes_from {
            Some(before) => self.client.fences(before, true).await?,
            None => Vec::new(),
        };
        let of_fences = own.iter().chain(&taken).map(|(_, held)| held.term);
        Ok(of_owners.chain(of_fences).max().unwrap_or(0) + 1)
    }

    /// Makes all fences of the owner's those of its term, and takes those of the function before. `adopted`: the rows that
    /// they have counted are forgotten.
    async fn begin_at_fences(&self, record: &OwnerRecord, takes_from: Option<&str>, adopted: bool) -> Result<()> {
        let (client, function, term) = (&self.client, record.owner.function.as_str(), record.term);
        let begun = |fence: Fence| if adopted { Fence { rows: 0, ..fence } } else { fence };
        for (partition, held) in client.fences(function, true).await? {
            if held.term < term {
                client.raise_term(function, &partition, term, begun).await?;
            }
        }
        let Some(before) = takes_from else { return Ok(()) };
        for (partition, _) in client.fences(before, true).await? {
            // With the term, the process that still moves it stops; only then does it stand still.
            let Some(held) = client.raise_term(before, &partition, term, begun).await? else { continue };
            if held.term > term {
                return Err(Error::retry(client.doing(&format!("the fence of {partition} is of a later owner"))));
            }
            client.create_fence(function, &partition, &held).await?;
            client.remove_fence(before, &partition, term).await?;
        }
        // All are taken.
        match client.owner(&record.table).await? {
            Some(stored) if stored.record == *record => client.put_owner(Some(&stored), record, None).await.map(|_| ()),
            _ => Ok(()),
        }
    }
}

pub(crate) fn of_partitions(fences: Vec<(TopicPartition, Held)>) -> Vec<(TopicPartition, Fence)> {
    let partitions = fences.into_iter().filter(|(partition, _)| partition.partition != WHOLE_TOPIC);
    partitions.map(|(partition, held)| (partition, held.fence)).collect()
}

/// As text for a person.
fn now() -> String {
    let since = timestamp_s_to_datetime(SystemClock.now_us() / 1_000_000);
    since.map_or_else(|| "an unknown time".to_owned(), |since| format!("{since} UTC"))
}
