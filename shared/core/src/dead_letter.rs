use async_trait::async_trait;

use crate::{NewRecord, Position, Result};

/// The most bytes of a record's value that a dead letter carries. A topic takes some 1 MiB per message by default
/// (Kafka's `message.max.bytes`, 1,048,588), and a letter fits with all that goes with the value; the rest of a larger
/// value is in the log at its position.
pub const MAX_LETTER_VALUE_BYTES: usize = 900_000;

/// The most bytes of a record's key, and of its headers together, that a dead letter carries: a longer key is cut, more
/// headers are left out. They too are in the log.
pub const MAX_LETTER_KEY_BYTES: usize = 32 << 10;

/// The most bytes of its reason; a longer one is cut.
pub const MAX_LETTER_REASON_BYTES: usize = 1 << 10;

/// What a header takes in a message beside its name and its value.
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

/// Where dead letters go. Delivery is at least once and keyed by (function, position): a store keeps one per key, a topic
/// may hold a letter twice after a crash, and what reads them gives each once.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Keeps the letters, durably: the runner moves the fence past their records only after this returned.
    async fn put(&self, letters: &[DeadLetter]) -> Result<()>;

    /// The letters of a function, or of all, that were kept last, the newest first: at most `limit`, and no more than
    /// [`MAX_LISTED_BYTES`] (but always one). A topic is read from its end and only so far back as its implementation says.
    async fn list(&self, function: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>>;

    /// The letters of the record at `position`: of one function, or of each that could not process it.
    async fn find(&self, function: Option<&str>, position: &Position) -> Result<Vec<DeadLetter>>;

    /// How many letters of a function there are; `None` from a place where all of them would have to be read for it. Called
    /// by the live view of `millstream dev`.
    async fn count(&self, _function: &str) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Tells the position of every letter of a function, in no order and perhaps one of them twice. However many there
    /// are, none is held in memory, and a store does not read their values.
    async fn positions(&self, function: &str, visit: &mut (dyn FnMut(Position) + Send)) -> Result<()>;
}

