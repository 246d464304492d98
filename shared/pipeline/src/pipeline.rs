use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::{
    Diagnostic, Diagnostics, Fixture, Function, Making, Place, Reference, System, Topic, circles,
    diagnostic::{Mark, Report},
    documentation, feeds,
    fields::{self, Fields},
    fixture::{self, FIXTURE},
    function::{self, FUNCTION, Topics},
    names::{NAME_PATTERN, NAME_RULE, is_name},
    node::{Entry, Node, Value},
    reference::{self, REFERENCE},
    schema,
    shape::{Field, Form, Mapping, Presence, Shape},
    topic::{self, TOPIC},
};

/// The largest pipeline file that is read.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
const TOO_LARGE: &str = "the file is larger than 1 MiB, so it can't be a pipeline file";

/// A pipeline file, read and checked: every name in it that refers to something refers to something that exists.
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
    /// The file itself: mistakes are reported for it, and all paths in it are relative to its folder.
    pub file: PathBuf,
}

pub(crate) static PIPELINE: Mapping = Mapping {
    name: "Pipeline",
    doc: "A millstream pipeline: topics, functions between them and their sinks, reference tables, tests.",
    fields: &[
        Field {
            name: "name",
            shape: Shape::Pattern(|| format!("^{NAME_PATTERN}$"), "a name"),
            presence: Presence::Required,
            doc: "The first half of every function's id (`bank.flow`): lower-case letters, digits, underscores.",
        },
        Field {
            name: "topics",
            shape: Shape::Named(&Shape::Mapping(&TOPIC)),
            presence: Presence::Required,
            doc: "The topics that the functions read and write, by name.",
        },
        Field {
            name: "functions",
            shape: Shape::Named(&Shape::Mapping(&FUNCTION)),
            presence: Presence::Required,
            doc: "The functions by name; each is deployed on its own.",
        },
        Field {
            name: "references",
            shape: Shape::Named(&Shape::Mapping(&REFERENCE)),
            presence: Presence::Optional,
            doc: "Tables that SQL joins by name, held in memory.",
        },
        Field {
            name: "tests",
            shape: Shape::List(&Shape::Mapping(&FIXTURE), 0..=usize::MAX),
            presence: Presence::Optional,
            doc: "What `millstream test` runs, without any service.",
        },
    ],
    form: Form::Fields,
};

impl Pipeline {
    /// Reads a pipeline file; a folder means its `pipeline.yaml`.
    ///
    /// # Errors
    /// Every mistake that was found, in the order of the file.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        let file = if path.is_dir() { path.join("pipeline.yaml") } else { path.to_owned() };
        let of_file = |message: String| Diagnostics::from(Diagnostic::of_file(&file, message));
        let mut bytes = Vec::new();
        File::open(&file)
            .and_then(|open| open.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|error| of_file(format!("the pipeline file can't be read: {error}")))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(of_file(TOO_LARGE.to_owned()));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            of_file(format!("the file is not UTF-8 text; the first wrong byte is number {}", at + 1))
        })?;
        Self::parse(&text, &file)
    }

    /// Reads the text of a pipeline file. `file` is what diagnostics name, and its folder is where
    /// fixtures are looked for.
    ///
    /// # Errors
    /// Every mistake that was found, in the order of the file.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Diagnostics> {
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(Diagnostic::of_file(file, TOO_LARGE.to_owned()).into());
        }
        let mut report = Report::default();
        let pipeline = match Node::parse(text) {
            Ok(Node { value: Value::Null, .. }) => {
                let message = "the file is empty; a pipeline has `name`, `topics` and `functions`";
                return Err(Diagnostic::of_file(file, message.to_owned()).into());
            }
            Ok(node) => read_pipeline(&node, text, file, &mut report),
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

    /// All that can be in the file, as Markdown.
    pub fn documentation() -> String {
        documentation::documentation()
    }

    /// The topics of the log: those that the file declares, without the event stores that functions read like topics.
    pub fn log_topics(&self) -> impl Iterator<Item = (&String, &Topic)> {
        self.topics.iter().filter(|(_, topic)| topic.feed_of.is_none())
    }

    /// The functions that make records.
    pub fn makers(&self) -> impl Iterator<Item = (&String, &Function, &Making)> {
        self.functions.iter().filter_map(|(name, function)| Some((name, function, function.making()?)))
    }

    /// The topics whose records functions of this file make out of others.
    pub fn hops(&self) -> BTreeSet<String> {
        let written = self.readers().map(|(_, function, _)| &function.into).filter(|into| into.system.is_log());
        written.map(|into| into.name.clone()).collect()
    }

    /// The field that is the key of a topic's records, if a function of this file makes them.
    pub fn key_of(&self, topic: &str) -> Option<&str> {
        let mut writers =
            self.functions.values().filter(|function| function.into.system.is_log() && function.into.name == topic);
        writers.find_map(Function::key)
    }

    /// A path of this file, relative to where the program runs.
    pub fn path(&self, relative: &Path) -> PathBuf {
        folder_of(&self.file).join(relative)
    }
}

/// The folder that a file lies in, empty for the current one.
fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

