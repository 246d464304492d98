use std::{collections::BTreeMap, fmt};

use millstream_core::{Late, Limits, OnGap, Start};

use crate::{
    Generate, Topic,
    diagnostic::{Mark, Report, allowed},
    fields::{self, Fields, NAME_RULE, is_name},
    generate,
    node::{Entry, Node, Value},
};

/// One deployable: a source, a transformation, and exactly one sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Which crate of `functions/` it is.
    pub uses: Uses,
    /// The topics it reads, all of them declared in the file; none for [`Uses::Ingest`].
    pub from: Vec<String>,
    /// The SQL statement with its place in the file; always there for [`Uses::Aggregate`].
    pub sql: Option<Located<String>>,
    /// What it writes to.
    pub into: Target,
    /// Where a partition without a fence begins.
    pub start: Start,
    /// What to do when a host hands over records that begin above the fence.
    pub on_gap: OnGap,
    /// What becomes of a record that is later than `lateness_ms`.
    pub late: Late,
    /// How many milliseconds a record's event time may lie behind the highest one before it in its partition. Without
    /// meaning for [`Late::Merge`].
    pub lateness_ms: i64,
    /// How many milliseconds a record's event time may lie ahead of the record's own timestamp; none for a function that
    /// keeps every record. A timestamp before 2001-09-09 says nothing, and its record is taken.
    pub ahead_ms: Option<i64>,
    /// What ends a batch.
    pub batch: Limits,
    /// How records are made up; always there for [`Uses::Ingest`], and only there.
    pub generate: Option<Generate>,
    /// The field whose value is the record's key; only for [`Uses::Ingest`].
    pub key: Option<String>,
}

impl Function {
    /// The name of a function across pipelines, `bank.flow`: the key of its fences and its consumer group.
    pub fn id(pipeline: &str, name: &str) -> String {
        format!("{pipeline}.{name}")
    }
}

/// Which crate of `functions/` a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uses {
    /// Makes or fetches records and writes them to a topic.
    Ingest,
    /// Sums windows of a topic into a database table.
    Aggregate,
    /// Keeps a topic's records as files.
    Archive,
}

/// What a function writes to: `postgres.transaction_flow`, `lake.transactions`, `topic.transaction`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The kind of system.
    pub system: System,
    /// The table, folder or topic in it.
    pub name: String,
}

/// The systems that a function can write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum System {
    /// A topic declared in the same file.
    Topic,
    /// A table in PostgreSQL, or in the embedded store when no PostgreSQL is connected.
    Postgres,
    /// Parquet files in the lake.
    Lake,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let system = SYSTEMS.iter().find(|(_, system)| *system == self.system).map_or("", |(name, _)| name);
        write!(f, "{system}.{}", self.name)
    }
}

/// A value and its place in the file, so that errors inside it (SQL) can be told with the file's line and column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// The line from 1 of its first character; for a block scalar (`|`), that of the first line of its content.
    pub line: usize,
    /// The column from 1 of its first character; for a block scalar, the column that every line of it begins in.
    pub column: usize,
}

pub(crate) const USES: [(&str, Uses); 3] =
    [("ingest", Uses::Ingest), ("aggregate", Uses::Aggregate), ("archive", Uses::Archive)];
pub(crate) const SYSTEMS: [(&str, System); 3] =
    [("topic", System::Topic), ("postgres", System::Postgres), ("lake", System::Lake)];
pub(crate) const STARTS: [(&str, Start); 2] = [("earliest", Start::Earliest), ("latest", Start::Latest)];
pub(crate) const ON_GAPS: [(&str, OnGap); 3] = [("heal", OnGap::Heal), ("fail", OnGap::Fail), ("skip", OnGap::Skip)];
pub(crate) const LATES: [(&str, Late); 2] = [("merge", Late::Merge), ("dead-letter", Late::DeadLetter)];
pub(crate) const FUNCTION_FIELDS: [&str; 12] =
    ["uses", "from", "sql", "into", "start", "on_gap", "late", "lateness", "ahead", "batch", "generate", "key"];
pub(crate) const BATCH_FIELDS: [&str; 3] = ["max_records", "max_bytes", "max_wait"];

const MIB: usize = 1 << 20;
/// Small enough to be soon in the table.
const AGGREGATE_BATCH: Limits = Limits { max_records: 32_000, max_bytes: 16 * MIB, max_wait_ms: 100 };
/// Large enough to make files worth reading.
const ARCHIVE_BATCH: Limits = Limits { max_records: 100_000, max_bytes: 32 * MIB, max_wait_ms: 10_000 };
/// A batch is held in memory several times over (bytes, columns, file).
const MAX_BATCH_BYTES: i64 = 256 << 20;
/// Lambda and Azure end an invocation after minutes.
const MAX_WAIT_MS: i64 = 5 * 60 * 1_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// A clock that is off by a day or more is off by anything.
const AHEAD_MS: i64 = DAY_MS;
/// Events may be of the future on purpose (bookings): a hundred years are as good as no bound.
const MAX_AHEAD_MS: i64 = 36_500 * DAY_MS;

