use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use arrow::datatypes::SchemaRef;

use crate::{
    Target,
    diagnostic::{Report, allowed},
    fields::{self, Fields, NAME_RULE, is_name, shown},
    function::{self, Topics},
    node::{Entry, Node, Value},
    types,
};

/// A table that SQL joins by name, held in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// Where its rows come from.
    pub from: ReferenceFrom,
    /// Milliseconds after which it is loaded again; none loads it once, at start.
    pub refresh_ms: Option<i64>,
    /// Its columns, declared so that `millstream check` needs no service.
    pub schema: SchemaRef,
}

/// Where a reference's rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferenceFrom {
    /// A CSV or Parquet file beside the pipeline file, relative to its folder: it is deployed with the function.
    File(PathBuf),
    /// A table in PostgreSQL.
    Postgres(String),
    /// A CSV or Parquet file in the lake, relative to it.
    Lake(PathBuf),
}

/// A test that `millstream test` runs without any service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixture {
    /// What it shows, if the file says so.
    pub name: Option<String>,
    /// Per topic, the records that are in it: a JSON Lines or CSV file, relative to the pipeline's folder.
    pub given: BTreeMap<String, PathBuf>,
    /// Per sink, the rows that are in it afterwards: a CSV file, relative to the pipeline's folder.
    pub expect: BTreeMap<Target, PathBuf>,
    /// Per topic, its records that are dead letters afterwards. Those of a topic that is not named are not expected.
    pub dead_letters: BTreeMap<String, ExpectedLetters>,
}

/// The records of a topic that some function can't process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedLetters {
    /// So many, whatever the reason.
    Count(usize),
    /// One for each of these texts, which is a part of its reason.
    Reasons(Vec<String>),
}

pub(crate) const REFERENCE_FIELDS: [&str; 4] = ["from", "file", "refresh", "schema"];
pub(crate) const FIXTURE_FIELDS: [&str; 3] = ["name", "given", "expect"];
const DEAD_LETTERS: &str = "dead_letters";
/// The most dead letters that a test can expect.
const MAX_LETTERS: i64 = 10_000;
const TABLE_FILES: [&str; 2] = ["csv", "parquet"];
const MAX_REFRESH_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// Reads one entry of `references:`.
pub(crate) fn read(entry: &Entry, topics: &Topics, folder: &Path, report: &mut Report) -> Option<Reference> {
    let name = &entry.key;
    if !is_name(name) {
        report.at(entry.mark, format!("`{name}` can't be the name of a reference; use {NAME_RULE}"));
    }
    if topics.contains_key(name) {
        report.at(entry.mark, format!("`{name}` is a topic and a reference; SQL couldn't tell them apart"));
    }
    let fields = Fields::open(&entry.node, entry.mark, format!("reference `{name}`"), &REFERENCE_FIELDS, report)?;
    let from = from(&fields, folder, report);
    let refresh_ms = fields.duration_ms("refresh", MAX_REFRESH_MS, report);
    if let (Some(0..1_000), Some(node)) = (refresh_ms, fields.get("refresh")) {
        report.at(node.mark, format!("{} must be at least 1s", fields.what("refresh")));
    }
    let schema = fields
        .require("schema", "its columns and their types, such as `{ id: string, name: string }`", report)
        .and_then(|node| types::schema(node, &fields.place, report));
    Some(Reference { from: from?, refresh_ms, schema: schema? })
}

fn from(fields: &Fields<'_>, folder: &Path, report: &mut Report) -> Option<ReferenceFrom> {
    if let Some(node) = fields.get("file") {
        fields.refuse(&["from"], "it has a `file`; keep one of the two", report);
        return file(node, &fields.what("file"), &TABLE_FILES, folder, report).map(ReferenceFrom::File);
    }
    let hint = "`postgres.TABLE` or `lake.FILE.parquet`, or `file: PATH.csv` for one beside this file";
    let node = fields.require("from", hint, report)?;
    let text = fields.text("from", report)?;
    match text.split_once('.') {
        Some(("postgres", table)) if is_name(table) => Some(ReferenceFrom::Postgres(table.to_owned())),
        Some(("lake", path)) if has_extension(Path::new(path), &TABLE_FILES) && is_inside(Path::new(path)) => {
            Some(ReferenceFrom::Lake(path.into()))
        }
        _ => {
            report.at(node.mark, format!("{} must be {hint}; it is {}", fields.what("from"), shown(node)));
            None
        }
    }
}