fn read_pipeline(node: &Node, text: &str, file: &Path, report: &mut Report) -> Option<Pipeline> {
    let folder = folder_of(file);
    let fields = Fields::open(node, Mark { line: 1, column: 1 }, "the pipeline".to_owned(), &PIPELINE, report)?;
    let name = read_name(&fields, report);
    let mut topics: Topics = required_section(&fields, "topics", report)
        .into_iter()
        .map(|entry| (entry.key.clone(), topic::read_topic(entry, report)))
        .collect();
    let mut functions = BTreeMap::new();
    let mut sinks = BTreeMap::new();
    let entries = required_section(&fields, "functions", report);
    feeds::declare(&entries, &mut topics);
    for entry in &entries {
        if let Some((function, mark)) = function::read_function(entry, &topics, text, folder, report) {
            check_one_writer(&entry.key, &function, mark, &mut sinks, report);
            functions.insert(entry.key.clone(), function);
        }
    }
    circles::check(&functions, &entries, report);
    let references: Vec<(String, Option<Reference>)> = section(&fields, "references", report)
        .into_iter()
        .map(|entry| (entry.key.clone(), reference::read_reference(entry, &topics, folder, report)))
        .collect();
    let all_read = entries.len() == functions.len();
    let tables = functions.values().map(|function| &function.into).filter(|into| !into.system.is_log());
    let sinks = all_read.then(|| tables.collect::<Vec<_>>());
    let tests = read_tests(&fields, &topics, sinks.as_deref(), folder, report);
    Some(Pipeline {
        name: name?,
        topics: topics.into_iter().map(|(name, topic)| topic.map(|topic| (name, topic))).collect::<Option<_>>()?,
        functions,
        references: references.into_iter().map(|(name, read)| read.map(|read| (name, read))).collect::<Option<_>>()?,
        tests,
        file: file.to_owned(),
    })
}

fn read_name(fields: &Fields<'_>, report: &mut Report) -> Option<String> {
    let node = fields.require("name", "the first half of every function's id, such as `bank`", report)?;
    let name = fields.text("name", report)?;
    if !is_name(&name) {
        report.at(node.mark, format!("`{name}` can't be the name of a pipeline; use {NAME_RULE}"));
    }
    Some(name)
}

/// The entries of a mapping by name, which must be there.
fn required_section<'a>(fields: &Fields<'a>, name: &str, report: &mut Report) -> Vec<&'a Entry> {
    fields.require(name, "a mapping of names to what they are", report);
    section(fields, name, report)
}

/// The entries of a mapping by name.
fn section<'a>(fields: &Fields<'a>, name: &str, report: &mut Report) -> Vec<&'a Entry> {
    let entries = fields.get(name).and_then(|node| fields::read_entries(node, &fields.label(name), report));
    entries.unwrap_or_default()
}

/// Who writes to each place, where that is said, and whether it makes records out of nothing.
type Sinks = BTreeMap<Place, (String, Mark, bool)>;

/// Two functions that merge into one table would each have a fence over the other's rows. In a system that merges, a table
/// whose SQL needs a view keeps its states in `NAME_state`, so that name is taken too.
fn check_one_writer(name: &str, function: &Function, mark: Mark, sinks: &mut Sinks, report: &mut Report) {
    let (into, makes) = (&function.into, function.making().is_some());
    if let Some((other, Mark { line, .. }, other_makes)) = sinks.get(into) {
        if makes && *other_makes {
            return;
        }
        let writers = format!("by function `{other}` (line {line}) and by function `{name}`");
        let why = if into.system.is_log() { "a topic that a `transform` writes to has" } else { "a table has" };
        report.at(mark, format!("`{into}` is written {writers}; {why} one writer"));
        return;
    }
    let is_in_database = |place: &Place| !place.system.is_log() && place.system != System::Lake;
    let same = sinks.keys().find(|other| other.name == into.name && is_in_database(other));
    if let Some(other) = same.filter(|_| is_in_database(into)) {
        report.at(
            mark,
            format!(
                "`{into}` and `{other}` can't have the same name: where the two systems aren't connected, the embedded store holds \
                 both; rename one of them"
            ),
        );
    }
    let sibling = |name: &str| Place { system: into.system, name: name.to_owned() };
    let shorter = into.name.strip_suffix("_state").map(sibling);
    let longer = sibling(&format!("{}_state", into.name));
    if into.system.merges()
        && let Some(other) = shorter.iter().chain([&longer]).find(|other| sinks.contains_key(other))
    {
        let why = "the table with the shorter name can keep its states in the other one";
        report.at(mark, format!("`{into}` and `{other}` can't both be tables: {why}; rename one of them"));
    }
    sinks.insert(into.clone(), (name.to_owned(), mark, makes));
}

fn read_tests(
    fields: &Fields<'_>,
    topics: &Topics,
    sinks: Option<&[&Place]>,
    folder: &Path,
    report: &mut Report,
) -> Vec<Fixture> {
    let nodes = match fields.get("tests") {
        None => return Vec::new(),
        Some(Node { value: Value::List(nodes), .. }) => nodes,
        Some(node) => {
            report.at(node.mark, format!("{} must be a list; it is {}", fields.label("tests"), node.kind()));
            return Vec::new();
        }
    };
    let read = |(index, node)| fixture::read_fixture(node, index + 1, topics, sinks, folder, report);
    nodes.iter().enumerate().filter_map(read).collect()
}
