mod text;

#[cfg(test)]
mod tests;

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

    /// How many bytes it has moved past.
    pub(crate) fn position(&self) -> usize {
        self.at
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
            Some(b't') => self.found_word("true", "true or false"),
            Some(b'f') => self.found_word("false", "true or false"),
            Some(b'n') => self.found_word("null", "null"),
            _ => self.not_json("a value is missing"),
        }
    }

    /// What begins like a literal may be none, such as `nope`.
    fn found_word(&mut self, word: &str, name: &'static str) -> Problem {
        self.word(word).err().unwrap_or(Problem::Found(name))
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
