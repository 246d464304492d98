//! Announce, send, move: how a batch gets into a topic once, whatever happens in between.
//!
//! 1. If the plan may make other records the next time (it joins references), they are stored in the outbox.
//! 2. The process announces the batch in the fences' topic. Its order decides: an announcement counts if the fence is where it
//!    begins, the term is in force, and no announcement before it must be sent first.
//! 3. Only what counts is sent. So whatever is in the topic was announced, and can be sent again just as it was: from the
//!    outbox, or by the same plan.
//! 4. The fence moves.

use std::sync::atomic::Ordering;

use futures::lock::MutexGuard;
use millstream_core::{Error, Fence, Log, NewRecord, Position, Result, TopicPartition, Topics, fault};

use crate::{
    TopicSink,
    event::{Announced, Event, Stored, removal},
    kept::{Kept, Place, say_unsettled},
    outbox::{from_parts, to_parts},
    sink::PAGE,
};

/// How many records that don't count any more one announcement removes.
const REMOVED_AT_ONCE: usize = 100;

impl<L: Log + Topics + ?Sized> TopicSink<L> {
    /// Appends records to the fences' topic, and takes in what is there up to them. Nothing else may be in between: then it need
    /// not be read again.
    pub(crate) async fn note(&self, records: Vec<NewRecord>) -> Result<MutexGuard<'_, Kept>> {
        let told: Vec<_> = records.iter().map(|record| (record.key.clone(), record.value.clone())).collect();
        let sent = self.fences_producer.send(&self.fences.topic, records).await;
        let positions = sent.map_err(|error| not_poison(error, "a fence"))?;
        let mut kept = self.kept.lock().await;
        let is_next = |(at, position): (i64, &Position)| position.offset == at;
        if (kept.next..).zip(&positions).all(is_next) {
            for (key, value) in told {
                kept.take_in(key.as_deref(), value.as_deref())?;
                kept.next += 1;
            }
            return Ok(kept);
        }
        drop(kept);
        match positions.last() {
            Some(last) if last.offset >= 0 => self.kept_up_to(last.offset + 1).await,
            _ => self.kept().await,
        }
    }

    /// Brings records into the topic that are made of the offsets from the fence up to `to`, and moves the fence.
    pub(crate) async fn bring_in(
        &self,
        partition: &TopicPartition,
        from: &Fence,
        to: &Fence,
        records: Vec<NewRecord>,
    ) -> Result<()> {
        self.announce(partition, from, to, &records).await?;
        fault::point("topic.before_send");
        self.send(records).await?;
        fault::point("topic.after_send");
        self.move_fence(partition, to).await?;
        fault::point("topic.after_fence");
        Ok(())
    }

    async fn announce(
        &self,
        partition: &TopicPartition,
        from: &Fence,
        to: &Fence,
        records: &[NewRecord],
    ) -> Result<()> {
        let (place, key) = (self.place(partition), self.unique());
        // What is redriven is closed by another process when this one ends, and that has not the records.
        let keeps_rows = self.shape.keeps_rows || partition.is_redrive();
        let rows = if keeps_rows { Some(self.store(partition, to, records).await?) } else { None };
        let term = self.term.load(Ordering::Relaxed);
        let (table, function, partition) = (self.table_name().to_owned(), self.function.clone(), partition.clone());
        let (full_key, records) = {
            let mut kept = self.kept.lock().await;
            let plan = kept.owners.get(&table).map(|record| record.owner.fingerprint.clone()).unwrap_or_default();
            let (from, to) = (from.next_offset, to.next_offset);
            let announced = Event::Announced(Announced {
                table,
                generation: self.shape.generation,
                function,
                partition,
                from,
                to,
                term,
                plan,
                rows,
            });
            let removed = kept.spent_of(&place, REMOVED_AT_ONCE).into_iter().map(removal);
            let record = announced.record(&key)?;
            let full_key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
            kept.expect(&full_key);
            (full_key, [record].into_iter().chain(removed).collect())
        };
        let noted = self.note(records).await;
        let mut kept = match noted {
            Ok(kept) => kept,
            Err(error) => {
                self.kept.lock().await.answer(&full_key);
                return Err(error);
            }
        };
        if kept.answer(&full_key) {
            return Ok(());
        }
        self.check_term(&kept)?;
        self.check_settled(&kept, &place)?;
        Err(Error::Fenced { current: kept.fence(&place).map(|fence| fence.next_offset) })
    }

    /// Puts records into the outbox.
    async fn store(&self, partition: &TopicPartition, to: &Fence, records: &[NewRecord]) -> Result<Stored> {
        let count = self.log.partitions(&self.outbox).await?;
        let number = partition.partition.rem_euclid(count.max(1));
        let part = |(at, value)| NewRecord {
            key: Some(self.key_of_part(partition, at)),
            value: Some(value),
            partition: Some(number),
            ..NewRecord::default()
        };
        let parts: Vec<_> = to_parts(records).into_iter().enumerate().map(part).collect();
        let mut offsets = Vec::new();
        if !parts.is_empty() {
            let sent = self.producer.send(&self.outbox, parts).await;
            let positions = sent.map_err(|error| not_poison(error, "a part of the outbox"))?;
            offsets.extend(positions.into_iter().map(|position| position.offset));
        }
        if offsets.iter().any(|offset| *offset < 0) {
            return Err(Error::retry(format!("topic {} doesn't say where it has put records", self.outbox)));
        }
        fault::point("topic.after_outbox");
        Ok(Stored { fence: to.clone(), partition: number, offsets })
    }

    /// The parts of the next batch take the places of these once the log is compacted.
    fn key_of_part(&self, partition: &TopicPartition, at: usize) -> Vec<u8> {
        format!("{}/{partition}/{at}", self.table_name()).into_bytes()
    }

    async fn read_outbox(&self, partition: &TopicPartition, stored: &Stored) -> Result<Vec<NewRecord>> {
        let (place, mut bytes) = (TopicPartition::new(&self.outbox, 1, stored.partition), Vec::new());
        let gone = || {
            Error::stop(format!(
                "topic {} has lost records that {} was about to write to topic {}: they can't be made again as they were, since a \
                 reference may have changed. A part of them may be there; how to go on is for a person to decide",
                self.outbox, self.function, self.shape.topic
            ))
        };
        for (at, offset) in stored.offsets.iter().enumerate() {
            let batch = self.log.read(&place, *offset..*offset + 1, PAGE).await?;
            let is_part = batch.len() == 1 && batch.keys().value(0) == self.key_of_part(partition, at);
            bytes.extend_from_slice(if is_part { batch.values().value(0) } else { return Err(gone()) });
        }
        from_parts(&bytes).ok_or_else(gone)
    }

    pub(crate) async fn send(&self, records: Vec<NewRecord>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let sent = self.producer.send(&self.shape.topic, records).await;
        // A part of the batch may be there already, so no record of it may become a dead letter any more.
        sent.map(drop).map_err(|error| not_poison(error, "a record that it took before, as its settings were then"))
    }

    async fn move_fence(&self, partition: &TopicPartition, to: &Fence) -> Result<()> {
        let (function, table) = (self.function.clone(), self.table_name().to_owned());
        let moved = Event::Moved { function, partition: partition.clone(), fence: to.clone(), table };
        self.note(vec![moved.record(&self.unique())?]).await.map(drop)
    }

    /// Sends what was announced with its records and not finished.
    pub(crate) async fn finish(&self, partition: &TopicPartition) -> Result<()> {
        let place = self.place(partition);
        let is_gone = |announced: &&Announced| announced.is_gone(self.table_name(), self.shape.generation);
        let stored = {
            let kept = self.kept().await?;
            if self.check_term(&kept).is_err() {
                return Ok(());
            }
            self.check_settled(&kept, &place)?;
            kept.open(&place).filter(|announced| !is_gone(announced)).find_map(|announced| announced.rows.clone())
        };
        let Some(stored) = stored else { return Ok(()) };
        self.check_made(self.kept().await?).await?;
        self.send(self.read_outbox(partition, &stored).await?).await?;
        self.move_fence(partition, &stored.fence).await
    }

    /// What was announced without its records must be sent by the plan that has announced it.
    fn check_settled(&self, kept: &Kept, place: &Place) -> Result<()> {
        let Some(record) = kept.owners.get(self.table_name()) else { return Ok(()) };
        let is_foreign = |announced: &&Announced| {
            announced.table != self.table_name()
                || (announced.rows.is_none() && !announced.is_by(record.term, &record.owner.fingerprint))
        };
        let is_gone = |announced: &&Announced| announced.is_gone(self.table_name(), self.shape.generation);
        match kept.open(place).filter(|announced| !is_gone(announced)).find(is_foreign) {
            Some(announced) => Err(Error::stop(say_unsettled(announced))),
            None => Ok(()),
        }
    }
}

/// An error of a send that is no record's own fault.
fn not_poison(error: Error, what: &str) -> Error {
    match error {
        Error::Poison(cause) => Error::stop(format!("the log refuses {what}: {cause}")),
        error => error,
    }
}
