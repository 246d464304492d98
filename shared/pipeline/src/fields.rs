//! Reading a mapping's fields, with the same wording for the same mistake everywhere.

use crate::{
    diagnostic::{Mark, Report, allowed, nearest},
    node::{Entry, Node, Value},
};

/// A mapping whose fields are known: unknown, duplicate and empty ones have been reported when it was opened.
pub(crate) struct Fields<'a> {
    /// What it is, for messages: "function `flow`".
    pub place: String,
    /// Where a missing field is reported.
    pub mark: Mark,
    entries: Vec<&'a Entry>,
    /// Fields that are absent because of a mistake that has been reported: empty or misspelt.
    excused: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    /// `mark` is where the thing itself is named; none when `node` is no mapping.
    pub fn open(node: &'a Node, mark: Mark, place: String, names: &[&'a str], report: &mut Report) -> Option<Self> {
        let entries = entries(node, &place, report)?;
        let (mut known, mut excused) = (Vec::new(), Vec::new());
        for entry in entries {
            if !names.contains(&entry.key.as_str()) {
                let allowed = allowed(&entry.key, names.iter().copied());
                report.at(entry.mark, format!("unknown field `{}` in {place}{allowed}", entry.key));
                excused.extend(nearest(&entry.key, names));
            } else if matches!(entry.node.value, Value::Null) {
                report.at(entry.mark, format!("`{}` in {place} is empty; give it a value or leave it out", entry.key));
                excused.push(&entry.key);
            } else {
                known.push(entry);
            }
        }
        Some(Self { place, mark, entries: known, excused })
    }

    /// The field, if it is there.
    pub fn get(&self, name: &str) -> Option<&'a Node> {
        self.entry(name).map(|entry| &entry.node)
    }

    /// The field with its name's place, if it is there.
    pub fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == name).copied()
    }

    /// The field; its absence is reported with a `hint` at what to write.
    pub fn require(&self, name: &str, hint: &str, report: &mut Report) -> Option<&'a Node> {
        let found = self.get(name);
        if found.is_none() && !self.excused.contains(&name) {
            report.at(self.mark, format!("{} needs `{name}`: {hint}", self.place));
        }
        found
    }

    /// Reports each of `names` that is there, because `reason`.
    pub fn refuse(&self, names: &[&str], reason: &str, report: &mut Report) {
        for entry in self.entries.iter().filter(|entry| names.contains(&entry.key.as_str())) {
            report.at(entry.mark, format!("`{}` in {} has no meaning: {reason}", entry.key, self.place));
        }
    }

    /// "`from` in function `flow`", for messages.
    pub fn what(&self, name: &str) -> String {
        format!("`{name}` in {}", self.place)
    }

    /// A text field, if it is there and is text.
    pub fn text(&self, name: &str, report: &mut Report) -> Option<String> {
        text(self.get(name)?, &self.what(name), report)
    }

    /// One of the named values, or the default when it is absent (or wrong, and reported).
    pub fn choice<T: Copy + Default>(&self, name: &str, choices: &[(&str, T)], report: &mut Report) -> T {
        self.get(name).and_then(|node| choice(node, &self.what(name), choices, report)).unwrap_or_default()
    }

    /// A whole number within `range`, if it is there.
    pub fn integer(&self, name: &str, range: std::ops::RangeInclusive<i64>, report: &mut Report) -> Option<i64> {
        integer(self.get(name)?, &self.what(name), range, report)
    }

    /// A length of time in milliseconds, at most `max_ms`, if it is there.
    pub fn duration_ms(&self, name: &str, max_ms: i64, report: &mut Report) -> Option<i64> {
        let node = self.get(name)?;
        let given = node.scalar().unwrap_or_default();
        let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        match with_unit(&given, &units).filter(|ms| (0..=max_ms).contains(ms)) {
            Some(ms) => Some(ms),
            None => {
                let most = readable_ms(max_ms);
                let what = self.what(name);
                report.at(
                    node.mark,
                    format!("{what} must be a length of time of at most {most}: a number and ms, s, m, h or d, such as `10s`; it is {}", shown(node)),
                );
                None
            }
        }
    }

    /// A size in bytes within `range`, if it is there.
    pub fn bytes(&self, name: &str, range: std::ops::RangeInclusive<i64>, report: &mut Report) -> Option<i64> {
        let node = self.get(name)?;
        let given = node.scalar().unwrap_or_default();
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1), ("", 1)];
        match with_unit(&given, &units).filter(|bytes| range.contains(bytes)) {
            Some(bytes) => Some(bytes),
            None => {
                let (what, start, end) = (self.what(name), range.start(), range.end());
                report.at(
                    node.mark,
                    format!("{what} must be a size from {start} to {end} bytes: a number, alone or with KiB, MiB or GiB, such as `16MiB`; it is {}", shown(node)),
                );
                None
            }
        }
    }
}

