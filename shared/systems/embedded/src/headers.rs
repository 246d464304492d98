//! Headers of a record as bytes of one column.

use millstream_core::Header;

/// Name and bytes in turn, each after its length as 4 bytes, little end first; `None` when there are no headers.
pub(crate) fn headers_to_bytes(headers: &[(String, Vec<u8>)]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    for part in headers.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    Some(bytes)
}

/// Reads what [`headers_to_bytes`] writes, up to the first header that can't be read.
pub(crate) fn headers_from_bytes(mut bytes: &[u8]) -> Vec<Header<'_>> {
    let mut part = || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bytes = rest;
        Some(part)
    };
    std::iter::from_fn(|| Some((std::str::from_utf8(part()?).ok()?, part()?))).collect()
}
