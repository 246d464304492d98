use async_trait::async_trait;

use crate::{NewRecord, Position, Result};

/// The most bytes of a record's value that a dead letter carries. A topic takes some 1 MiB per message by default
/// (Kafka's `message.max.bytes`, 1,048,588); the rest of a larger value is in the log at its position.
pub const MAX_LETTER_VALUE_BYTES: usize = 900_000;

/// The most bytes of a record's key, and of its headers together, that a dead letter carries: a longer key is cut, more
/// headers are left out. They too are in the log.
pub const MAX_LETTER_KEY_BYTES: usize = 32 << 10;

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
    /// Its value; cut to [`MAX_LETTER_VALUE_BYTES`].
    pub value: Option<Vec<u8>>,
    /// Its headers in order; none when they are more than [`MAX_LETTER_KEY_BYTES`].
    pub headers: Vec<(String, Vec<u8>)>,
    /// How many bytes the value had.
    pub value_bytes: usize,
    /// Why, for a person. Never holds the value.
    pub reason: String,
}

/// Where dead letters go. Delivery is at least once and keyed by (function, position): a store keeps one per key, a topic
/// may hold a letter twice after a crash, and [`DeadLetters::list`] gives each once.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Keeps the letters, durably: the runner moves the fence past their records only after this returned.
    async fn put(&self, letters: &[DeadLetter]) -> Result<()>;

    /// The letters of a function, or of all, by position; at most `limit`.
    async fn list(&self, function: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>>;
}

const FUNCTION: &str = "millstream-function";
const POSITION: &str = "millstream-position";
const TIMESTAMP: &str = "millstream-timestamp";
const KEY: &str = "millstream-key";
const REASON: &str = "millstream-reason";
const VALUE_BYTES: &str = "millstream-value-bytes";

impl DeadLetter {
    /// The letter as a record of a dead-letter topic: the value and its headers unchanged, all else in further headers, and
    /// the key such that compaction keeps one letter per function and position.
    pub fn to_record(&self) -> NewRecord {
        let text = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let mut headers = self.headers.clone();
        headers.extend([
            text(FUNCTION, &self.function),
            text(POSITION, &self.position.to_string()),
            text(TIMESTAMP, &self.timestamp_ms.to_string()),
            text(VALUE_BYTES, &self.value_bytes.to_string()),
            text(REASON, &self.reason),
        ]);
        headers.extend(self.key.clone().map(|key| (KEY.to_owned(), key)));
        NewRecord {
            key: Some(format!("{} {}", self.function, self.position).into_bytes()),
            value: self.value.clone(),
            headers,
            timestamp_ms: None,
            partition: None,
        }
    }

    /// Reads a record of a dead-letter topic; `None` when it is not one.
    pub fn from_record<'a>(value: Option<&[u8]>, headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Option<Self> {
        let (mut function, mut position, mut timestamp_ms, mut key, mut reason, mut bytes) =
            (None, None, -1, None, None, 0);
        let mut others = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for (name, value) in headers {
            match name {
                FUNCTION => function = Some(text(value)),
                POSITION => position = Position::parse(&text(value)),
                TIMESTAMP => timestamp_ms = text(value).parse().unwrap_or(-1),
                VALUE_BYTES => bytes = text(value).parse().unwrap_or(0),
                KEY => key = Some(value.to_vec()),
                REASON => reason = Some(text(value)),
                _ => others.push((name.to_owned(), value.to_vec())),
            }
        }
        Some(Self {
            function: function?,
            position: position?,
            timestamp_ms,
            key,
            value: value.map(<[u8]>::to_vec),
            headers: others,
            value_bytes: bytes,
            reason: reason?,
        })
    }
}
