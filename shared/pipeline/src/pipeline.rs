use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::{
    Diagnostic, Fixture, Function, Reference, System, Target, Topic,
    diagnostic::{Mark, Report},
    fields::{self, Fields, NAME_RULE, is_name},
    function::{self, Topics},
    node::{Entry, Node, Value},
    reference, schema, topic,
};

/// The largest pipeline file that is read.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// A pipeline file, read and checked: every name in it that refers to something refers to something that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// Its name, the first half of every function's id.
    pub name: String,
    /// The topics by name.
    pub topics: BTreeMap<String, Topic>,
    /// The functions by name.
    pub functions: BTreeMap<String, Function>,
    /// The reference tables by name.
    pub references: BTreeMap<String, Reference>,
    /// The tests that `millstream test` runs.
    pub tests: Vec<Fixture>,
    /// The file itself: mistakes are told of it, and all paths in it are relative to its folder.
    pub file: PathBuf,
}

pub(crate) const PIPELINE_FIELDS: [&str; 5] = ["name", "topics", "functions", "references", "tests"];

impl Pipeline {
    /// Reads a pipeline file; a folder means its `pipeline.yaml`.
    ///
    /// # Errors
    /// Every mistake that was found, in the order of the file.
    pub fn load(path: &Path) -> Result<Self, Vec<Diagnostic>> {
        let file = if path.is_dir() { path.join("pipeline.yaml") } else { path.to_owned() };
        let of_file = |message: String| vec![Diagnostic::of_file(&file, message)];
        let mut bytes = Vec::new();
        File::open(&file)
            .and_then(|open| open.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|error| of_file(format!("the pipeline file can't be read: {error}")))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(of_file("the file is larger than 1 MiB; that is no pipeline file".to_owned()));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            of_file(format!("the file is not UTF-8 text; the first wrong byte is number {}", at + 1))
        })?;
        Self::parse(&text, &file)
    }

    /// Reads the text of a pipeline file. `file` is what diagnostics say, and its folder is where fixtures are looked for.
    ///
    /// # Errors
    /// Every mistake that was found, in the order of the file.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Vec<Diagnostic>> {
        if text.len() as u64 > MAX_FILE_BYTES {
            let message = "the file is larger than 1 MiB; that is no pipeline file";
            return Err(vec![Diagnostic::of_file(file, message.to_owned())]);
        }
        let mut report = Report::default();
        let pipeline = match Node::parse(text) {
            Ok(Node { value: Value::Null, .. }) => {
                let message = "the file is empty; a pipeline has `name`, `topics` and `functions`";
                return Err(vec![Diagnostic::of_file(file, message.to_owned())]);
            }
            Ok(node) => read(&node, text, file, &mut report),
            Err((mark, message)) => {
                report.at(mark, message);
                None
            }
        };
        match pipeline {
            Some(pipeline) if report.is_empty() => Ok(pipeline),
            _ => Err(report.into_diagnostics(file)),
        }
    }

    /// The JSON Schema of the file, from which editors complete and check it.
    pub fn json_schema() -> serde_json::Value {
        schema::json_schema()
    }

    /// A path of this file, from where the program runs.
    pub fn path(&self, relative: &Path) -> PathBuf {
        folder_of(&self.file).join(relative)
    }
}

/// The folder that a file lies in, empty for the current one.
fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

