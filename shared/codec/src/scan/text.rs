//! Strings.

use std::borrow::Cow;

use super::{Result, Scanner};
use crate::problem::Problem;

impl<'a> Scanner<'a> {
    /// Reads the string that starts here; borrowed if it has no escape.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>> {
        let start = self.at + 1;
        let end = start + plain(&self.text.as_bytes()[start..]);
        if self.text.as_bytes().get(end) == Some(&b'"') {
            self.at = end + 1;
            // Quotes are ASCII, so both ends are character boundaries.
            return Ok(Cow::Borrowed(&self.text[start..end]));
        }
        self.escaped(start).map(Cow::Owned)
    }

    /// The rest of [`Scanner::string`], for a string with an escape or an error.
    #[cold]
    fn escaped(&mut self, start: usize) -> Result<String> {
        let mut out = String::new();
        self.at = start;
        loop {
            let run = self.at;
            self.at += plain(&self.text.as_bytes()[run..]);
            out.push_str(&self.text[run..self.at]);
            match self.text.as_bytes().get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                _ => return Err(self.not_json("a control character in a string")),
            }
        }
    }

    /// Reads one escape sequence, from its backslash on.
    fn escape(&mut self) -> Result<char> {
        let kind = self.text.as_bytes().get(self.at + 1).copied();
        let plain = match kind {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            Some(_) => return Err(self.not_json("an unknown escape")),
            None => {
                self.at = self.text.len();
                return Err(self.not_json("an unknown escape"));
            }
        };
        self.at += 2;
        Ok(plain)
    }

    /// Reads `\uXXXX`, or both halves of a surrogate pair.
    fn unicode(&mut self) -> Result<char> {
        let (first_at, first) = (self.at, self.unit()?);
        let code = match first {
            0xD800..=0xDBFF if self.text.as_bytes()[self.at..].starts_with(b"\\u") => match self.unit()? {
                second @ 0xDC00..=0xDFFF => 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00),
                _ => first,
            },
            _ => first,
        };
        char::from_u32(code).ok_or(Problem::NotJson { what: "half a surrogate pair", at: first_at })
    }

    /// Reads one `\uXXXX`.
    fn unit(&mut self) -> Result<u32> {
        let bytes = self.text.as_bytes();
        let digits = bytes
            .get(self.at + 2..self.at + 6)
            .ok_or(Problem::NotJson { what: "it ends too early", at: bytes.len() })?;
        let mut unit = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16).ok_or_else(|| self.not_json("not four hexadecimal digits"))?;
            unit = unit * 16 + digit;
        }
        self.at += 6;
        Ok(unit)
    }
}

/// How many bytes come before the first quote, backslash or control character. It checks eight bytes at a time, by the
/// carry of a subtraction ("Determine if a word has a byte less than n", Anderson, Bit Twiddling Hacks). Carries only
/// move upwards, so the lowest hit is exact.
#[inline]
pub(super) fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES * 0x80;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*eight);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let hits = quote | backslash | below(word, 0x20);
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = &bytes[at..];
    at + rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len())
}
