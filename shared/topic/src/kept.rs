//! What a topic sink's functions have said of themselves, as the records of a small compacted topic tell it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use millstream_core::{Batch, Claim, Error, Fence, Owner, OwnerRecord, Result, TopicPartition, fences_of_both};

use crate::{
    event::{Announced, Event, passing},
    held::Held,
};

/// A function and a partition that it reads.
pub(crate) type Place = (String, TopicPartition);

/// All of it, as far as it has been read.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The next offset to be read.
    pub next: i64,
    /// The id that the log gave the topic, once it was asked for.
    pub topic_id: Option<String>,
    places: HashMap<Place, Held>,
    /// By topic.
    pub owners: BTreeMap<String, OwnerRecord>,
    /// By topic and generation.
    pub made: HashMap<(String, u32), Made>,
    /// The keys of records that don't count any more, for whoever writes next to remove them.
    spent: BTreeSet<String>,
    /// The keys of what this process has announced; does it count, as far as it is known?
    awaited: HashMap<String, bool>,
}

/// What a topic's records are.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub partitions: i32,
    /// Names and types.
    pub columns: Vec<(String, String)>,
    /// The id that the log gave the topic, where it is known.
    pub topic_id: Option<String>,
}

impl Kept {
    /// Takes in the records of a batch.
    ///
    /// # Errors
    /// `Stop` for a record that no function has written.
    pub fn read(&mut self, batch: &Batch) -> Result<()> {
        for (key, value) in batch.keys().iter().zip(batch.values()) {
            self.take_in(key, value).map_err(|error| error.context(batch.partition()))?;
        }
        self.next = batch.range().end;
        Ok(())
    }

    /// Takes in the next record.
    ///
    /// # Errors
    /// Those of [`Kept::read`].
    pub fn take_in(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<()> {
        let key = String::from_utf8_lossy(key.unwrap_or_default()).into_owned();
        let Some(value) = value else {
            self.spent.remove(&key);
            return Ok(());
        };
        let event = serde_json::from_slice(value)
            .map_err(|error| Error::stop("the topic holds something else than fences").caused_by(error))?;
        self.apply(key, event);
        Ok(())
    }

    fn apply(&mut self, key: String, event: Event) {
        match event {
            Event::Start { function, partition, fence } => {
                self.places.entry((function, partition)).or_insert_with(|| Held::starting(fence));
            }
            Event::Announced(announced) => self.announce(key, announced),
            Event::Moved { function, partition, fence, table } => {
                // The function may have got another name since it announced this.
                let named = self.owners.get(&table).map_or(function, |record| record.owner.function.clone());
                let spent = match self.places.get_mut(&(named.clone(), partition.clone())) {
                    Some(held) => held.moved(key, fence),
                    None => {
                        self.places.insert((named, partition), Held::starting(fence));
                        Vec::new()
                    }
                };
                self.spent.extend(spent);
            }
            Event::Claimed { expected, record, begins_term, forgets_rows } => {
                if self.owners.get(&record.table) == expected.as_ref() {
                    self.claim(expected.as_ref(), record, begins_term, forgets_rows);
                }
            }
            Event::Made { topic, generation, partitions, columns, topic_id } => {
                let first = Made { partitions, columns: Vec::new(), topic_id: None };
                let made = self.made.entry((topic, generation)).or_insert(first);
                made.columns = columns;
                made.topic_id = made.topic_id.take().or(topic_id);
            }
        }
    }

    fn announce(&mut self, key: String, announced: Announced) {
        let owner = self.owners.get(&announced.table);
        // A process of a term is outrun if its function writes to another topic by now: this one has no owner then.
        let in_force = owner.map_or(announced.term == 0, |record| {
            record.term == announced.term && record.owner.function == announced.function
        });
        let held = self.places.get_mut(&(announced.function.clone(), announced.partition.clone()));
        let (counts, spent) = match held.filter(|_| in_force) {
            Some(held) => held.announced(key.clone(), announced),
            None => (false, vec![key.clone()]),
        };
        self.awaited.entry(key).and_modify(|answer| *answer = counts);
        self.spent.extend(spent);
    }

    fn claim(&mut self, expected: Option<&OwnerRecord>, record: OwnerRecord, begins_term: bool, forgets_rows: bool) {
        let function = &record.owner.function;
        if let Some(old) = expected.map(|old| &old.owner.function).filter(|old| *old != function) {
            let renamed = |(of, at): Place| (if of == *old { function.clone() } else { of }, at);
            let places = std::mem::take(&mut self.places);
            self.places = places.into_iter().map(|(place, held)| (renamed(place), held)).collect();
        }
        if begins_term {
            self.owners.retain(|table, other| *table == record.table || other.owner.function != *function);
        }
        if forgets_rows {
            let own = self.places.iter_mut().filter(|((of, _), _)| of == function);
            own.for_each(|(_, held)| held.fence.rows = 0);
        }
        self.owners.insert(record.table.clone(), record);
    }

    /// The fence of a partition.
    pub fn fence(&self, place: &Place) -> Option<&Fence> {
        self.places.get(place).map(|held| &held.fence)
    }

    /// All partitions of a function.
    pub fn of<'a>(&'a self, function: &'a str) -> impl Iterator<Item = (&'a TopicPartition, &'a Held)> {
        self.places.iter().filter(move |((of, _), _)| of == function).map(|((_, at), held)| (at, held))
    }