fn read(node: &Node, text: &str, file: &Path, report: &mut Report) -> Option<Pipeline> {
    let folder = folder_of(file);
    let fields = Fields::open(node, Mark { line: 1, column: 1 }, "the pipeline".to_owned(), &PIPELINE_FIELDS, report)?;
    let name = name(&fields, report);
    let topics: Topics = section(&fields, "topics", true, report)
        .into_iter()
        .map(|entry| (entry.key.clone(), topic::read(entry, report)))
        .collect();
    let mut functions = BTreeMap::new();
    let mut sinks = BTreeMap::new();
    for entry in section(&fields, "functions", true, report) {
        if let Some((function, mark)) = function::read(entry, &topics, text, report) {
            one_writer(&entry.key, &function.into, mark, &mut sinks, report);
            functions.insert(entry.key.clone(), function);
        }
    }
    let references: Vec<(String, Option<Reference>)> = section(&fields, "references", false, report)
        .into_iter()
        .map(|entry| (entry.key.clone(), reference::read(entry, &topics, folder, report)))
        .collect();
    let all_read = section_len(&fields, "functions") == functions.len();
    let targets = all_read.then(|| functions.values().map(|function| &function.into).collect::<Vec<_>>());
    let tests = tests(&fields, &topics, targets.as_deref(), folder, report);
    Some(Pipeline {
        name: name?,
        topics: topics.into_iter().map(|(name, topic)| topic.map(|topic| (name, topic))).collect::<Option<_>>()?,
        functions,
        references: references.into_iter().map(|(name, read)| read.map(|read| (name, read))).collect::<Option<_>>()?,
        tests,
        file: file.to_owned(),
    })
}

fn name(fields: &Fields<'_>, report: &mut Report) -> Option<String> {
    let node = fields.require("name", "the first half of every function's id, such as `bank`", report)?;
    let name = fields.text("name", report)?;
    if !is_name(&name) {
        report.at(node.mark, format!("`{name}` can't be the name of a pipeline; use {NAME_RULE}"));
    }
    Some(name)
}

/// The entries of a mapping by name.
fn section<'a>(fields: &Fields<'a>, name: &str, required: bool, report: &mut Report) -> Vec<&'a Entry> {
    let node = match required {
        true => fields.require(name, "a mapping of names to what they are", report),
        false => fields.get(name),
    };
    node.and_then(|node| fields::entries(node, &fields.what(name), report)).unwrap_or_default()
}

fn section_len(fields: &Fields<'_>, name: &str) -> usize {
    match fields.get(name).map(|node| &node.value) {
        Some(Value::Map(entries)) => entries.len(),
        _ => 0,
    }
}

/// Two functions that merged into one table would each keep a fence over the other's rows. A PostgreSQL table whose SQL
/// needs a view keeps its states in `<name>_state`, so that name is taken too.
fn one_writer(
    name: &str,
    into: &Target,
    mark: Mark,
    sinks: &mut BTreeMap<Target, (String, Mark)>,
    report: &mut Report,
) {
    if into.system == System::Topic {
        return;
    }
    if let Some((other, first)) = sinks.get(into) {
        let line = first.line;
        report.at(
            mark,
            format!("`{into}` is written by function `{other}` (line {line}) and by function `{name}`; a table has one writer"),
        );
        return;
    }
    let sibling = |name: &str| Target { system: into.system, name: name.to_owned() };
    let above = into.name.strip_suffix("_state").map(sibling);
    let below = sibling(&format!("{}_state", into.name));
    if into.system == System::Postgres
        && let Some(other) = above.iter().chain([&below]).find(|other| sinks.contains_key(other))
    {
        let why = "the shorter name's table may keep its states in the longer's";
        report.at(mark, format!("`{into}` and `{other}` can't both be tables: {why}; rename one of them"));
    }
    sinks.insert(into.clone(), (name.to_owned(), mark));
}

fn tests(
    fields: &Fields<'_>,
    topics: &Topics,
    targets: Option<&[&Target]>,
    folder: &Path,
    report: &mut Report,
) -> Vec<Fixture> {
    let nodes = match fields.get("tests") {
        None => return Vec::new(),
        Some(Node { value: Value::List(nodes), .. }) => nodes,
        Some(node) => {
            report.at(node.mark, format!("{} must be a list; it is {}", fields.what("tests"), node.kind()));
            return Vec::new();
        }
    };
    let read = |(index, node)| reference::read_fixture(node, index + 1, topics, targets, folder, report);
    nodes.iter().enumerate().filter_map(read).collect()
}
