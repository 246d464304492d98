use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    Place,
    diagnostic::Report,
    fields::{self, Fields, describe_value},
    function::Topics,
    node::{Entry, Node, Value},
    place,
    reference::read_path,
    shape::{Field, Form, Mapping, Presence, Shape},
};

/// A test that `millstream test` runs without any service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixture {
    /// What it shows, if the file says so.
    pub name: Option<String>,
    /// Per topic, the records that are in it: a JSON Lines or CSV file, relative to the pipeline's folder.
    pub given: BTreeMap<String, PathBuf>,
    /// Per sink, the rows that are in it afterwards: a CSV file, relative to the pipeline's folder.
    pub expect: BTreeMap<Place, PathBuf>,
    /// Per topic, its records that are dead letters afterwards. A topic that isn't named must have none.
    pub dead_letters: BTreeMap<String, ExpectedLetters>,
}

/// The records of a topic that a function can't process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedLetters {
    /// This many, for any reason.
    Count(usize),
    /// One for each of these texts, which is a part of its reason.
    Reasons(Vec<String>),
}

const DEAD_LETTERS: &str = "dead_letters";
/// The most dead letters that a test can expect.
const MAX_LETTERS: i64 = 10_000;

pub(crate) static FIXTURE: Mapping = Mapping {
    name: "Test",
    doc: "A test: records in, rows out. `millstream test` runs it twice, in large batches and record by record.",
    fields: &[
        Field { name: "name", shape: Shape::Text, presence: Presence::Optional, doc: "What it shows." },
        Field {
            name: "given",
            shape: Shape::Named(&Shape::Text),
            presence: Presence::Required,
            doc: "Per topic, a JSON Lines or CSV file of the records that are in it.",
        },
        Field {
            name: "expect",
            shape: Shape::Mapping(&EXPECT),
            presence: Presence::Required,
            doc: "What is there afterwards.",
        },
    ],
    form: Form::Fields,
};

static EXPECT: Mapping = Mapping {
    name: "Expect",
    doc: "What is there after a test.",
    fields: &[Field {
        name: DEAD_LETTERS,
        shape: Shape::Named(&Shape::Either(&[
            Shape::Integer(0..=MAX_LETTERS),
            Shape::List(&Shape::Text, 0..=MAX_LETTERS as usize),
        ])),
        presence: Presence::Optional,
        doc: "Per topic, its records that are dead letters: how many, or a list with a part of each one's reason. The test fails for any others.",
    }],
    form: Form::FieldsAndOthers(&Field {
        name: "SYSTEM.NAME",
        shape: Shape::Text,
        presence: Presence::Optional,
        doc: "Per sink, a CSV file of the rows that are in it: an empty cell is null, `\"\"` is the empty string. The file can leave columns out.",
    }),
};

/// Reads one element of `tests:`; `number` counts from 1. `sinks` are those of all functions; none when a function is wrong.
pub(crate) fn read_fixture(
    node: &Node,
    number: usize,
    topics: &Topics,
    sinks: Option<&[&Place]>,
    folder: &Path,
    report: &mut Report,
) -> Option<Fixture> {
    let fields = Fields::open(node, node.mark, format!("test {number}"), &FIXTURE, report)?;
    let name = fields.text("name", report);
    let (mut given, mut expect) = (BTreeMap::new(), BTreeMap::new());
    let hint = "a file of records for each topic, such as `{ orders: fixtures/orders.jsonl }`";
    for entry in read_files(&fields, "given", hint, report) {
        if !topics.contains_key(&entry.key) {
            place::report_unknown_topic(entry.mark, &fields.label("given"), &entry.key, topics, report);
        }
        let path = read_path(&entry.node, &fields.label("given"), &["jsonl", "csv"], folder, report);
        given.extend(path.map(|path| (entry.key.clone(), path)));
    }
    let hint = "a file of rows for each sink, such as `{ postgres.totals: fixtures/totals.csv }`";
    let mut dead_letters = BTreeMap::new();
    for entry in read_files(&fields, "expect", hint, report) {
        if entry.key == DEAD_LETTERS {
            dead_letters = read_letters(entry, &fields.label("expect"), topics, report);
            continue;
        }
        let sink =
            sinks.and_then(|sinks| place::find_sink(&entry.key, entry.mark, &fields.label("expect"), sinks, report));
        let path = read_path(&entry.node, &fields.label("expect"), &["csv"], folder, report);
        expect.extend(sink.zip(path));
    }
    Some(Fixture { name, given, expect, dead_letters })
}

/// Reads `{ orders: 2 }` or `{ orders: ["is late", "is missing"] }`.
fn read_letters(entry: &Entry, place: &str, topics: &Topics, report: &mut Report) -> BTreeMap<String, ExpectedLetters> {
    let label = format!("`{DEAD_LETTERS}` of {place}");
    let mut letters = BTreeMap::new();
    for entry in fields::read_entries(&entry.node, &label, report).unwrap_or_default() {
        if !topics.contains_key(&entry.key) {
            place::report_unknown_topic(entry.mark, &label, &entry.key, topics, report);
        }
        let expected = match &entry.node.value {
            Value::List(reasons) => {
                let part = |node| fields::text(node, &format!("a part of a reason in {label}"), report);
                Some(ExpectedLetters::Reasons(reasons.iter().filter_map(part).collect()))
            }
            Value::Number(_) => fields::integer(&entry.node, &label, &(0..=MAX_LETTERS), report)
                .map(|count| ExpectedLetters::Count(count as usize)),
            _ => {
                let hint = "how many records of the topic, or a list with a part of each one's reason";
                report.at(entry.node.mark, format!("{label} must be {hint}; it is {}", describe_value(&entry.node)));
                None
            }
        };
        letters.extend(expected.map(|expected| (entry.key.clone(), expected)));
    }
    letters
}

fn read_files<'a>(fields: &Fields<'a>, name: &str, hint: &str, report: &mut Report) -> Vec<&'a Entry> {
    let node = fields.require(name, hint, report);
    let entries = node.and_then(|node| fields::read_entries(node, &fields.label(name), report)).unwrap_or_default();
    if let (Some(node), true) = (node, entries.is_empty()) {
        report.at(node.mark, format!("{} names no file; it needs {hint}", fields.label(name)));
    }
    entries
}