    /// What is announced above the fence of a partition.
    pub fn open(&self, place: &Place) -> impl Iterator<Item = &Announced> {
        self.places.get(place).into_iter().flat_map(Held::open)
    }

    /// What is announced and not known to be sent, and what `owner` can't send as a function that writes to `topic`, of this
    /// generation: only another plan can make it again, or it goes to another topic.
    pub fn find_unsettled<'a>(
        &'a self,
        function: &'a str,
        owner: &Owner,
        (topic, generation): (&str, u32),
    ) -> Option<&'a Announced> {
        let open = self.of(function).flat_map(|(_, held)| held.open());
        let mut open = open.filter(|announced| !announced.is_gone(topic, generation));
        open.find(|announced| {
            announced.table != topic || (announced.rows.is_none() && announced.plan != owner.fingerprint)
        })
    }

    /// From now on, an answer is expected for what is announced under this key.
    pub fn expect(&mut self, key: &str) {
        self.awaited.insert(key.to_owned(), false);
    }

    /// Does what was announced under this key count? Nothing is expected any more.
    pub fn answer(&mut self, key: &str) -> bool {
        self.awaited.remove(key).unwrap_or(false)
    }

    /// The keys of some records of a partition that don't count any more.
    pub fn spent_of(&self, (function, partition): &Place, most: usize) -> Vec<String> {
        let prefix = passing(function, partition);
        let own = self.spent.range(prefix.clone()..).take_while(|key| key.starts_with(&prefix));
        own.take(most).cloned().collect()
    }

    /// The claim as an event; `None` if the record in force is another one.
    ///
    /// # Errors
    /// `Stop` if both functions have fences, or if records are announced that the new plan can't make.
    pub fn claimed(
        &self,
        owner: Owner,
        (table, generation): (&str, u32),
        claim: &Claim,
        since: String,
    ) -> Result<Option<Event>> {
        let (found, expected) = (self.owners.get(table), claim.expected());
        if found != expected {
            return Ok(None);
        }
        let before = found.map(|found| found.owner.function.as_str());
        if let Some(old) = before.filter(|old| *old != owner.function)
            && self.of(&owner.function).next().is_some()
        {
            return Err(Error::stop(fences_of_both(&owner.function, old, table)));
        }
        let unsettled = self.find_unsettled(before.unwrap_or(&owner.function), &owner, (table, generation));
        if let (Claim::Adopt(_), Some(unsettled)) = (claim, unsettled) {
            return Err(Error::stop(say_unsettled(unsettled)));
        }
        let highest = self.owners.values().map(|record| record.term).max().unwrap_or(0);
        let (begins_term, forgets_rows) = (claim.begins_term(), matches!(claim, Claim::Adopt(_)));
        let (term, since) = match expected {
            Some(record) if !begins_term => (record.term, record.since.clone()),
            _ => (highest + 1, since),
        };
        let adopted = claim.is_adopted();
        let record = OwnerRecord { table: table.to_owned(), owner, term, since, adopted };
        Ok(Some(Event::Claimed { expected: expected.cloned(), record, begins_term, forgets_rows }))
    }
}

/// What a person must do about records that only the previous plan can make again.
pub(crate) fn say_unsettled(announced: &Announced) -> String {
    let Announced { function, partition, from, to, table, .. } = announced;
    format!(
        "{function} was interrupted while it wrote to topic {table} what its previous plan makes of {partition}, offsets {from} to \
         {to}: a part of it may be there, and another plan would lose or double the rest. Start the previous version once, \
         let it go on past offset {to}, and stop it; then adopt the new one. If that one is adopted already, adopt the version of \
         before first"
    )
}
