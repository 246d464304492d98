//! An event as a record.

use millstream_core::{BatchBuilder, Error, Result};

use crate::{
    encoding::{as_text, bytes_of, data, described, entries, integer, split},
    message::{KEY, original_name},
};

/// What the service writes on each event.
const SEQUENCE_NUMBER: &str = "x-opt-sequence-number";
const ENQUEUED_TIME: &str = "x-opt-enqueued-time";
const PARTITION_KEY: &str = "x-opt-partition-key";

/// An event that was read.
#[derive(Debug)]
pub(crate) struct Record {
    /// Its sequence number.
    pub offset: i64,
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// Takes an encoded event apart, and no further than it must: whatever a producer has put in, its neighbours are read. What is
    /// no AMQP is a record whose value is all of its bytes. They begin with a zero, so no decoder of text accepts them, and the
    /// record becomes a dead letter.
    ///
    /// # Errors
    /// `Retry` when the service has not numbered it.
    pub fn of(event: &[u8]) -> Result<Self> {
        let mut parts = Parts::default();
        let is_sound = parts.take_all(event).is_some();
        let Some(offset) = parts.offset else {
            return Err(Error::retry(format!("the service sent an event without `{SEQUENCE_NUMBER}`")));
        };
        let timestamp_ms = parts.timestamp_ms.unwrap_or(-1);
        if !is_sound {
            return Ok(Self { offset, timestamp_ms, key: None, value: Some(event.to_vec()), headers: Vec::new() });
        }
        let value = if parts.is_tombstone { None } else { Some(parts.value) };
        Ok(Self { offset, timestamp_ms, key: parts.key, value, headers: parts.headers })
    }

    /// Bytes of key, value and headers, for limits.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        length(&self.key) + length(&self.value) + headers
    }

    /// When the service took it, in milliseconds since 1970.
    pub fn timestamp_ms(&self) -> i64 {
        self.timestamp_ms
    }

    pub fn push_to(&self, builder: &mut BatchBuilder) {
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        builder.push(self.offset, self.timestamp_ms, self.key.as_deref(), self.value.as_deref(), headers);
    }
}

/// What the sections of an event have told.
#[derive(Default)]
struct Parts {
    offset: Option<i64>,
    timestamp_ms: Option<i64>,
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    is_tombstone: bool,
    headers: Vec<(String, Vec<u8>)>,
}

impl Parts {
    /// `None` when a section is malformed; those before it are taken.
    fn take_all(&mut self, event: &[u8]) -> Option<()> {
        let mut rest = event;
        while !rest.is_empty() {
            let (section, after) = split(rest)?;
            rest = after;
            let (descriptor, value) = described(section)?;
            self.take(descriptor, value)?;
        }
        Some(())
    }

    /// The sections that hold nothing for a record are passed over.
    fn take(&mut self, descriptor: &[u8], value: &[u8]) -> Option<()> {
        match (integer(descriptor), bytes_of(descriptor)) {
            (Some(0x72), _) | (_, Some(b"amqp:message-annotations:map")) => self.take_annotations(value),
            (Some(0x74), _) | (_, Some(b"amqp:application-properties:map")) => self.take_properties(value),
            (Some(0x75), _) | (_, Some(b"amqp:data:binary")) => {
                self.value.extend(bytes_of(value)?);
                Some(())
            }
            (Some(0x76 | 0x77), _) | (_, Some(b"amqp:amqp-sequence:list" | b"amqp:amqp-value:*")) => {
                self.take_value(value);
                Some(())
            }
            _ => Some(()),
        }
    }

    fn take_annotations(&mut self, map: &[u8]) -> Option<()> {
        for (name, value) in entries(map)? {
            match bytes_of(name) {
                Some(name) if name == SEQUENCE_NUMBER.as_bytes() => self.offset = integer(value),
                Some(name) if name == ENQUEUED_TIME.as_bytes() => self.timestamp_ms = integer(value),
                Some(name) if name == PARTITION_KEY.as_bytes() => self.key = bytes_of(value).map(<[u8]>::to_vec),
                _ => {}
            }
        }
        Some(())
    }

    fn take_properties(&mut self, map: &[u8]) -> Option<()> {
        for (name, value) in entries(map)? {
            let name = std::str::from_utf8(bytes_of(name)?).ok()?;
            match name {
                KEY => self.key = Some(as_text(value)),
                name => self.headers.push((original_name(name).to_owned(), as_text(value))),
            }
        }
        Some(())
    }

    /// The bytes or the text of a value. One of another kind (a map, a number, a list) is no payload of bytes; its AMQP encoding is
    /// taken for it. No decoder accepts that, so such an event becomes a dead letter, whole, and the others go on.
    fn take_value(&mut self, value: &[u8]) {
        match bytes_of(value) {
            Some(bytes) => self.value.extend(bytes),
            None if data(value) == Some((0x40, &[])) => self.is_tombstone = true,
            None => self.value.extend(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Annotations as the service writes them, with the number 7.
    fn numbered(rest: &[u8]) -> Vec<u8> {
        let name = SEQUENCE_NUMBER.as_bytes();
        let entry = [&[0xA3, name.len() as u8][..], name, &[0x55, 7]].concat();
        [&[0, 0x53, 0x72, 0xC1, entry.len() as u8 + 1, 2][..], &entry, rest].concat()
    }

    fn value_of(event: &[u8]) -> Vec<u8> {
        let record = Record::of(event).unwrap();
        assert_eq!(record.offset, 7);
        record.value.unwrap()
    }

    #[test]
    fn a_property_that_is_a_list_is_as_it_is_encoded() {
        let properties = [0, 0x53, 0x74, 0xC1, 9, 2, 0xA1, 1, b'a', 0xC0, 3, 1, 0x54, 5];
        let event = numbered(&[&properties[..], &[0, 0x53, 0x75, 0xA0, 1, b'x']].concat());
        let record = Record::of(&event).unwrap();
        assert_eq!(record.headers, [("a".to_owned(), vec![0xC0, 3, 1, 0x54, 5])]);
        assert_eq!(record.value.unwrap(), b"x");
    }

    #[test]
    fn what_is_no_amqp_is_a_record_that_nobody_can_decode() {
        for rest in [
            &[0, 0x53, 0x75, 0xA0, 9, 1][..], // ends too early
            &[0, 0x53, 0x77, 0x01],           // no type
            &[0, 0x53, 0x74, 0xC1, 3, 2, 0xA1, 9, b'a'],
            &[0, 0x53, 0x75, 0x54, 1], // a number for bytes
            &[1],
        ] {
            let event = numbered(rest);
            assert_eq!(value_of(&event), event);
        }
        assert!(Record::of(&[0, 0x53, 0x75, 0xA0, 0]).unwrap_err().is_retry());
    }

    #[test]
    fn nothing_is_too_deep_or_too_wide() {
        // Lists in lists: each has its length, its count, and the next.
        let deep: Vec<u8> = (0..50_000_u32)
            .flat_map(|level| [&[0xD0][..], &((49_999 - level) * 9 + 4).to_be_bytes(), &1_u32.to_be_bytes()].concat())
            .collect();
        let wide = [&[0xD0][..], &70_004_u32.to_be_bytes(), &70_000_u32.to_be_bytes(), &[0x40; 70_000]].concat();
        // Its length is smaller than its own count.
        let short = vec![0xD0, 0, 0, 0, 0];
        for value in [deep, wide, short] {
            let event = numbered(&[&[0, 0x53, 0x77][..], &value].concat());
            assert_eq!(value_of(&event), value);
        }
    }
}
