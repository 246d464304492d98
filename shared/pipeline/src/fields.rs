//! Reading a mapping's fields, with the same wording for the same mistake everywhere.

use std::ops::RangeInclusive;

use crate::{
    diagnostic::{Mark, Report, find_nearest, list_allowed},
    node::{Entry, Node, Value},
    shape::{Mapping, Shape},
};

/// A mapping with known fields, as the file has it. Opening it reports unknown, duplicate and empty fields.
pub(crate) struct Fields<'a> {
    /// What it is, for messages: "function `flow`".
    pub place: String,
    /// Where a missing field is reported.
    pub mark: Mark,
    mapping: &'static Mapping,
    entries: Vec<&'a Entry>,
    /// Fields that are missing because of a mistake that has been reported: empty or misspelt.
    excused: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    /// Opens `node`, which should be a `mapping`; `mark` is where the thing itself is named. None when `node` isn't a
    /// mapping at all.
    pub fn open(
        node: &'a Node,
        mark: Mark,
        place: String,
        mapping: &'static Mapping,
        report: &mut Report,
    ) -> Option<Self> {
        let entries = read_entries(node, &place, report)?;
        let names = mapping.names();
        let (mut known, mut excused) = (Vec::new(), Vec::new());
        for entry in entries {
            if !names.contains(&entry.key.as_str()) {
                let allowed = list_allowed(&entry.key, names.iter().copied());
                report.at(entry.mark, format!("unknown field `{}` in {place}{allowed}", entry.key));
                excused.extend(find_nearest(&entry.key, &names));
            } else if matches!(entry.node.value, Value::Null) {
                report.at(entry.mark, format!("`{}` in {place} is empty; give it a value or leave it out", entry.key));
                excused.push(&entry.key);
            } else {
                known.push(entry);
            }
        }
        Some(Self { place, mark, mapping, entries: known, excused })
    }

    /// The names of the fields that are there.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.entries.iter().map(|entry| entry.key.as_str())
    }

    /// The field, if it is there.
    pub fn get(&self, name: &str) -> Option<&'a Node> {
        self.entry(name).map(|entry| &entry.node)
    }

    /// The field with its name's place, if it is there.
    pub fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == name).copied()
    }

    /// The field; that it is missing is reported, with a `hint` at what to write.
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
    pub fn label(&self, name: &str) -> String {
        format!("`{name}` in {}", self.place)
    }

    /// A text field, if it is there and is text.
    pub fn text(&self, name: &str, report: &mut Report) -> Option<String> {
        text(self.get(name)?, &self.label(name), report)
    }

    /// One of the named values, or the default when it is absent (or wrong, and reported).
    pub fn choice<T: Copy + Default>(&self, name: &str, choices: &[(&str, T)], report: &mut Report) -> T {
        self.get(name).and_then(|node| choice(node, &self.label(name), choices, report)).unwrap_or_default()
    }

    /// A whole number in the field's range, if it is there.
    pub fn integer(&self, name: &str, report: &mut Report) -> Option<i64> {
        integer(self.get(name)?, &self.label(name), &self.range(name), report)
    }

    /// `true` or `false`; `false` when it is absent (or wrong, and reported).
    pub fn boolean(&self, name: &str, report: &mut Report) -> bool {
        self.choice(name, &[("true", true), ("false", false)], report)
    }

    /// The range of a field that is a number, a length of time or a size.
    fn range(&self, name: &str) -> RangeInclusive<i64> {
        match self.mapping.find(name).map(|field| &field.shape) {
            Some(Shape::Integer(range) | Shape::Duration(range) | Shape::Bytes(range)) => range.clone(),
            _ => {
                debug_assert!(false, "`{name}` has no range");
                i64::MIN..=i64::MAX
            }
        }
    }

    /// A length of time in milliseconds, in the field's range, if it is there.
    pub fn duration_ms(&self, name: &str, report: &mut Report) -> Option<i64> {
        let node = self.get(name)?;
        let range = self.range(name);
        let given = node.scalar().unwrap_or_default();
        let read = duration_ms(&given).filter(|ms| range.contains(ms));
        if read.is_none() {
            let (label, limits) = (self.label(name), readable_range_ms(&range));
            let form = "a number and ms, s, m, h or d, such as `10s`";
            let given = describe_value(node);
            report.at(node.mark, format!("{label} must be a length of time {limits}: {form}; it is {given}"));
        }
        read
    }

    /// A size in bytes, in the field's range, if it is there.
    pub fn bytes(&self, name: &str, report: &mut Report) -> Option<i64> {
        let node = self.get(name)?;
        let range = self.range(name);
        let given = node.scalar().unwrap_or_default();
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1), ("", 1)];
        let read = with_unit(&given, &units).filter(|bytes| range.contains(bytes));
        if read.is_none() {
            let (label, start, end) = (self.label(name), range.start(), range.end());
            let form = "a number, alone or with KiB, MiB or GiB, such as `16MiB`";
            let given = describe_value(node);
            report.at(node.mark, format!("{label} must be a size from {start} to {end} bytes: {form}; it is {given}"));
        }
        read
    }
}

