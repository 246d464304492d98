//! Owners: items of `millstream_owners`, one for each table, which change only if nobody has changed them since they were read.

use std::ops::ControlFlow;

use arrow::temporal_conversions::timestamp_s_to_datetime;
use azure_core::http::Etag;
use azure_data_cosmos::Query;
use millstream_core::{
    Claim, Clock, Error, Fence, Holding, Owner, OwnerRecord, Result, Rows, SystemClock, TopicPartition, WHOLE_TOPIC,
    fences_of_both,
};
use serde::{Deserialize, Serialize};

use crate::{
    client::Client,
    fences::{FENCES, Held},
    layout::{Key, to_key},
    read::PAGE_ROWS,
    sink::CosmosSink,
};

pub(crate) const OWNERS: &str = "millstream_owners";
/// The one logical partition of all owners: they are listed as of one instant.
const ALL: &str = "owners";

/// An owner as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    #[serde(flatten)]
    key: Key,
    pub(crate) record: OwnerRecord,
    /// The function before, whose fences are not all this one's yet: the process that was to take them has died.
    #[serde(default)]
    pub(crate) takes_from: Option<String>,
}

/// An owner as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) stored: Stored,
    etag: Etag,
}

fn key(table: &str) -> Key {
    Key::new(ALL, to_key(table))
}

impl Client {
    pub(crate) async fn owner(&self, table: &str) -> Result<Option<Found>> {
        let found = self.read("reading the owner", OWNERS, &key(table)).await?;
        Ok(found.map(|(stored, etag)| Found { stored, etag }))
    }

    /// Those of all tables of the database.
    pub(crate) async fn owners(&self) -> Result<Vec<Stored>> {
        let mut owners = Vec::new();
        let take = |items: Vec<Stored>| {
            owners.extend(items);
            Ok(ControlFlow::Continue(()))
        };
        self.query("reading the owners", OWNERS, Some(ALL), Query::from("SELECT * FROM c"), PAGE_ROWS, take).await?;
        Ok(owners)
    }

    /// Puts a record in the place of what was found; false if that is no longer what is there.
    async fn put_owner(&self, found: Option<&Found>, record: &OwnerRecord, takes_from: Option<&str>) -> Result<bool> {
        let (what, key) = ("recording the owner", key(&record.table));
        let stored = Stored { key: key.clone(), record: record.clone(), takes_from: takes_from.map(str::to_owned) };
        match found {
            None => self.create(what, OWNERS, &key, stored).await,
            Some(found) => self.replace(what, OWNERS, &key, stored, &found.etag).await,
        }
    }

    /// The fences of a function, and those that it has not taken yet from the one before.
    pub(crate) async fn fences_of(
        &self,
        function: &str,
        takes_from: Option<&str>,
    ) -> Result<Vec<(TopicPartition, Held)>> {
        let mut fences = self.fences(function).await?;
        if let Some(before) = takes_from {
            let mut rest = self.fences(before).await?;
            rest.retain(|(at, _)| !fences.iter().any(|(own, _)| own == at));
            fences.extend(rest);
        }
        Ok(fences)
    }

    /// Removes the record of a table that `function` no longer fills.
    async fn remove_owner(&self, table: &str, function: &str) -> Result<()> {
        let Some(found) = self.owner(table).await? else { return Ok(()) };
        if found.stored.record.owner.function == function {
            // Somebody else's change is somebody else's record.
            self.remove("removing the owner of another table", OWNERS, &key(table), &found.etag).await?;
        }
        Ok(())
    }
}