/// The entries of a mapping without duplicates, which are reported; none when it is no mapping.
pub(crate) fn entries<'a>(node: &'a Node, place: &str, report: &mut Report) -> Option<Vec<&'a Entry>> {
    let Value::Map(entries) = &node.value else {
        report.at(node.mark, format!("{place} must be a mapping (`field: value`); it is {}", node.kind()));
        return None;
    };
    let mut unique: Vec<&Entry> = Vec::new();
    for entry in entries {
        match unique.iter().find(|other| other.key == entry.key) {
            Some(first) => {
                let line = first.mark.line;
                report
                    .at(entry.mark, format!("`{}` is given twice in {place}; the first is in line {line}", entry.key));
            }
            None => unique.push(entry),
        }
    }
    Some(unique)
}

/// A text; numbers and booleans must be quoted to be one.
pub(crate) fn text(node: &Node, what: &str, report: &mut Report) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        _ => {
            report.at(node.mark, format!("{what} must be text; it is {}", shown(node)));
            None
        }
    }
}

/// One of the named values.
pub(crate) fn choice<T: Copy>(node: &Node, what: &str, choices: &[(&str, T)], report: &mut Report) -> Option<T> {
    let given = node.scalar();
    let found = given.as_deref().and_then(|given| choices.iter().find(|(name, _)| *name == given));
    if found.is_none() {
        let allowed = allowed(given.as_deref().unwrap_or_default(), choices.iter().map(|(name, _)| *name));
        report.at(node.mark, format!("{what} can't be {}{allowed}", shown(node)));
    }
    found.map(|(_, value)| *value)
}

/// A whole number within `range`.
pub(crate) fn integer(
    node: &Node,
    what: &str,
    range: std::ops::RangeInclusive<i64>,
    report: &mut Report,
) -> Option<i64> {
    let number = match &node.value {
        Value::Number(number) => number.parse().ok().filter(|number| range.contains(number)),
        _ => None,
    };
    if number.is_none() {
        let (start, end) = (range.start(), range.end());
        report.at(node.mark, format!("{what} must be a whole number from {start} to {end}; it is {}", shown(node)));
    }
    number
}

/// Is it a lower-case name that needs no quotes in any SQL: `[a-z_][a-z0-9_]{0,62}` (PostgreSQL keeps 63 bytes)?
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// What [`is_name`] asks for, in words.
pub(crate) const NAME_RULE: &str = "up to 63 lower-case letters, digits and underscores that don't begin with a digit";

/// A value for a message: short scalars as they are, anything else by its kind. Never a long text: a secret pasted into
/// the wrong field should not end up in a log.
pub(crate) fn shown(node: &Node) -> String {
    match node.scalar() {
        Some(text) if text.chars().count() <= 40 => format!("`{}`", text.escape_debug()),
        _ => node.kind().to_owned(),
    }
}

/// `10s` by a table of units; a whole number without sign or fraction. The first unit that ends the text counts.
fn with_unit(text: &str, units: &[(&str, i64)]) -> Option<i64> {
    let (number, factor) = units.iter().find_map(|(unit, factor)| {
        let number = text.strip_suffix(unit)?.trim_end();
        number.ends_with(|last: char| last.is_ascii_digit()).then_some((number, factor))
    })?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<i64>().ok()?.checked_mul(*factor)
}

fn readable_ms(ms: i64) -> String {
    [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")]
        .iter()
        .find(|(factor, _)| ms % factor == 0)
        .map_or_else(|| format!("{ms}ms"), |(factor, unit)| format!("{}{unit}", ms / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_needed_and_counted() {
        let units = [("ms", 1), ("s", 1_000), ("m", 60_000)];
        for (text, expected) in [
            ("100ms", Some(100)),
            ("10s", Some(10_000)),
            ("10 s", Some(10_000)),
            ("2m", Some(120_000)),
            ("10", None),
            ("-1s", None),
            ("1.5s", None),
            ("s", None),
            ("", None),
            ("99999999999999999999s", None),
            ("9999999999999999s", None),
        ] {
            assert_eq!(with_unit(text, &units), expected, "{text}");
        }
        assert_eq!((readable_ms(86_400_000), readable_ms(90_000)), ("1d".into(), "90s".into()));
    }

    #[test]
    fn names_are_what_every_sql_reads_without_quotes() {
        for good in ["a", "_x", "transaction_flow", "t2"] {
            assert!(is_name(good), "{good}");
        }
        let long = "x".repeat(64);
        for bad in ["", "2t", "Flow", "a-b", "a.b", "é", long.as_str()] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