/// The entries of a mapping without duplicates, which are reported; none when it isn't a mapping.
pub(crate) fn read_entries<'a>(node: &'a Node, place: &str, report: &mut Report) -> Option<Vec<&'a Entry>> {
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
pub(crate) fn text(node: &Node, label: &str, report: &mut Report) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        _ => {
            report.at(node.mark, format!("{label} must be text; it is {}", describe_value(node)));
            None
        }
    }
}

/// One of the named values.
pub(crate) fn choice<T: Copy>(node: &Node, label: &str, choices: &[(&str, T)], report: &mut Report) -> Option<T> {
    let given = node.scalar();
    let found = given.as_deref().and_then(|given| choices.iter().find(|(name, _)| *name == given));
    if found.is_none() {
        let allowed = list_allowed(given.as_deref().unwrap_or_default(), choices.iter().map(|(name, _)| *name));
        report.at(node.mark, format!("{label} can't be {}{allowed}", describe_value(node)));
    }
    found.map(|(_, value)| *value)
}

/// A whole number within `range`.
pub(crate) fn integer(node: &Node, label: &str, range: &RangeInclusive<i64>, report: &mut Report) -> Option<i64> {
    let number = match &node.value {
        Value::Number(number) => number.parse().ok().filter(|number| range.contains(number)),
        _ => None,
    };
    if number.is_none() {
        let (start, end, given) = (range.start(), range.end(), describe_value(node));
        report.at(node.mark, format!("{label} must be a whole number from {start} to {end}; it is {given}"));
    }
    number
}

/// A value for a message: short scalars as they are, anything else by its kind. Never a long text: a secret pasted into
/// the wrong field should not end up in a log.
pub(crate) fn describe_value(node: &Node) -> String {
    match node.scalar() {
        Some(text) if text.chars().count() <= 40 => format!("`{}`", text.escape_debug()),
        _ => node.kind().to_owned(),
    }
}

/// A length of time such as `10s`, in milliseconds: a whole number and ms, s, m, h or d.
pub fn duration_ms(text: &str) -> Option<i64> {
    with_unit(text, &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)])
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

/// A length of time in the largest unit that holds it exactly: `90s`.
pub fn readable_ms(ms: i64) -> String {
    readable(ms, &[(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")], "ms")
}

/// A size in the largest unit that holds it exactly: `16MiB`.
pub(crate) fn readable_bytes(bytes: i64) -> String {
    readable(bytes, &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")], "B")
}

fn readable(value: i64, units: &[(i64, &str)], smallest: &str) -> String {
    match units.iter().find(|(factor, _)| value != 0 && value % factor == 0) {
        Some((factor, unit)) => format!("{}{unit}", value / factor),
        None => format!("{value}{smallest}"),
    }
}

/// "of at most 5m", "from 1s to 7d".
pub(crate) fn readable_range_ms(range: &RangeInclusive<i64>) -> String {
    let (start, end) = (range.start(), readable_ms(*range.end()));
    match start {
        0 => format!("of at most {end}"),
        start => format!("from {} to {end}", readable_ms(*start)),
    }
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
        assert_eq!((readable_bytes(16 << 20), readable_bytes(1_025)), ("16MiB".into(), "1025B".into()));
        assert_eq!(readable_range_ms(&(0..=60_000)), "of at most 1m");
        assert_eq!(readable_range_ms(&(1..=60_000)), "from 1ms to 1m");
    }
}
