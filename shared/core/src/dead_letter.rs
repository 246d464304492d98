use async_trait::async_trait;

use crate::{Position, Result};

/// The most bytes of a record's value that a dead letter carries. A topic takes some 1 MiB per message by default
/// (Kafka's `message.max.bytes`, 1,048,588), and a letter fits with all that goes with the value; the rest of a larger
/// value is in the log at its position.
pub const MAX_LETTER_VALUE_BYTES: usize = 900_000;

/// The most bytes of a record's key, and of its headers together, that a dead letter carries: a longer key is cut, more
/// headers are left out. They too are in the log.
pub const MAX_LETTER_KEY_BYTES: usize = 32 << 10;

/// The most bytes of its reason; a longer one is cut.
pub const MAX_LETTER_REASON_BYTES: usize = 1 << 10;

/// What a header takes in a message in addition to its name and its value.
const HEADER_OVERHEAD_BYTES: usize = 6;

/// One listing ends when its letters hold so many bytes, however many were asked for.
pub const MAX_LISTED_BYTES: usize = 64 << 20;

/// A record that could not be processed, with all that is needed to understand it and to send it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The function that could not process it, as `pipeline.function`.
    pub function: String,
    /// Where the record stands.
    pub position: Position,
    /// Kafka's timestamp of the record, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key; cut to [`MAX_LETTER_KEY_BYTES`].
    pub key: Option<Vec<u8>>,
    /// Its value; cut to [`MAX_LETTER_VALUE_BYTES`]. None for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers in order; none when they are more than [`MAX_LETTER_KEY_BYTES`].
    pub headers: Vec<(String, Vec<u8>)>,
    /// How many bytes the value had.
    pub value_bytes: usize,
    /// Why, for a person; cut to [`MAX_LETTER_REASON_BYTES`]. Never holds the value.
    pub reason: String,
}

/// Where dead letters go. The runner and the command line call it; the caller retries. Delivery is at least once, keyed by
/// (function, position): a store keeps one letter per key. A topic may hold a letter twice after a crash, but its readers
/// return each letter once.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Keeps the letters, durably: the runner moves the fence past their records only after this returned.
    async fn put(&self, letters: &[DeadLetter]) -> Result<()>;

    /// The letters of a function, or of all, that were kept last, the newest first: at most `limit`, and no more than
    /// [`MAX_LISTED_BYTES`] (but always one). A topic is read from its end and only so far back as its implementation says.
    async fn list(&self, function: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>>;

    /// The letters of the record at `position`: of one function, or of each that could not process it.
    async fn find(&self, function: Option<&str>, position: &Position) -> Result<Vec<DeadLetter>>;

    /// The letters of a function at the first of `positions`, as many as [`MAX_LISTED_BYTES`] hold but always one; and of how
    /// many positions these are. At some of them there may be no letter. A topic is read from its beginning for this. Called
    /// when letters are redriven.
    async fn fetch(&self, function: &str, positions: &[Position]) -> Result<(Vec<DeadLetter>, usize)> {
        let (mut letters, mut bytes) = (Vec::new(), 0);
        for (at, position) in positions.iter().enumerate() {
            let found = self.find(Some(function), position).await?;
            bytes += found.iter().map(DeadLetter::bytes).sum::<usize>();
            if bytes > MAX_LISTED_BYTES && !letters.is_empty() {
                return Ok((letters, at));
            }
            letters.extend(found);
        }
        Ok((letters, positions.len()))
    }

    /// How many letters of a function there are; `None` from a place where all of them would have to be read for it. Called
    /// by the live view of `millstream dev`.
    async fn count(&self, _function: &str) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Keeps each letter of the function `from` as one of `to` too, in place of a letter that `to` has of the same record.
    async fn copy(&self, from: &str, to: &str) -> Result<()>;

    /// Removes the letters of a function at these positions; those that are not there are passed over. In a topic, a listing
    /// leaves them out from now on, and compaction removes them.
    async fn remove(&self, function: &str, positions: &[Position]) -> Result<()>;

    /// Calls `visit` with the position of every letter of a function, in any order and perhaps with one of them twice.
    /// Letters are not collected in memory, and a store does not read their values.
    async fn positions(&self, function: &str, visit: &mut (dyn FnMut(Position) + Send)) -> Result<()>;
}

impl DeadLetter {
    /// Cuts what is too long for one message.
    #[must_use]
    pub fn cut(mut self) -> Self {
        self.key.iter_mut().for_each(|key| key.truncate(MAX_LETTER_KEY_BYTES));
        self.value.iter_mut().for_each(|value| value.truncate(MAX_LETTER_VALUE_BYTES));
        let bytes = |(name, value): &(String, Vec<u8>)| name.len() + value.len() + HEADER_OVERHEAD_BYTES;
        if self.headers.iter().map(bytes).sum::<usize>() > MAX_LETTER_KEY_BYTES {
            self.headers.clear();
        }
        self.reason.truncate(self.reason.floor_char_boundary(MAX_LETTER_REASON_BYTES));
        self
    }

    /// About how many bytes it takes in memory, for limits.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        size_of::<Self>() + length(&self.key) + length(&self.value) + headers + self.reason.len()
    }
}