/// The topics of the file by name; none for one that is declared but wrong.
pub(crate) type Topics = BTreeMap<String, Option<Topic>>;

/// Reads one entry of `functions:`. The mark is that of `into`.
pub(crate) fn read(entry: &Entry, topics: &Topics, file_text: &str, report: &mut Report) -> Option<(Function, Mark)> {
    let name = &entry.key;
    if !is_name(name) {
        report.at(entry.mark, format!("`{name}` can't be the name of a function; use {NAME_RULE}"));
    }
    let fields = Fields::open(&entry.node, entry.mark, format!("function `{name}`"), &FUNCTION_FIELDS, report)?;
    let uses = fields
        .require("uses", "which kind of function it is: ingest, aggregate or archive", report)
        .and_then(|node| fields::choice(node, &fields.what("uses"), &USES, report));
    refuse_what_has_no_meaning(uses, &fields, report);
    let into_node = fields.require("into", "its one sink, such as `postgres.totals`", report);
    let into = into_node.and_then(|node| target(node, uses, &fields, topics, report));
    let into_topic = match &into {
        Some(Target { system: System::Topic, name }) => topics.get(name).and_then(Option::as_ref),
        _ => None,
    };
    let from = match uses {
        Some(Uses::Ingest) => Some(Vec::new()),
        _ => fields
            .require("from", "the topic that it reads, or a list of topics", report)
            .and_then(|node| from(node, &fields, topics, report)),
    };
    let generate = match uses {
        Some(Uses::Ingest) => fields
            .require("generate", "how its records are made up (other sources are to come)", report)
            .and_then(|node| generate::read(node, &fields, into_topic, report)),
        _ => None,
    };
    let sql = sql(uses, &fields, file_text, report);
    let key = key(&fields, into_topic, report);
    let (late, lateness_ms, ahead_ms) = match uses {
        Some(Uses::Ingest | Uses::Archive) => (Late::Merge, 0, None),
        _ => {
            let (late, lateness_ms) = late(&fields, report);
            (late, lateness_ms, Some(fields.duration_ms("ahead", MAX_AHEAD_MS, report).unwrap_or(AHEAD_MS)))
        }
    };
    let (start, on_gap) = (fields.choice("start", &STARTS, report), fields.choice("on_gap", &ON_GAPS, report));
    let batch = batch(uses?, &fields, report);
    let (uses, from, into) = (uses?, from?, into?);
    let function = Function { uses, from, sql, into, start, on_gap, late, lateness_ms, ahead_ms, batch, generate, key };
    Some((function, into_node?.mark))
}

fn refuse_what_has_no_meaning(uses: Option<Uses>, fields: &Fields<'_>, report: &mut Report) {
    let only_ingest = "only a function that uses `ingest` makes records";
    match uses {
        Some(Uses::Ingest) => fields.refuse(
            &["from", "sql", "start", "on_gap", "late", "lateness", "ahead", "batch"],
            "a function that uses `ingest` reads no topic",
            report,
        ),
        Some(Uses::Aggregate) => fields.refuse(&["generate", "key"], only_ingest, report),
        Some(Uses::Archive) => {
            fields.refuse(&["generate", "key"], only_ingest, report);
            fields.refuse(&["late", "lateness", "ahead"], "an archive keeps every record, early or late", report);
        }
        None => {}
    }
}

/// `STORE.NAME`, and one that the kind of function writes to.
fn target(
    node: &Node,
    uses: Option<Uses>,
    fields: &Fields<'_>,
    topics: &Topics,
    report: &mut Report,
) -> Option<Target> {
    let what = fields.what("into");
    if matches!(node.value, Value::List(_)) {
        let hint = "a function has exactly one sink; write a second function for the other, so that a slow sink holds nobody back";
        report.at(node.mark, format!("{what} is a list: {hint}"));
        return None;
    }
    let text = fields::text(node, &what, report)?;
    let Some((store, name)) = text.split_once('.') else {
        report.at(
            node.mark,
            format!(
                "{what} must be STORE.NAME, such as `postgres.{0}`, `lake.{0}` or `topic.{0}`; it is `{text}`",
                "totals"
            ),
        );
        return None;
    };
    let Some((_, store)) = SYSTEMS.iter().find(|(known, _)| *known == store) else {
        let allowed = allowed(store, SYSTEMS.iter().map(|(name, _)| *name));
        report.at(node.mark, format!("{what} names the store `{store}`, which is unknown{allowed}"));
        return None;
    };
    match store {
        System::Topic if !topics.contains_key(name) => {
            unknown_topic(node.mark, &what, name, topics, report);
            return None;
        }
        System::Postgres | System::Lake if !is_name(name) || name.starts_with("millstream_") => {
            let rule = format!("use {NAME_RULE}, nor with `millstream_`");
            report.at(node.mark, format!("{what} names the table `{name}`, which can't be a table's name; {rule}"));
            return None;
        }
        _ => {}
    }
    let into = Target { system: *store, name: name.to_owned() };
    uses.is_none_or(|uses| sink_fits(uses, &into, node.mark, fields, report)).then_some(into)
}

