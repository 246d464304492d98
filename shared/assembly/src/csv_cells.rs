//! CSV cells that know whether they were quoted, which tells the empty string from null.

use std::borrow::Cow;

/// One cell.
#[derive(Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    /// Its text, without the quotes.
    pub text: Cow<'a, str>,
    /// Was it quoted? Then it is a text, even if it is empty.
    pub quoted: bool,
}

/// What follows a cell.
#[derive(PartialEq, Eq)]
enum End {
    Cell,
    Record,
}

/// The records of a CSV text by RFC 4180: their line numbers, from 1, and their cells. Empty lines are skipped. The
/// iterator ends after the first mistake.
pub struct Records<'a> {
    rest: &'a str,
    line: usize,
}

/// The line, and what is wrong in it.
type Mistake = (usize, &'static str);

impl<'a> Records<'a> {
    /// The records of a text, the header first.
    pub fn new(text: &'a str) -> Self {
        Self { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 }
    }

    /// The text that has not been read yet.
    pub fn rest(&self) -> &'a str {
        self.rest
    }

    fn cell(&mut self) -> Result<(Cell<'a>, End), Mistake> {
        let cell = match self.rest.strip_prefix('"') {
            Some(rest) => self.quoted(rest)?,
            None => {
                let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
                let ends_line = !self.rest[end..].starts_with(',');
                let text = &self.rest[..end];
                let text = if ends_line { text.strip_suffix('\r').unwrap_or(text) } else { text };
                self.rest = &self.rest[text.len()..];
                Cell { text: Cow::Borrowed(text), quoted: false }
            }
        };
        Ok((cell, self.end()?))
    }

    /// `rest` begins after the opening quote.
    fn quoted(&mut self, mut rest: &'a str) -> Result<Cell<'a>, Mistake> {
        let (began, mut text) = (self.line, Cow::Borrowed(""));
        loop {
            let end = rest.find('"').ok_or((began, "a quote is not closed"))?;
            self.line += rest[..end].matches('\n').count();
            text += &rest[..end];
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(behind) => {
                    text += "\"";
                    rest = behind;
                }
                None => {
                    self.rest = rest;
                    return Ok(Cell { text, quoted: true });
                }
            }
        }
    }

    fn end(&mut self) -> Result<End, Mistake> {
        if let Some(rest) = self.rest.strip_prefix(',') {
            self.rest = rest;
            return Ok(End::Cell);
        }
        let behind = self.rest.strip_prefix('\r').unwrap_or(self.rest);
        if let Some(rest) = behind.strip_prefix('\n') {
            self.rest = rest;
            self.line += 1;
        } else if behind.is_empty() {
            self.rest = "";
        } else {
            return Err((self.line, "there is text after a closing quote"));
        }
        Ok(End::Record)
    }

    fn skip_empty_lines(&mut self) {
        while let Some(rest) = self.rest.strip_prefix('\n').or_else(|| self.rest.strip_prefix("\r\n")) {
            self.rest = rest;
            self.line += 1;
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(usize, Vec<Cell<'a>>), Mistake>;

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_empty_lines();
        if self.rest.is_empty() {
            return None;
        }
        let (line, mut cells) = (self.line, Vec::new());
        loop {
            match self.cell() {
                Ok((cell, end)) => {
                    cells.push(cell);
                    if end == End::Record {
                        return Some(Ok((line, cells)));
                    }
                }
                Err(mistake) => {
                    self.rest = "";
                    return Some(Err(mistake));
                }
            }
        }
    }
}

/// A value as a cell of a CSV file: quoted if it must be, or if it would read as null.
pub fn cell_of(text: &str) -> Cow<'_, str> {
    if text.is_empty() || text == "null" || text.contains(['"', ',', '\n', '\r']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(usize, Vec<String>)>, Mistake> {
        let shown = |cell: Cell<'_>| if cell.quoted { format!("<{}>", cell.text) } else { cell.text.into_owned() };
        let records: Result<Vec<_>, _> = Records::new(text).collect();
        Ok(records?.into_iter().map(|(line, cells)| (line, cells.into_iter().map(shown).collect())).collect())
    }

    #[test]
    fn cells_are_those_of_rfc_4180() {
        let records = read("\u{feff}a,b\r\n\r\n,\"\"\n\"x\n\"\"y\"\"\",z\r\nlast,").unwrap();
        let expected = [(1, ["a", "b"]), (3, ["", "<>"]), (4, ["<x\n\"y\">", "z"]), (6, ["last", ""])];
        assert_eq!(records, expected.map(|(line, cells)| (line, cells.map(str::to_owned).to_vec())));
        assert_eq!(read("a\n\"b\nc"), Err((2, "a quote is not closed")));
        assert_eq!(read("\"a\"b"), Err((1, "there is text after a closing quote")));
        assert_eq!(read(""), Ok(vec![]));
    }

    #[test]
    fn what_is_written_reads_as_it_was() {
        for text in ["", "null", "a", "a,b", "say \"x\"\r\n"] {
            let line = format!("{},", cell_of(text));
            let (_, cells) = Records::new(&line).next().unwrap().unwrap();
            assert_eq!(cells[0].text, text);
        }
    }
}