impl CosmosSink {
    /// See [`millstream_core::Sink::holding`].
    pub(crate) async fn find_holding(&self) -> Result<Holding> {
        let containers = self.client.list_containers().await?;
        let (has, name) = (|name: &str| containers.contains_key(name), self.layout.table.public_name());
        let (owners, own) = match has(OWNERS) {
            true => (self.client.owners().await?, self.client.owner(name).await?.map(|found| found.stored)),
            false => (Vec::new(), None),
        };
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

    /// The owner, if it is the one that `claim` speaks of; none if it is another one by now.
    async fn find_expected(&self, claim: &Claim) -> Result<Option<Option<Found>>> {
        let found = self.client.owner(self.layout.table.public_name()).await?;
        let is_expected = found.as_ref().map(|found| &found.stored.record) == claim.expected();
        Ok(is_expected.then_some(found))
    }

    /// See [`millstream_core::Sink::claim`]. A claim that is interrupted leaves a record in the new term: the fences follow it
    /// with the next claim, with [`millstream_core::Sink::settle`], or one by one when they are written.
    pub(crate) async fn put_claim(&self, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>> {
        let Some(mut found) = self.find_expected(claim).await? else { return Ok(None) };
        let open = found.as_ref().map(|found| &found.stored);
        if let Some(open) = open.filter(|stored| stored.record.owner.function != owner.function)
            && open.takes_from.is_some()
        {
            // The item names one function to take from: the adoption before this one ends first, or its fences are forgotten.
            self.begin_at_fences(&open.record, open.takes_from.as_deref(), true).await?;
            let Some(ended) = self.find_expected(claim).await? else { return Ok(None) };
            found = ended;
        }
        let stored = found.as_ref().map(|found| &found.stored);
        let before = stored.map(|stored| stored.record.owner.function.as_str());
        let own = self.client.fences(&owner.function).await?;
        let table = self.layout.table.public_name();
        let takes_from = match (claim, before) {
            (Claim::Adopt(_), Some(before)) if before != owner.function => {
                if own.iter().any(|(partition, _)| partition.partition != WHOLE_TOPIC) {
                    return Err(Error::stop(fences_of_both(&owner.function, before, table)));
                }
                Some(before)
            }
            // An adoption by this function has not ended.
            _ => stored.and_then(|stored| stored.takes_from.as_deref()),
        };
        let (term, since) = match claim {
            Claim::Renew(record) => (record.term, record.since.clone()),
            _ => (self.next_term(&own, takes_from).await?, now()),
        };
        let record =
            OwnerRecord { table: table.to_owned(), owner: owner.clone(), term, since, adopted: claim.is_adopted() };
        if !self.client.put_owner(found.as_ref(), &record, takes_from).await? {
            return Ok(None);
        }
        if claim.begins_term() {
            self.begin_at_fences(&record, takes_from, matches!(claim, Claim::Adopt(_))).await?;
            for stored in self.client.owners().await? {
                if stored.record.table != record.table && stored.record.owner.function == owner.function {
                    self.client.remove_owner(&stored.record.table, &owner.function).await?;
                }
            }
        }
        Ok(Some(record))
    }

    /// Finishes an adoption that was interrupted: see [`millstream_core::Sink::settle`].
    pub(crate) async fn finish_adoption(&self) -> Result<()> {
        let Some(Found { stored, .. }) = self.client.owner(self.layout.table.public_name()).await? else {
            return Ok(());
        };
        if stored.record.owner.function == self.function && stored.takes_from.is_some() {
            self.begin_at_fences(&stored.record, stored.takes_from.as_deref(), true).await?;
        }
        Ok(())
    }

    /// A term that is above all others.
    async fn next_term(&self, own: &[(TopicPartition, Held)], takes_from: Option<&str>) -> Result<i64> {
        let of_owners = self.client.owners().await?.into_iter().map(|stored| stored.record.term);
        let taken = match takes_from {
            Some(before) => self.client.fences(before).await?,
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
        for (partition, held) in client.fences(function).await? {
            if held.term < term {
                client.raise_term(function, &partition, term, begun).await?;
            }
        }
        let Some(before) = takes_from else { return Ok(()) };
        for (partition, _) in client.fences(before).await? {
            // With the term, the process that still moves it stops; only then does it stand still.
            let Some(found) = client.raise_term(before, &partition, term, begun).await? else { continue };
            if found.held.term > term {
                return Err(Error::retry(client.doing(&format!("the fence of {partition} is of a later owner"))));
            }
            client.create_fence(function, &partition, &found.held).await?;
            client.remove_fence(before, &partition, term).await?;
        }
        // All are taken.
        match client.owner(&record.table).await? {
            Some(found) if found.stored.record == *record => {
                client.put_owner(Some(&found), record, None).await.map(|_| ())
            }
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
