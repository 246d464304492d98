use std::borrow::Cow;

use crate::{MAX_DEPTH, MAX_LIST_ITEMS, problem::Problem};

type Result<T, E = Problem> = std::result::Result<T, E>;

/// The parts of a JSON number (RFC 8259, section 6).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number<'a> {
    /// The whole number.
    pub(crate) text: &'a str,
    /// Does it start with a minus?
    pub(crate) negative: bool,
    /// The digits before the decimal point.
    pub(crate) whole: &'a str,
    /// The digits after the decimal point; may be empty.
    pub(crate) fraction: &'a str,
    /// The exponent after `e`, with its sign; may be empty.
    pub(crate) exponent: &'a str,
}

/// Reads ONE JSON value from a text, strictly by RFC 8259. Each method expects its kind of value next, and moves past
/// it.
///
/// Recursion is bounded by [`MAX_DEPTH`]; time is linear in the text.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    items: usize,
    /// The number of list items that the reader has kept.
    pub(crate) kept_items: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, items: 0, kept_items: 0 }
    }

    /// The next byte that isn't white space, without moving past it.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Fails unless only white space is left.
    #[inline]
    pub(crate) fn end(&mut self) -> Result<()> {
        if self.peek().is_some() { Err(self.not_json("something follows the value")) } else { Ok(()) }
    }

    /// The problem for a caller that can't use the next value: its JSON type, or that it isn't JSON.
    #[cold]
    pub(crate) fn mismatch(&mut self) -> Problem {
        match self.peek() {
            Some(b'"') => Problem::Found("a string"),
            Some(b'-' | b'0'..=b'9') => Problem::Found("a number"),
            Some(b'{') => Problem::Found("an object"),
            Some(b'[') => Problem::Found("a list"),
            Some(b't' | b'f') => Problem::Found("true or false"),
            Some(b'n') => Problem::Found("null"),
            _ => self.not_json("a value is missing"),
        }
    }

    #[cold]
    fn not_json(&self, what: &'static str) -> Problem {
        if self.at >= self.text.len() {
            return Problem::NotJson { what: "it ends too early", at: self.text.len() };
        }
        Problem::NotJson { what, at: self.at }
    }

    /// Moves past a literal: `null`, `true` or `false`.
    #[inline]
    pub(crate) fn word(&mut self, word: &str) -> Result<()> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.not_json("an unknown word"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Reads the number that starts here.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<Number<'a>> {
        let (bytes, start) = (self.text.as_bytes(), self.at);
        let negative = bytes.get(start) == Some(&b'-');
        let whole = start + usize::from(negative);
        self.at = match bytes.get(whole) {
            // A leading zero must be the only digit: the caller fails at a digit after it.
            Some(b'0') => whole + 1,
            _ => self.digits(whole)?,
        };
        let whole = &self.text[whole..self.at];
        let mut fraction = "";
        if bytes.get(self.at) == Some(&b'.') {
            let first = self.at + 1;
            self.at = self.digits(first)?;
            fraction = &self.text[first..self.at];
        }
        let mut exponent = "";
        if let Some(b'e' | b'E') = bytes.get(self.at) {
            let first = self.at + 1;
            self.at = self.digits(first + usize::from(matches!(bytes.get(first), Some(b'+' | b'-'))))?;
            exponent = &self.text[first..self.at];
        }
        Ok(Number { text: &self.text[start..self.at], negative, whole, fraction, exponent })
    }

    /// The position after the digits at `from`; there must be at least one.
    #[inline]
    fn digits(&mut self, from: usize) -> Result<usize> {
        let bytes = self.text.as_bytes();
        let mut end = from;
        while bytes.get(end).is_some_and(u8::is_ascii_digit) {
            end += 1;
        }
        if end == from {
            self.at = from;
            return Err(self.not_json("a digit is missing"));
        }
        Ok(end)
    }

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

    /// Reads the object that starts here: `member` gets each name and must read its value.
    #[inline]
    pub(crate) fn object(&mut self, mut member: impl FnMut(&mut Self, &str) -> Result<()>) -> Result<()> {
        self.open()?;
        if self.peek() == Some(b'}') {
            self.close();
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.not_json("a field's name is missing"));
            }
            let name = self.string()?;
            if self.peek() != Some(b':') {
                return Err(self.not_json("a colon is missing"));
            }
            self.at += 1;
            member(self, &name)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.close();
                    return Ok(());
                }
                _ => return Err(self.not_json("a comma or a closing brace is missing")),
            }
        }
    }

    /// Reads the list that starts here: `item` must read each of its values.
    #[inline]
    pub(crate) fn list(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.open()?;
        if self.peek() == Some(b']') {
            self.close();
            return Ok(());
        }
        loop {
            self.items += 1;
            if self.items > MAX_LIST_ITEMS {
                return Err(Problem::Limit(format!("more than {MAX_LIST_ITEMS} items in its lists")));
            }
            item(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.close();
                    return Ok(());
                }
                _ => return Err(self.not_json("a comma or a closing bracket is missing")),
            }
        }
    }

    fn open(&mut self) -> Result<()> {
        if self.depth == MAX_DEPTH {
            return Err(Problem::Limit(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.at += 1;
    }

    /// Moves past any value, which must be valid JSON.
    pub(crate) fn skip(&mut self) -> Result<()> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            Some(b'{') => self.object(|json, _| json.skip()),
            Some(b'[') => self.list(Self::skip),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => Err(self.not_json("a value is missing")),
        }
    }
}

