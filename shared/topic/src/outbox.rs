//! Announced records as the values of an outbox's records: one text of bytes, cut into parts of a size that every topic takes.

use millstream_core::NewRecord;

/// The most bytes of one part.
const PART_BYTES: usize = 512 << 10;

/// What a length says that isn't there.
const NONE: u32 = u32::MAX;

/// The parts, in order; at least one.
pub(crate) fn to_parts(records: &[NewRecord]) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    for record in records {
        put_number(&mut bytes, record.partition.unwrap_or(-1));
        bytes.extend(record.timestamp_ms.unwrap_or(i64::MIN).to_le_bytes());
        put(&mut bytes, record.key.as_deref());
        put(&mut bytes, record.value.as_deref());
        put_number(&mut bytes, record.headers.len() as i32);
        for (name, value) in &record.headers {
            put(&mut bytes, Some(name.as_bytes()));
            put(&mut bytes, Some(value));
        }
    }
    bytes.chunks(PART_BYTES).map(<[u8]>::to_vec).collect()
}

/// The records that all parts together hold; `None` for bytes that [`to_parts`] hasn't made.
pub(crate) fn from_parts(mut bytes: &[u8]) -> Option<Vec<NewRecord>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let partition = take_number(&mut bytes)?;
        let (timestamp, rest) = bytes.split_first_chunk()?;
        bytes = rest;
        let (timestamp_ms, key, value) = (i64::from_le_bytes(*timestamp), take(&mut bytes)?, take(&mut bytes)?);
        let headers = (0..take_number(&mut bytes)?).map(|_| {
            let name = String::from_utf8(take(&mut bytes)??).ok()?;
            Some((name, take(&mut bytes)??))
        });
        records.push(NewRecord {
            headers: headers.collect::<Option<_>>()?,
            key,
            value,
            timestamp_ms: Some(timestamp_ms).filter(|timestamp_ms| *timestamp_ms != i64::MIN),
            partition: Some(partition).filter(|partition| *partition >= 0),
        });
    }
    Some(records)
}

fn put_number(bytes: &mut Vec<u8>, number: i32) {
    bytes.extend(number.to_le_bytes());
}

/// A record has far less than 4 GiB.
fn put(bytes: &mut Vec<u8>, value: Option<&[u8]>) {
    bytes.extend(value.map_or(NONE, |value| value.len() as u32).to_le_bytes());
    bytes.extend(value.unwrap_or_default());
}

fn take_number(bytes: &mut &[u8]) -> Option<i32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(i32::from_le_bytes(*number))
}

/// `None` if the bytes end too early; `Some(None)` for what isn't there.
fn take(bytes: &mut &[u8]) -> Option<Option<Vec<u8>>> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = u32::from_le_bytes(*length);
    let (value, rest) = rest.split_at_checked(if length == NONE { 0 } else { length as usize })?;
    *bytes = rest;
    Some((length != NONE).then(|| value.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_from_their_parts() {
        let full = NewRecord {
            key: Some(vec![]),
            value: Some(vec![7; PART_BYTES + 1]),
            headers: vec![("a".into(), vec![]), (String::new(), b"\0\xff".to_vec())],
            timestamp_ms: Some(-1),
            partition: Some(3),
        };
        let records = vec![NewRecord::default(), full.clone(), full];
        let parts = to_parts(&records);
        assert_eq!(parts.len(), 3);
        let bytes = parts.concat();
        assert_eq!(from_parts(&bytes), Some(records));
        assert_eq!(from_parts(&[]), Some(vec![]));
        for cut in [1, 10, 30, bytes.len() - 1] {
            assert_eq!(from_parts(&bytes[..cut]), None, "{cut}");
        }
    }
}
