//! A selection of dead letters as a log.

use std::{
    collections::HashSet,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use millstream_core::{
    Batch, BatchBuilder, DeadLetter, DeadLetters, Error, Limits, Log, LogStore, MAX_LETTER_KEY_BYTES, Position, Result,
    Source, TopicPartition, Watermarks,
};
use millstream_topic::{RedrivesTopic, Selection};

/// The letters of the selection that is being brought in, at their records' own offsets.
pub(super) struct LettersLog {
    /// The log that the records were read from: letters don't hold long ones whole.
    log: Arc<dyn Source>,
    letters: Arc<dyn DeadLetters>,
    redrives: Arc<RedrivesTopic<dyn LogStore>>,
    function: String,
    held: Mutex<Arc<Held>>,
    fetched: Mutex<Fetched>,
    /// What was refused of the selection that is held. It isn't tried again, for its note says what became of it.
    refused: Mutex<HashSet<(i32, i64)>>,
    /// Notes of which it is not known whether they are there.
    pending: Mutex<Vec<DeadLetter>>,
}

/// A selection, and its records in order.
#[derive(Default)]
struct Held {
    selection: Option<Selection>,
    positions: Vec<Position>,
}

/// The letters of some of the selection's records, by their places in it: a topic of letters is read from its beginning for
/// them.
#[derive(Clone, Default)]
struct Fetched {
    places: Range<usize>,
    letters: Arc<Vec<DeadLetter>>,
}

impl LettersLog {
    pub fn new(
        log: Arc<dyn Source>,
        letters: Arc<dyn DeadLetters>,
        redrives: Arc<RedrivesTopic<dyn LogStore>>,
        function: String,
    ) -> Self {
        let (held, fetched, refused, pending) = Default::default();
        Self { log, letters, redrives, function, held, fetched, refused, pending }
    }

    pub fn hold(&self, selection: Selection) {
        let positions = selection.positions().collect();
        *lock(&self.held) = Arc::new(Held { selection: Some(selection), positions });
        *lock(&self.fetched) = Fetched::default();
        lock(&self.refused).clear();
        lock(&self.pending).clear();
    }

    /// Notes that records of the selection were refused again.
    pub async fn refuse(&self, letters: &[DeadLetter]) -> Result<()> {
        let places = letters.iter().map(|letter| (letter.position.partition.partition, letter.position.offset));
        // A note whose answer is lost may be there all the same, so its record must not be accepted by a second try.
        lock(&self.refused).extend(places);
        lock(&self.pending).extend_from_slice(letters);
        self.send_notes().await
    }

    async fn send_notes(&self) -> Result<()> {
        let pending = lock(&self.pending).clone();
        if !pending.is_empty() {
            self.redrives.refuse(&pending).await?;
            lock(&self.pending).drain(..pending.len());
        }
        Ok(())
    }

    fn held(&self, partition: &TopicPartition) -> Result<Arc<Held>> {
        let held = lock(&self.held).clone();
        let is_of_it = held.selection.as_ref().is_some_and(|selection| {
            selection.topic == partition.topic && selection.generation_of_fences() == partition.generation
        });
        if is_of_it {
            return Ok(held);
        }
        Err(Error::stop(format!("internal: {partition} is not the selection that is redriven")))
    }

    /// The letters of the selection from `place` on: some of them.
    async fn fetched(&self, held: &Held, place: usize) -> Result<Fetched> {
        let fetched = lock(&self.fetched).clone();
        if fetched.places.contains(&place) {
            return Ok(fetched);
        }
        let (letters, looked_at) = self.letters.fetch(&self.function, &held.positions[place..]).await?;
        let fetched = Fetched { places: place..place + looked_at.max(1), letters: Arc::new(letters) };
        *lock(&self.fetched) = fetched.clone();
        Ok(fetched)
    }

    /// The record of a letter that doesn't hold it whole; `None` if the log no longer has it.
    async fn whole(&self, position: &Position) -> Result<Option<DeadLetter>> {
        let (at, one) = (position.offset, Limits { max_records: 1, max_bytes: 1, max_wait_ms: 0 });
        let held = self.log.watermarks(&position.partition).await?;
        if !(held.low..held.high).contains(&at) {
            return Ok(None);
        }
        let batch = self.log.read(&position.partition, at..at + 1, one).await?;
        if batch.is_empty() {
            return Ok(None);
        }
        let bytes = |column: &arrow::array::BinaryArray| {
            use arrow::array::Array as _;
            column.is_valid(0).then(|| column.value(0).to_vec())
        };
        let value = bytes(batch.values());
        Ok(Some(DeadLetter {
            function: self.function.clone(),
            position: position.clone(),
            timestamp_ms: batch.timestamps_ms().value(0),
            key: bytes(batch.keys()),
            value_bytes: value.as_ref().map_or(0, Vec::len),
            value,
            headers: batch.headers_of(0),
            reason: String::new(),
        }))
    }

    /// The letter with all of its record; noted as refused if nobody has that any more.
    async fn made_whole(&self, letter: &DeadLetter, partition: &TopicPartition) -> Result<Option<DeadLetter>> {
        let holds = letter.value.as_ref().map_or(0, Vec::len) == letter.value_bytes
            && letter.key.as_ref().is_none_or(|key| key.len() < MAX_LETTER_KEY_BYTES);
        if holds {
            return Ok(Some(letter.clone()));
        }
        let found = self.whole(&letter.position).await?;
        let is_it =
            |found: &DeadLetter| found.timestamp_ms == letter.timestamp_ms && found.value_bytes == letter.value_bytes;
        if let Some(found) = found.filter(is_it) {
            return Ok(Some(found));
        }
        let reason = "the letter holds only a part of the record, and the log no longer has it".to_owned();
        let refused = DeadLetter { position: partition.at(letter.position.offset), reason, ..letter.clone() };
        self.refuse(&[refused]).await?;
        Ok(None)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Log for LettersLog {
    async fn partitions(&self, topic: &str) -> Result<i32> {
        self.log.partitions(topic).await
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks> {
        let held = self.held(partition)?;
        let offsets = held.selection.as_ref().and_then(|selection| selection.offsets.get(&partition.partition));
        Ok(Watermarks { low: 0, high: offsets.and_then(|offsets| offsets.last()).map_or(0, |last| last + 1) })
    }

    async fn first_since(&self, _partition: &TopicPartition, _timestamp_ms: i64) -> Result<Option<i64>> {
        Ok(Some(0))
    }

    async fn read(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Result<Batch> {
        self.send_notes().await?;
        let held = self.held(partition)?;
        let number = partition.partition;
        let refused = lock(&self.refused).clone();
        let is_wanted = |position: &Position| {
            position.partition.partition == number
                && range.contains(&position.offset)
                && !refused.contains(&(number, position.offset))
        };
        let (mut builder, mut end) = (BatchBuilder::new(partition.clone()), range.end);
        let first = held.positions.iter().position(is_wanted);
        let Some(first) = first else { return Ok(builder.finish_read(range.start, end)) };
        let fetched = self.fetched(&held, first).await?;
        let next = held.positions.get(fetched.places.end).filter(|next| next.partition.partition == number);
        end = next.map_or(end, |next| next.offset.min(end));
        for letter in
            fetched.letters.iter().filter(|letter| is_wanted(&letter.position) && letter.position.offset < end)
        {
            if builder.len() >= limits.max_records.max(1) || builder.bytes() >= limits.max_bytes {
                return Ok(builder.finish_read(range.start, letter.position.offset));
            }
            if let Some(letter) = self.made_whole(letter, partition).await? {
                let (offset, timestamp_ms) = (letter.position.offset, letter.timestamp_ms);
                let headers = letter.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
                builder.push(offset, timestamp_ms, letter.key.as_deref(), letter.value.as_deref(), headers);
            }
        }
        Ok(builder.finish_read(range.start, end))
    }
}
