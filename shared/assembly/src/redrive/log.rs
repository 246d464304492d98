//! A selection of dead letters as a log.

use std::{
    collections::HashSet,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
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
    held: Mutex<Option<Arc<Held>>>,
    fetched: Mutex<Fetched>,
}

/// How many letters are fetched at once: a topic of letters is read from its beginning for that.
const FETCHED: usize = 20_000;

/// Letters that have been read, all of a partition with offsets in a range.
#[derive(Default)]
struct Fetched {
    partition: Option<TopicPartition>,
    offsets: Range<i64>,
    letters: Arc<Vec<DeadLetter>>,
}

/// A selection, and what was refused again of it: that isn't tried twice, for its fence may not have passed it yet.
struct Held {
    selection: Selection,
    refused: HashSet<(i32, i64)>,
}

impl LettersLog {
    pub fn new(
        log: Arc<dyn Source>,
        letters: Arc<dyn DeadLetters>,
        redrives: Arc<RedrivesTopic<dyn LogStore>>,
        function: String,
    ) -> Self {
        Self { log, letters, redrives, function, held: Mutex::default(), fetched: Mutex::default() }
    }

    pub fn hold(&self, selection: Selection, refused: HashSet<(i32, i64)>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Held { selection, refused }));
    }

    fn held(&self, partition: &TopicPartition) -> Result<Arc<Held>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of_it = held.filter(|held| {
            held.selection.topic == partition.topic && held.selection.generation_of_fences() == partition.generation
        });
        of_it.ok_or_else(|| Error::stop(format!("internal: {partition} is not the selection that is redriven")))
    }

    /// The `open` letters from `first` on, perhaps with some before them, and the offset up to which they are all.
    async fn fetched(
        &self,
        held: &Held,
        partition: &TopicPartition,
        (first, range_end): (i64, i64),
        open: impl Iterator<Item = i64> + Send,
    ) -> Result<(Arc<Vec<DeadLetter>>, i64)> {
        {
            let fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
            if fetched.partition.as_ref() == Some(partition) && fetched.offsets.contains(&first) {
                return Ok((Arc::clone(&fetched.letters), fetched.offsets.end));
            }
        }
        let positions: Vec<Position> =
            open.take(FETCHED).map(|offset| held.selection.position(partition.partition, offset)).collect();
        let (letters, looked_at) = self.letters.fetch(&self.function, &positions).await?;
        let end = match (positions.get(looked_at), positions.last()) {
            (Some(next), _) => next.offset,
            (None, Some(last)) if positions.len() == FETCHED => last.offset + 1,
            (None, _) => range_end,
        };
        let letters = Arc::new(letters);
        *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) =
            Fetched { partition: Some(partition.clone()), offsets: first..end, letters: Arc::clone(&letters) };
        Ok((letters, end))
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

    async fn made_whole(&self, letter: DeadLetter, held: &Held) -> Result<Option<DeadLetter>> {
        let holds = letter.value.as_ref().map_or(0, Vec::len) == letter.value_bytes
            && letter.key.as_ref().is_none_or(|key| key.len() < MAX_LETTER_KEY_BYTES);
        if holds {
            return Ok(Some(letter));
        }
        let found = self.whole(&letter.position).await?;
        let is_it =
            |found: &DeadLetter| found.timestamp_ms == letter.timestamp_ms && found.value_bytes == letter.value_bytes;
        if let Some(found) = found.filter(is_it) {
            return Ok(Some(found));
        }
        let partition =
            TopicPartition { generation: held.selection.generation_of_fences(), ..letter.position.partition };
        let reason = "the letter holds only a part of the record, and the log no longer has it".to_owned();
        let refused = DeadLetter { position: partition.at(letter.position.offset), reason, ..letter };
        self.redrives.refuse(&[refused]).await?;
        Ok(None)
    }
}

#[async_trait]
impl Log for LettersLog {
    async fn partitions(&self, topic: &str) -> Result<i32> {
        self.log.partitions(topic).await
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks> {
        let held = self.held(partition)?;
        let offsets = held.selection.offsets.get(&partition.partition).map(Vec::as_slice).unwrap_or_default();
        let low = offsets.first().copied().unwrap_or_default();
        Ok(Watermarks { low, high: offsets.last().map_or(low, |last| last + 1) })
    }

    async fn first_since(&self, partition: &TopicPartition, _timestamp_ms: i64) -> Result<Option<i64>> {
        Ok(Some(self.watermarks(partition).await?.low))
    }

    async fn read(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Result<Batch> {
        let held = self.held(partition)?;
        let offsets = held.selection.offsets.get(&partition.partition).map(Vec::as_slice).unwrap_or_default();
        let open = |offset: &&i64| range.contains(*offset) && !held.refused.contains(&(partition.partition, **offset));
        let open = offsets.iter().filter(open).copied();
        let Some(first) = open.clone().next() else {
            return Ok(BatchBuilder::new(partition.clone()).finish_read(range.start, range.end));
        };
        let (letters, known_to) = self.fetched(&held, partition, (first, range.end), open).await?;
        let (mut builder, mut end) = (BatchBuilder::new(partition.clone()), range.end.min(known_to));
        let before = letters.partition_point(|letter| letter.position.offset < range.start);
        for letter in letters[before..].iter().take_while(|letter| letter.position.offset < end) {
            let offset = letter.position.offset;
            if builder.len() >= limits.max_records.max(1) || builder.bytes() >= limits.max_bytes {
                end = offset;
                break;
            }
            if let Some(letter) = self.made_whole(letter.clone(), &held).await? {
                let headers = letter.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
                builder.push(offset, letter.timestamp_ms, letter.key.as_deref(), letter.value.as_deref(), headers);
            }
        }
        Ok(builder.finish_read(range.start, end))
    }
}
