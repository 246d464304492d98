//! The encoding of AMQP values, as far as an event is taken apart by it. Nothing here goes down into a value, so no event is too
//! deep or too wide: what is not needed is passed over by its length.

/// Splits the first value off, with its constructor; `None` when it is malformed or ends too early.
pub(crate) fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    // A described value is a zero, its descriptor and a value; both may be described again.
    let (mut at, mut values) = (0_usize, 1_usize);
    while values > 0 {
        let code = *bytes.get(at)?;
        at += 1;
        values -= 1;
        if code == 0 {
            values += 2;
        } else {
            at = at.checked_add(data_length(code, bytes.get(at..)?)?)?;
        }
    }
    (at <= bytes.len()).then(|| bytes.split_at(at))
}

/// How many bytes follow a constructor: the first digit of its code says it.
fn data_length(code: u8, data: &[u8]) -> Option<usize> {
    Some(match code >> 4 {
        0x4 => 0,
        0x5 => 1,
        0x6 => 2,
        0x7 => 4,
        0x8 => 8,
        0x9 => 16,
        0xA | 0xC | 0xE => 1 + usize::from(*data.first()?),
        0xB | 0xD | 0xF => 4 + usize::try_from(u32::from_be_bytes(*data.first_chunk()?)).ok()?,
        _ => return None,
    })
}

/// Splits a described value into its descriptor and its value.
pub(crate) fn described(value: &[u8]) -> Option<(&[u8], &[u8])> {
    match value {
        [0, rest @ ..] => split(rest),
        _ => None,
    }
}

/// The code of a value that is not described, and its data: without the length that bytes and texts begin with.
pub(crate) fn data(value: &[u8]) -> Option<(u8, &[u8])> {
    let (code, data) = value.split_first()?;
    Some((
        *code,
        data.get(
            if matches!(code >> 4, 0xA) {
                1
            } else if matches!(code >> 4, 0xB) {
                4
            } else {
                0
            }..,
        )?,
    ))
}

/// The bytes of a binary, a string or a symbol.
pub(crate) fn bytes_of(value: &[u8]) -> Option<&[u8]> {
    match data(value)? {
        (0xA0 | 0xB0 | 0xA1 | 0xB1 | 0xA3 | 0xB3, bytes) => Some(bytes),
        _ => None,
    }
}

/// The keys and the values of a map.
pub(crate) fn entries(map: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let (code, data) = map.split_first()?;
    // Its length in bytes and its count come first; how many there are is told by the bytes.
    let mut rest = match code {
        0xC1 => data.get(2..)?,
        0xD1 => data.get(8..)?,
        _ => return None,
    };
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (key, after) = split(rest)?;
        let (value, after) = split(after)?;
        entries.push((key, value));
        rest = after;
    }
    Some(entries)
}

/// A number of any width, with or without a sign; `None` for one that no `i64` holds.
pub(crate) fn integer(value: &[u8]) -> Option<i64> {
    let (code, data) = data(value)?;
    Some(match (code, data) {
        (0x43 | 0x44, []) => 0,
        (0x50 | 0x52 | 0x53, [byte]) => i64::from(*byte),
        (0x51 | 0x54 | 0x55, [byte]) => i64::from(i8::from_be_bytes([*byte])),
        (0x60, _) => i64::from(u16::from_be_bytes(data.try_into().ok()?)),
        (0x61, _) => i64::from(i16::from_be_bytes(data.try_into().ok()?)),
        (0x70, _) => i64::from(u32::from_be_bytes(data.try_into().ok()?)),
        (0x71, _) => i64::from(i32::from_be_bytes(data.try_into().ok()?)),
        (0x80, _) => i64::try_from(u64::from_be_bytes(data.try_into().ok()?)).ok()?,
        // A timestamp is a number of milliseconds.
        (0x81 | 0x83, _) => i64::from_be_bytes(data.try_into().ok()?),
        _ => return None,
    })
}

/// What people write for a value: bytes and texts are what they are, a described value is the one inside. A list, a map, an array
/// or a decimal is as it is encoded.
pub(crate) fn as_text(mut value: &[u8]) -> Vec<u8> {
    while let Some((_, inner)) = described(value) {
        value = inner;
    }
    if let Some(bytes) = bytes_of(value) {
        return bytes.to_vec();
    }
    if let Some(number) = integer(value) {
        return number.to_string().into_bytes();
    }
    let text = data(value).and_then(|(code, data)| match code {
        0x40 => Some(String::new()),
        0x41 => Some(true.to_string()),
        0x42 => Some(false.to_string()),
        0x56 => Some((data != [0]).to_string()),
        0x72 => Some(f32::from_be_bytes(data.try_into().ok()?).to_string()),
        0x73 => Some(char::from_u32(u32::from_be_bytes(data.try_into().ok()?))?.to_string()),
        0x80 => Some(u64::from_be_bytes(data.try_into().ok()?).to_string()),
        0x82 => Some(f64::from_be_bytes(data.try_into().ok()?).to_string()),
        0x98 => {
            let hex = format!("{:032x}", u128::from_be_bytes(data.try_into().ok()?));
            let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
            Some(parts.join("-"))
        }
        _ => None,
    });
    text.map_or_else(|| value.to_vec(), String::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_apart_by_their_lengths() {
        for (value, rest) in [
            (&[0x40][..], &[1, 2][..]),
            (&[0xA1, 2, b'a', b'b'], &[]),
            (&[0xB0, 0, 0, 0, 1, 7], &[9]),
            // The length and the count of a list, whatever they say of each other.
            (&[0xD0, 0, 0, 0, 1, 0], &[0x40]),
            (&[0, 0x53, 0x77, 0, 0xA3, 1, b'x', 0x40], &[5]),
        ] {
            assert_eq!(split(&[value, rest].concat()), Some((value, rest)));
        }
        let deep = [[0, 0x43].repeat(100_000), vec![0x41]].concat();
        assert_eq!(split(&deep), Some((&deep[..], &[][..])));
        assert_eq!(as_text(&deep), b"true");
        for malformed in [&[][..], &[0], &[0, 0x53], &[0xA1, 3, 1], &[0x01], &[0x81, 0], &[0xB0, 255, 255, 255, 255]] {
            assert_eq!(split(malformed), None, "{malformed:?}");
        }
        assert_eq!(split(&vec![0; 300_000]), None);
    }

    #[test]
    fn values_are_as_people_write_them() {
        let uuid = [
            &[0x98][..],
            &[0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17, 0x40, 0],
        ];
        for (value, text) in [
            (&uuid.concat()[..], "123e4567-e89b-12d3-a456-426614174000"),
            (&[0x55, 0xF9], "-7"),
            (&[0x80, 255, 255, 255, 255, 255, 255, 255, 255], "18446744073709551615"),
            (&[0x72, 0x3F, 0xC0, 0, 0], "1.5"),
            (&[0x73, 0, 1, 0xF6, 0], "😀"),
            (&[0x56, 1], "true"),
            (&[0, 0xA3, 1, b't', 0xA1, 1, b'x'], "x"),
            (&[0x40], ""),
        ] {
            assert_eq!(String::from_utf8(as_text(value)).unwrap(), text);
        }
        assert_eq!(as_text(&[0xC0, 1, 0]), [0xC0, 1, 0], "a list is as it is encoded");
    }
}