pub(crate) fn unknown_topic(mark: Mark, what: &str, name: &str, topics: &Topics, report: &mut Report) {
    let allowed = allowed(name, topics.keys().map(String::as_str));
    report.at(mark, format!("{what} names the topic `{name}`, which this file doesn't declare{allowed}"));
}

fn sink_fits(uses: Uses, into: &Target, mark: Mark, fields: &Fields<'_>, report: &mut Report) -> bool {
    let (name, store, example) = match uses {
        Uses::Ingest => ("ingest", System::Topic, "`topic.NAME`"),
        Uses::Aggregate => ("aggregate", System::Postgres, "`postgres.TABLE`"),
        Uses::Archive => ("archive", System::Lake, "`lake.TABLE`"),
    };
    if into.system != store {
        let what = fields.what("into");
        report.at(mark, format!("{what} is `{into}`, but a function that uses `{name}` writes to {example}"));
    }
    into.system == store
}

/// `late` and `lateness`, which only means something to records that may be too late.
fn late(fields: &Fields<'_>, report: &mut Report) -> (Late, i64) {
    let chosen = fields.get("late").map(|node| fields::choice(node, &fields.what("late"), &LATES, report));
    let lateness_ms = fields.duration_ms("lateness", 365 * DAY_MS, report).unwrap_or(0);
    if matches!(chosen, None | Some(Some(Late::Merge))) {
        let reason = "late records are merged however late they are; set `late: dead-letter` if they shouldn't be";
        fields.refuse(&["lateness"], reason, report);
    }
    (chosen.flatten().unwrap_or_default(), lateness_ms)
}

/// A topic or a list of topics.
fn from(node: &Node, fields: &Fields<'_>, topics: &Topics, report: &mut Report) -> Option<Vec<String>> {
    let what = fields.what("from");
    let nodes = match &node.value {
        Value::List(nodes) if nodes.is_empty() => {
            report.at(node.mark, format!("{what} is an empty list; name at least one topic"));
            return None;
        }
        Value::List(nodes) => nodes.iter().collect(),
        _ => vec![node],
    };
    let mut from: Vec<String> = Vec::new();
    for node in &nodes {
        let Some(name) = fields::text(node, &what, report) else { continue };
        if !topics.contains_key(&name) {
            unknown_topic(node.mark, &what, &name, topics, report);
        } else if from.contains(&name) {
            report.at(node.mark, format!("{what} names the topic `{name}` twice"));
        } else {
            from.push(name);
        }
    }
    (from.len() == nodes.len()).then_some(from)
}

fn sql(uses: Option<Uses>, fields: &Fields<'_>, file_text: &str, report: &mut Report) -> Option<Located<String>> {
    let node = match uses {
        Some(Uses::Aggregate) => fields.require("sql", "a SELECT with GROUP BY over its topic", report)?,
        _ => fields.get("sql")?,
    };
    let value = fields.text("sql", report)?;
    if value.trim().is_empty() {
        report.at(node.mark, format!("{} is empty; write a SELECT over its topic", fields.what("sql")));
        return None;
    }
    let mark = node.content_mark(file_text);
    Some(Located { value, line: mark.line, column: mark.column })
}

fn key(fields: &Fields<'_>, topic: Option<&Topic>, report: &mut Report) -> Option<String> {
    let mark = fields.get("key")?.mark;
    let key = fields.text("key", report)?;
    let schema = &topic?.schema;
    if schema.field_with_name(&key).is_err() {
        let allowed = allowed(&key, schema.fields().iter().map(|field| field.name().as_str()));
        report.at(mark, format!("{} is `{key}`, which is not a field of its topic{allowed}", fields.what("key")));
    }
    Some(key)
}

fn batch(uses: Uses, fields: &Fields<'_>, report: &mut Report) -> Limits {
    let default = if uses == Uses::Archive { ARCHIVE_BATCH } else { AGGREGATE_BATCH };
    let batch = fields
        .entry("batch")
        .and_then(|entry| Fields::open(&entry.node, entry.mark, fields.what("batch"), &BATCH_FIELDS, report));
    let Some(batch) = batch else { return default };
    let records = batch.integer("max_records", 1..=1_000_000, report);
    let bytes = batch.bytes("max_bytes", 1024..=MAX_BATCH_BYTES, report);
    let wait_ms = batch.duration_ms("max_wait", MAX_WAIT_MS, report);
    Limits {
        max_records: records.map_or(default.max_records, |records| records as usize),
        max_bytes: bytes.map_or(default.max_bytes, |bytes| bytes as usize),
        max_wait_ms: wait_ms.map_or(default.max_wait_ms, |ms| ms as u64),
    }
}

/// A test's `expect` names a sink as a function does.
pub(crate) fn expected(name: &str, mark: Mark, what: &str, targets: &[&Target], report: &mut Report) -> Option<Target> {
    let found = targets.iter().find(|target| target.to_string() == name);
    if found.is_none() {
        let names: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let allowed = allowed(name, names.iter().map(String::as_str));
        report.at(mark, format!("{what} names `{name}`, which no function of this file writes to{allowed}"));
    }
    found.map(|target| (*target).clone())
}