/// Reads one element of `tests:`; `number` counts from 1. `targets` are those of all functions, none when a function is
/// wrong.
pub(crate) fn read_fixture(
    node: &Node,
    number: usize,
    topics: &Topics,
    targets: Option<&[&Target]>,
    folder: &Path,
    report: &mut Report,
) -> Option<Fixture> {
    let fields = Fields::open(node, node.mark, format!("test {number}"), &FIXTURE_FIELDS, report)?;
    let name = fields.text("name", report);
    let (mut given, mut expect) = (BTreeMap::new(), BTreeMap::new());
    let hint = "a file of records for each topic, such as `{ orders: fixtures/orders.jsonl }`";
    for entry in files(&fields, "given", hint, report) {
        if !topics.contains_key(&entry.key) {
            function::unknown_topic(entry.mark, &fields.what("given"), &entry.key, topics, report);
        }
        let path = file(&entry.node, &fields.what("given"), &["jsonl", "csv"], folder, report);
        given.extend(path.map(|path| (entry.key.clone(), path)));
    }
    let hint = "a file of rows for each sink, such as `{ postgres.totals: fixtures/totals.csv }`";
    let mut dead_letters = BTreeMap::new();
    for entry in files(&fields, "expect", hint, report) {
        if entry.key == DEAD_LETTERS {
            dead_letters = letters(entry, &fields.what("expect"), topics, report);
            continue;
        }
        let target =
            targets.and_then(|all| function::expected(&entry.key, entry.mark, &fields.what("expect"), all, report));
        let path = file(&entry.node, &fields.what("expect"), &["csv"], folder, report);
        expect.extend(target.zip(path));
    }
    Some(Fixture { name, given, expect, dead_letters })
}

/// Reads `{ orders: 2 }` or `{ orders: ["is late", "is missing"] }`.
fn letters(entry: &Entry, place: &str, topics: &Topics, report: &mut Report) -> BTreeMap<String, ExpectedLetters> {
    let what = format!("`{DEAD_LETTERS}` of {place}");
    let mut letters = BTreeMap::new();
    for entry in fields::entries(&entry.node, &what, report).unwrap_or_default() {
        if !topics.contains_key(&entry.key) {
            function::unknown_topic(entry.mark, &what, &entry.key, topics, report);
        }
        let expected = match &entry.node.value {
            Value::List(reasons) => {
                let part = |node| fields::text(node, &format!("a part of a reason in {what}"), report);
                Some(ExpectedLetters::Reasons(reasons.iter().filter_map(part).collect()))
            }
            Value::Number(_) => fields::integer(&entry.node, &what, 0..=MAX_LETTERS, report)
                .map(|count| ExpectedLetters::Count(count as usize)),
            _ => {
                let hint = "how many records of the topic, or a list with a part of each one's reason";
                report.at(entry.node.mark, format!("{what} must be {hint}; it is {}", shown(&entry.node)));
                None
            }
        };
        letters.extend(expected.map(|expected| (entry.key.clone(), expected)));
    }
    letters
}

fn files<'a>(fields: &Fields<'a>, name: &str, hint: &str, report: &mut Report) -> Vec<&'a Entry> {
    let node = fields.require(name, hint, report);
    let entries = node.and_then(|node| fields::entries(node, &fields.what(name), report)).unwrap_or_default();
    if let (Some(node), true) = (node, entries.is_empty()) {
        report.at(node.mark, format!("{} names no file; it needs {hint}", fields.what(name)));
    }
    entries
}

/// A file beside the pipeline file that exists and ends as it should.
fn file(node: &Node, what: &str, extensions: &[&str], folder: &Path, report: &mut Report) -> Option<PathBuf> {
    let path = PathBuf::from(fields::text(node, what, report)?);
    let shown = path.display();
    if !is_inside(&path) {
        report.at(node.mark, format!("{what} must be a path within the pipeline's folder; it is `{shown}`"));
    } else if !has_extension(&path, extensions) {
        let given = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let allowed = allowed(given, extensions.iter().copied());
        report.at(node.mark, format!("{what} is `{shown}`, whose ending says nothing known{allowed}"));
    } else if !folder.join(&path).is_file() {
        report.at(node.mark, format!("{what} is `{shown}`, but there is no file `{}`", folder.join(&path).display()));
    }
    Some(path)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(|extension| extensions.contains(&extension))
}

/// Relative, and never up: what is deployed is the folder.
fn is_inside(path: &Path) -> bool {
    use std::path::Component;
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}
