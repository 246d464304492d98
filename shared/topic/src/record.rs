//! A dead letter as a record of a topic.

use millstream_core::{DeadLetter, NewRecord, Position};

const FUNCTION: &str = "millstream-function";
const POSITION: &str = "millstream-position";
const TIMESTAMP: &str = "millstream-timestamp";
const KEY: &str = "millstream-key";
const REASON: &str = "millstream-reason";
const VALUE_BYTES: &str = "millstream-value-bytes";
/// What [`VALUE_BYTES`] says of a tombstone.
const NO_VALUE: &str = "none";

/// The letter as a record of a dead-letter topic: the value and its headers unchanged, everything else in further headers,
/// and a key that makes compaction keep one letter per function and position.
///
/// The letter of a tombstone has an empty value and a header that says so. Without a value, it would be a tombstone
/// itself: it would delete the letters of its key, and be deleted in turn.
pub(crate) fn letter_to_record(letter: &DeadLetter) -> NewRecord {
    let text = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let value_bytes = letter.value.as_ref().map_or_else(|| NO_VALUE.to_owned(), |_| letter.value_bytes.to_string());
    let mut headers = letter.headers.clone();
    headers.extend([
        text(FUNCTION, &letter.function),
        text(POSITION, &letter.position.to_string()),
        text(TIMESTAMP, &letter.timestamp_ms.to_string()),
        text(VALUE_BYTES, &value_bytes),
        text(REASON, &letter.reason),
    ]);
    headers.extend(letter.key.clone().map(|key| (KEY.to_owned(), key)));
    NewRecord {
        key: Some(key(&letter.function, &letter.position)),
        value: Some(letter.value.clone().unwrap_or_default()),
        headers,
        timestamp_ms: None,
        partition: None,
    }
}

/// The record that removes a letter: a tombstone of its key.
pub(crate) fn removal(function: &str, position: &Position) -> NewRecord {
    NewRecord { key: Some(key(function, position)), ..NewRecord::default() }
}

/// Whose letter of which record such a tombstone removes; `None` when the key isn't a letter's.
pub(crate) fn removed(key: &[u8]) -> Option<(String, Position)> {
    let (function, position) = std::str::from_utf8(key).ok()?.split_once(' ')?;
    Some((function.to_owned(), Position::parse(position)?))
}

fn key(function: &str, position: &Position) -> Vec<u8> {
    format!("{function} {position}").into_bytes()
}

/// Reads a record of a dead-letter topic; `None` when it isn't a letter.
pub(crate) fn letter_from_record<'a>(
    value: Option<&[u8]>,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Option<DeadLetter> {
    let headers: Vec<_> = headers.collect();
    // The headers up to there are the dead record's own, even if that record is itself a letter.
    let (own, ours) = headers.split_at(headers.iter().rposition(|(name, _)| *name == FUNCTION)?);
    let header = |wanted: &str| ours.iter().find(|(name, _)| *name == wanted).map(|(_, bytes)| *bytes);
    let text = |wanted: &str| header(wanted).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let value_bytes = text(VALUE_BYTES);
    let value = value.filter(|_| value_bytes.as_deref() != Some(NO_VALUE));
    Some(DeadLetter {
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

#[cfg(test)]
mod tests {
    use millstream_core::TopicPartition;

    use super::*;

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
        letter_from_record(record.value.as_deref(), headers)
    }

    /// In a compacted topic a record without a value deletes its key, and is deleted itself.
    #[test]
    fn the_letter_of_a_tombstone_is_none() {
        for value in [None, Some(&b""[..]), Some(b"x")] {
            let record = letter_to_record(&letter(value));
            assert!(record.value.is_some(), "{record:?}");
            assert_eq!(read_back(&record), Some(letter(value)));
        }
    }

    /// As letters were written before tombstones had a sign of their own.
    #[test]
    fn a_letter_without_a_value_is_read_too() {
        let mut record = letter_to_record(&letter(None));
        record.value = None;
        record.headers.iter_mut().filter(|(name, _)| name == VALUE_BYTES).for_each(|(_, bytes)| *bytes = b"0".to_vec());
        assert_eq!(read_back(&record), Some(letter(None)));
    }

    #[test]
    fn a_removal_names_its_letter() {
        let (of, record) = (letter(Some(b"x")), removal("bank.flow", &letter(None).position));
        assert_eq!((&record.key, &record.value), (&letter_to_record(&of).key, &None));
        assert_eq!(removed(record.key.as_deref().unwrap()), Some((of.function, of.position)));
        assert_eq!(read_back(&record), None);
        assert_eq!((removed(b"\xff"), removed(b"x"), removed(b"x y")), (None, None, None));
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
            assert!(message_bytes(&letter_to_record(&cut)) < 1_048_588, "{} headers", headers.len());
            assert_eq!(read_back(&letter_to_record(&cut)), Some(cut));
        }
        let one = letter(Some(b"x"));
        assert_eq!(one.clone().cut(), one, "what fits is left as it is");
    }

    #[test]
    fn headers_of_a_letter_that_became_a_letter_are_its_own() {
        let mut inner = letter(None);
        inner.key = Some(b"k".to_vec());
        let mut outer = letter(Some(b"x"));
        outer.headers = letter_to_record(&inner).headers;
        assert_eq!(read_back(&letter_to_record(&outer)), Some(outer));
    }
}
