//! YAML as a tree in which every key and value knows its place, so that all mistakes can be reported at once.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{DuplicateKeyPolicy, MessageFormatter as _, Spanned, UserMessageFormatter};

use crate::diagnostic::Mark;

/// Deeper nesting than any pipeline needs (a schema can be 20 levels deep). It bounds the recursion of every reader: in a
/// debug build the parser needs some 40 KB of stack for each level, and a thread has 2 MB.
const MAX_DEPTH: usize = 24;

/// A value and where it starts.
#[derive(Debug)]
pub(crate) struct Node {
    pub mark: Mark,
    pub value: Value,
}

/// A value of any kind.
#[derive(Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// The digits without an exponent, so that decimals are read exactly.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub mark: Mark,
    pub node: Node,
}

impl Node {
    /// Reads one YAML document; an empty one is a null. Duplicate keys are kept: the readers report them with a place.
    pub fn parse(text: &str) -> Result<Self, (Mark, String)> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
            // Far more than sharing a schema by an anchor needs; far too little for a bomb of aliases.
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            // YAML 1.2, as Terraform and Bicep read it: `NO` is Norway, not a boolean.
            strict_booleans: true,
            with_snippet: false,
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let mark = error.location().map_or(Mark { line: 1, column: 1 }, mark);
            let message = UserMessageFormatter.format_message(error.without_snippet());
            (mark, format!("this is not valid YAML: {}", message.replace(char::is_control, " ")))
        })
    }

    /// A scalar as text, whatever it looks like; none for a list, a mapping or nothing.
    pub fn scalar(&self) -> Option<Cow<'_, str>> {
        match &self.value {
            Value::Text(text) | Value::Number(text) => Some(text.into()),
            Value::Bool(bool) => Some(bool.to_string().into()),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What it is, for a message.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Where the first character of a text's content is in the file. The parser points to an opening quote, and in a block
    /// to the first line that isn't blank, though the blank lines above it belong to the text.
    pub fn content_mark(&self, file_text: &str) -> Mark {
        let Mark { line, column } = self.mark;
        let first =
            file_text.lines().nth(line.saturating_sub(1)).and_then(|line| line.chars().nth(column.saturating_sub(1)));
        match (&self.value, first) {
            (Value::Text(_), Some('"' | '\'')) => Mark { line, column: column + 1 },
            (Value::Text(text), _) => {
                let blank = text.chars().take_while(|c| *c == '\n').count();
                Mark { line: line.saturating_sub(blank).max(1), column }
            }
            _ => self.mark,
        }
    }
}

fn mark(location: serde_saphyr::Location) -> Mark {
    // An unknown place is 0:0; the start of the file is the nearest one that exists.
    Mark { line: location.line().max(1) as usize, column: location.column().max(1) as usize }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { mark: mark(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // The shortest text that reads back as the same number, never with an exponent: what was written, up to 15 digits.
        Ok(Value::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Node>()? {
            let name = key.scalar().map_or_else(|| format!("({})", key.kind()), Cow::into_owned);
            map.push(Entry { key: name, mark: key.mark, node: entries.next_value()? });
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(node: &'a Node, key: &str) -> &'a Entry {
        let Value::Map(entries) = &node.value else { panic!("{node:?}") };
        entries.iter().find(|entry| entry.key == key).unwrap()
    }

    fn place(mark: Mark) -> (usize, usize) {
        (mark.line, mark.column)
    }

    #[test]
    fn keys_and_values_know_their_place() {
        let node = Node::parse("# a comment\nname: bank\nlist:\n  - one\n  - {two: 2}\nNO: 0.10\n").unwrap();
        assert_eq!(place(at(&node, "name").mark), (2, 1));
        assert_eq!(place(at(&node, "name").node.mark), (2, 7));
        let Value::List(items) = &at(&node, "list").node.value else { panic!() };
        assert_eq!(place(items[1].mark), (5, 5));
        assert_eq!(place(at(&items[1], "two").node.mark), (5, 11));
        assert!(matches!(&at(&node, "NO").node.value, Value::Number(number) if number == "0.1"));
    }

    #[test]
    fn the_content_of_a_block_starts_below_its_header() {
        for (text, expected) in [
            ("a:\n  sql: |\n    SELECT 1\n    FROM x\n", (3, 5)),
            ("a:\n  sql: >-  # folded\n\n      SELECT 1\n", (3, 7)),
            ("a:\n  sql: | # why\n    SELECT 1\n", (3, 5)),
            ("a:\n  sql: |2\n      SELECT 1\n    FROM x\n", (3, 5)),
            ("a: {sql: 'SELECT 1'}\n", (1, 11)),
            ("a:\n  sql: SELECT 1\n", (2, 8)),
        ] {
            let node = Node::parse(text).unwrap();
            let sql = &at(&at(&node, "a").node, "sql").node;
            assert_eq!(place(sql.content_mark(text)), expected, "{text}: {:?}", sql.mark);
        }
    }

    #[test]
    fn invalid_yaml_is_reported_with_its_place() {
        let bomb = "[".repeat(100_000);
        for text in ["a: [1, 2", "a: b: c", "a:\n\tb: 1", "\"a", "a: &x [*x]", "a: *y", bomb.as_str()] {
            let (mark, message) = Node::parse(text).unwrap_err();
            assert!(message.starts_with("this is not valid YAML: "), "{message}");
            assert!(mark.line >= 1 && mark.column >= 1);
        }
    }

    #[test]
    fn an_empty_document_is_a_null() {
        for text in ["", "# only a comment\n", "---\n", "  \n"] {
            assert!(matches!(Node::parse(text).unwrap().value, Value::Null), "{text:?}");
        }
    }
}