const FUNCTION: &str = "millstream-function";
const POSITION: &str = "millstream-position";
const TIMESTAMP: &str = "millstream-timestamp";
const KEY: &str = "millstream-key";
const REASON: &str = "millstream-reason";
const VALUE_BYTES: &str = "millstream-value-bytes";
/// What [`VALUE_BYTES`] says of a tombstone.
const NO_VALUE: &str = "none";

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

    /// What it takes in memory, more or less: for limits.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        size_of::<Self>() + length(&self.key) + length(&self.value) + headers + self.reason.len()
    }

    /// The letter as a record of a dead-letter topic: the value and its headers unchanged, all else in further headers, and
    /// the key such that compaction keeps one letter per function and position.
    ///
    /// The letter of a tombstone has an empty value and a header that says so: without a value it would be a tombstone
    /// itself, which deletes the letters of its key and is then deleted.
    pub fn to_record(&self) -> NewRecord {
        let text = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let value_bytes = self.value.as_ref().map_or_else(|| NO_VALUE.to_owned(), |_| self.value_bytes.to_string());
        let mut headers = self.headers.clone();
        headers.extend([
            text(FUNCTION, &self.function),
            text(POSITION, &self.position.to_string()),
            text(TIMESTAMP, &self.timestamp_ms.to_string()),
            text(VALUE_BYTES, &value_bytes),
            text(REASON, &self.reason),
        ]);
        headers.extend(self.key.clone().map(|key| (KEY.to_owned(), key)));
        NewRecord {
            key: Some(format!("{} {}", self.function, self.position).into_bytes()),
            value: Some(self.value.clone().unwrap_or_default()),
            headers,
            timestamp_ms: None,
            partition: None,
        }
    }

    /// Reads a record of a dead-letter topic; `None` when it is not one.
    pub fn from_record<'a>(value: Option<&[u8]>, headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Option<Self> {
        let headers: Vec<_> = headers.collect();
        // What stands before is the record's own, even where the record is a letter itself.
        let (own, ours) = headers.split_at(headers.iter().rposition(|(name, _)| *name == FUNCTION)?);
        let header = |wanted: &str| ours.iter().find(|(name, _)| *name == wanted).map(|(_, bytes)| *bytes);
        let text = |wanted: &str| header(wanted).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let value_bytes = text(VALUE_BYTES);
        let value = value.filter(|_| value_bytes.as_deref() != Some(NO_VALUE));
        Some(Self {
            function: text(FUNCTION)?,
            position: Position::parse(&text(POSITION)?)?,
            timestamp_ms: text(TIMESTAMP).and_then(|text| text.parse().ok()).unwrap_or(-1),
            key: header(KEY).map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: own.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect(),
            value_bytes: value_bytes.and_then(|text| text.parse().ok()).unwrap_or(0),
            reason: text(REASON)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TopicPartition;

    fn letter(value: Option<&[u8]>) -> DeadLetter {
        DeadLetter {
            function: "bank.flow".into(),
            position: TopicPartition::new("transaction", 1, 2).at(7),
            timestamp_ms: 5,
            key: None,
            value: value.map(<[u8]>::to_vec),
            headers: vec![],
            value_bytes: value.map_or(0, <[u8]>::len),
            reason: "no value".into(),
        }
    }

    fn read_back(record: &NewRecord) -> Option<DeadLetter> {
        let headers = record.headers.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        DeadLetter::from_record(record.value.as_deref(), headers)
    }

    /// In a compacted topic a record without a value deletes its key, and is deleted itself.
    #[test]
    fn the_letter_of_a_tombstone_is_none() {
        for value in [None, Some(&b""[..]), Some(b"x")] {
            let record = letter(value).to_record();
            assert!(record.value.is_some(), "{record:?}");
            assert_eq!(read_back(&record), Some(letter(value)));
        }
    }

    /// As letters were written before tombstones had a sign of their own.
    #[test]
    fn a_letter_without_a_value_is_read_too() {
        let mut record = letter(None).to_record();
        record.value = None;
        record.headers.iter_mut().filter(|(name, _)| name == VALUE_BYTES).for_each(|(_, bytes)| *bytes = b"0".to_vec());
        assert_eq!(read_back(&record), Some(letter(None)));
    }

    /// The size of a record in Kafka's format of messages (version 2), with every number at its longest.
    fn message_bytes(record: &NewRecord) -> usize {
        const BATCH: usize = 61;
        const NUMBER: usize = 5;
        let headers = record.headers.iter().map(|(name, value)| 2 * NUMBER + name.len() + value.len());
        let length = |bytes: &Option<Vec<u8>>| NUMBER + bytes.as_ref().map_or(0, Vec::len);
        BATCH + 1 + 10 + 3 * NUMBER + length(&record.key) + length(&record.value) + headers.sum::<usize>()
    }

    #[test]
    fn every_letter_fits_a_topic_with_kafkas_own_limit() {
        let name = "n".repeat(63);
        let partition = TopicPartition::new("t".repeat(249), u32::MAX, i32::MIN);
        let many = 2 << 20;
        for headers in [vec![], vec![(String::new(), vec![]); 5_000], vec![(String::new(), vec![]); 500_000]] {
            let letter = DeadLetter {
                function: format!("{name}.{name}"),
                position: partition.at(i64::MIN),
                timestamp_ms: i64::MIN,
                key: Some(vec![b'k'; many]),
                value: Some(vec![b'v'; many]),
                headers: headers.clone(),
                value_bytes: many,
                reason: "é".repeat(many),
            };
            let cut = letter.cut();
            assert!(message_bytes(&cut.to_record()) < 1_048_588, "{} headers", headers.len());
            assert_eq!(read_back(&cut.to_record()), Some(cut));
        }
        let one = letter(Some(b"x"));
        assert_eq!(one.clone().cut(), one, "what fits is left as it is");
    }

    #[test]
    fn headers_of_a_letter_that_became_a_letter_are_its_own() {
        let mut inner = letter(None);
        inner.key = Some(b"k".to_vec());
        let mut outer = letter(Some(b"x"));
        outer.headers = inner.to_record().headers;
        assert_eq!(read_back(&outer.to_record()), Some(outer));
    }
}
