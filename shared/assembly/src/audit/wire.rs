//! Encoded rows as bytes of a temporary file.

use std::io::Read;

use super::encoder::{Encoded, Number};

/// Appends a row.
pub(super) fn write(out: &mut Vec<u8>, row: &Encoded) {
    for bytes in [&row.key, &row.exact] {
        out.extend((bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
    }
    out.extend((row.numbers.len() as u64).to_le_bytes());
    for number in &row.numbers {
        for part in [number.value, number.rounding] {
            out.push(u8::from(part.is_some()));
            out.extend(part.unwrap_or_default().to_le_bytes());
        }
    }
}

/// The next row; `None` at the end.
pub(super) fn read(from: &mut dyn Read) -> std::io::Result<Option<Encoded>> {
    let mut length = [0; 8];
    if from.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..])?;
    let mut bytes = |length: [u8; 8]| {
        let mut bytes = vec![0; u64::from_le_bytes(length) as usize];
        from.read_exact(&mut bytes).map(|()| bytes.into_boxed_slice())
    };
    let key = bytes(length)?;
    from.read_exact(&mut length)?;
    let mut exact = vec![0; u64::from_le_bytes(length) as usize];
    from.read_exact(&mut exact)?;
    from.read_exact(&mut length)?;
    let mut numbers = Vec::new();
    for _ in 0..u64::from_le_bytes(length) {
        let mut part = || -> std::io::Result<Option<f64>> {
            let (mut is_there, mut value) = ([0; 1], [0; 8]);
            from.read_exact(&mut is_there)?;
            from.read_exact(&mut value)?;
            Ok((is_there[0] == 1).then(|| f64::from_le_bytes(value)))
        };
        let (value, rounding) = (part()?, part()?);
        numbers.push(Number { value, rounding });
    }
    Ok(Some(Encoded { key, exact: exact.into(), numbers }))
}