/// How many bytes come before the first quote, backslash or control character. It checks eight bytes at a time, by the
/// carry of a subtraction ("Determine if a word has a byte less than n", Anderson, Bit Twiddling Hacks). Carries only
/// move upwards, so the lowest hit is exact.
#[inline]
fn plain(bytes: &[u8]) -> usize {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &str) -> bool {
        let mut json = Scanner::new(text);
        json.skip().and_then(|()| json.end()).is_ok()
    }

    #[test]
    fn only_valid_json_is_accepted() {
        for good in [
            "null",
            " true ",
            "false",
            "0",
            "-0",
            "12",
            "-1.50",
            "1e5",
            "1E+5",
            "2.5e-7",
            "\"\"",
            "\"a\"",
            "[]",
            "[1, 2]",
            "{}",
            "{\"a\":1, \"b\":[{}]}",
            "\t[\r\n1 ]",
            r#""\u00e9\ud83d\ude00\n\/""#,
            "\"längst mehr als acht Zeichen 😀\"",
        ] {
            assert!(accepts(good), "{good}");
            assert!(serde_json::from_str::<serde_json::Value>(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            " ",
            "nul",
            "nulll",
            "True",
            "01",
            "-",
            "+1",
            "1.",
            ".5",
            "1e",
            "1e+",
            "0x1",
            "NaN",
            "Infinity",
            "-inf",
            "\"",
            "\"a",
            "'a'",
            r#""\x""#,
            r#""\u12"#,
            r#""\u12g4""#,
            r#""\ud800""#,
            r#""\ud800\u0041""#,
            r#""\udc00""#,
            "\"tab\there\"",
            "\"a line\nbreak in a string\"",
            "\"\\",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "]",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,}",
            "{,\"a\":1}",
            "{a:1}",
            "{\"a\" 1}",
            "{\"a\":1 \"b\":2}",
            "1 2",
            "{}{}",
            "{\"a\":1}}",
            "/* c */ 1",
            "\u{feff}1",
        ] {
            assert!(!accepts(bad), "{bad}");
        }
    }

    #[test]
    fn escapes_are_read() {
        let read = |text| Scanner::new(text).string().unwrap().into_owned();
        assert_eq!(read(r#""a\"b\\c\/d\b\f\n\r\te\u00e9\ud83d\ude00f""#), "a\"b\\c/d\u{8}\u{c}\n\r\teé😀f");
        assert_eq!(read("\"0123456789 plain\""), "0123456789 plain");
    }

    #[test]
    fn the_end_of_plain_text_is_found_at_any_position() {
        for length in 0..40 {
            for stop in [b'"', b'\\', 0, 9, 0x1f] {
                let mut text = "é~ \u{7f}😀!#[]".repeat(8).into_bytes()[..length].to_vec();
                assert_eq!(plain(&text), length);
                text.push(stop);
                text.extend_from_slice(b"\"\\\0rest");
                assert_eq!(plain(&text), length, "{stop}");
            }
        }
    }

    #[test]
    fn depth_and_items_are_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(accepts(&nested(MAX_DEPTH)));
        assert!(!accepts(&nested(MAX_DEPTH + 1)));
        assert!(!accepts(&"{\"a\":".repeat(100_000)));
        let items = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
        assert!(accepts(&items(MAX_LIST_ITEMS)));
        assert!(!accepts(&items(MAX_LIST_ITEMS + 1)));
    }

    proptest! {
        #[test]
        fn the_scanner_agrees_with_serde_json(text in r#"([\[\]{}",:0-9.eEu+ -]|\\|\\u[d0][8c0]00|"[a\\"]*"|true|null|[é"]){0,20}"#) {
            match serde_json::from_str::<serde_json::Value>(&text) {
                // Only serde_json's number type is too small; the text is valid.
                Err(error) if error.to_string().contains("number out of range") => {}
                answer => prop_assert_eq!(accepts(&text), answer.is_ok(), "{}: {:?}", text, answer),
            }
        }
    }
}
