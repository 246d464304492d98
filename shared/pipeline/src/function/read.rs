use std::{collections::BTreeMap, path::Path};

use arrow::datatypes::DataType;
use millstream_core::{Late, Limits, PartitionBy, type_name};

use super::{
    AHEAD_MS, BATCH, FOLDERS, FUNCTION, Function, LATES, Making, ON_GAPS, Origin, Reading, STARTS, Statement, Work,
};
use crate::{
    Place, System, Topic,
    diagnostic::{Mark, Report, list_allowed},
    fields::{self, Fields},
    generate,
    kinds::{self, MAKING, Reads, Sql},
    names::{NAME_RULE, is_name},
    node::Entry,
    place, poll, webhook,
};

/// The topics of the file by name; none for one that is declared but wrong.
pub(crate) type Topics = BTreeMap<String, Option<Topic>>;

/// Reads one entry of `functions:`. The mark is that of `into`; `folder` is that of the pipeline file.
pub(crate) fn read_function(
    entry: &Entry,
    topics: &Topics,
    file_text: &str,
    folder: &Path,
    report: &mut Report,
) -> Option<(Function, Mark)> {
    let name = &entry.key;
    if !is_name(name) {
        report.at(entry.mark, format!("`{name}` can't be the name of a function; use {NAME_RULE}"));
    }
    let fields = Fields::open(&entry.node, entry.mark, format!("function `{name}`"), &FUNCTION, report)?;
    let hint = format!("which kind of function it is: {}", kinds::names());
    let kind = fields
        .require("uses", &hint, report)
        .and_then(|node| fields::choice(node, &fields.label("uses"), &kinds::choices(), report));
    if let Some(kind) = kind {
        kind.check_fields(&fields, report);
    }
    let into_node = fields.require("into", "its one sink, such as `postgres.totals`", report);
    let into = into_node.and_then(|node| place::read_sink(node, kind, &fields, topics, report));
    let topic = into.as_ref().filter(|into| into.system == System::Topic);
    let topic = topic.and_then(|into| topics.get(&into.name)?.as_ref());
    let work = match kind.map(|kind| kind.reads.as_ref()) {
        Some(None) => read_making(&fields, topic, folder, report).map(Work::Make),
        Some(Some(reads)) => read_reading(reads, &fields, topics, file_text, report)
            .map(|reading| Work::Read(address(reading, &fields, topic, report))),
        None => {
            // Its topics can be wrong too, whatever kind it is.
            fields.get("from").and_then(|node| place::read_sources(node, usize::MAX, &fields, topics, report));
            None
        }
    };
    let partition_by = kind
        .filter(|kind| kind.refusal("partition_by").is_none())
        .and_then(|_| read_partition_by(&fields, into.as_ref(), report));
    Some((Function { uses: kind?.uses, into: into?, partition_by, work: work? }, into_node?.mark))
}

/// Which folders files go to. The name of a column is answered with the reason why it can't be one.
fn read_partition_by(fields: &Fields<'_>, into: Option<&Place>, report: &mut Report) -> Option<PartitionBy> {
    let node = fields.get("partition_by")?;
    if into.is_some_and(|into| into.system != System::Lake) {
        fields.refuse(&["partition_by"], "only a table in the lake has folders: `into: lake.TABLE`", report);
        return None;
    }
    let given = node.scalar();
    let found = given.as_deref().and_then(|given| FOLDERS.iter().find(|(name, _)| *name == given));
    if found.is_none() {
        let (label, given) = (fields.label("partition_by"), fields::describe_value(node));
        report.at(
            node.mark,
            format!(
                "{label} can't be {given}; it can be `date` or `hour`, by the log's time. A file is one write, which holds the \
                 records of a batch whatever they are, so that none is there twice or missing after a crash: its folder can't \
                 follow a column. Write a function for each value, with WHERE in its `sql`"
            ),
        );
    }
    found.map(|(_, by)| *by)
}

fn read_making(fields: &Fields<'_>, topic: Option<&Topic>, folder: &Path, report: &mut Report) -> Option<Making> {
    let given: Vec<&str> = MAKING.into_iter().filter(|name| fields.get(name).is_some()).collect();
    if let [first, others @ ..] = given.as_slice() {
        fields.refuse(others, &format!("its records come from `{first}`; keep one of them"), report);
    }
    let origin = match (fields.get("poll"), fields.get("webhook"), fields.get("generate")) {
        (Some(node), ..) => poll::read_poll(node, fields, folder, report).map(Origin::Poll),
        (_, Some(node), _) => webhook::read_webhook(node, fields, topic, report).map(Origin::Webhook),
        _ => fields
            .require("generate", "how its records are made up; or `poll` or `webhook`", report)
            .and_then(|node| generate::read_generate(node, fields, topic, report))
            .map(Origin::Generate),
    };
    let key = read_key(fields, topic, report);
    Some(Making { origin: origin?, key })
}

/// What the records that a function writes are called by, and where they go.
fn address(reading: Reading, fields: &Fields<'_>, topic: Option<&Topic>, report: &mut Report) -> Reading {
    let (is_time, is_number) =
        (|of: &DataType| matches!(of, DataType::Timestamp(..)), |of: &DataType| of.is_signed_integer());
    // What is no field of a topic is a column of the statement, which is planned later.
    let key = if topic.is_some() { read_key(fields, topic, report) } else { fields.text("key", report) };
    let timestamp = read_field(fields, "timestamp", topic, Some(("a timestamp", is_time)), report);
    let partition = read_field(fields, "partition", topic, Some(("an integer", is_number)), report);
    Reading { key, timestamp, partition, ..reading }
}

fn read_key(fields: &Fields<'_>, topic: Option<&Topic>, report: &mut Report) -> Option<String> {
    read_field(fields, "key", topic, None, report)
}

/// What types a field may have: in words, and as a question.
type Wanted<'a> = (&'a str, fn(&DataType) -> bool);

/// A field of the topic that a function writes to, of the types that `wanted` takes.
fn read_field(
    fields: &Fields<'_>,
    name: &str,
    topic: Option<&Topic>,
    wanted: Option<Wanted<'_>>,
    report: &mut Report,
) -> Option<String> {
    let mark = fields.get(name)?.mark;
    let (field, label) = (fields.text(name, report)?, fields.label(name));
    let schema = &topic?.schema;
    match schema.field_with_name(&field) {
        Err(_) => {
            let allowed = list_allowed(&field, schema.fields().iter().map(|field| field.name().as_str()));
            report.at(mark, format!("{label} is `{field}`, which is not a field of its topic{allowed}"));
        }
        Ok(found) => {
            if let Some((what, _)) = wanted.filter(|(_, takes)| !takes(found.data_type())) {
                let is = type_name(found.data_type());
                report.at(mark, format!("{label} is `{field}`, which must be {what}; it is {is}"));
            }
        }
    }
    Some(field)
}

fn read_reading(
    reads: &Reads,
    fields: &Fields<'_>,
    topics: &Topics,
    file_text: &str,
    report: &mut Report,
) -> Option<Reading> {
    let from = fields
        .require("from", "the topic that it reads, or a list of topics", report)
        .and_then(|node| place::read_sources(node, reads.most_topics, fields, topics, report));
    let sql = read_sql(reads, from.as_deref(), fields, file_text, report);
    let (lateness_ms, ahead_ms) = if reads.judges_time {
        (read_lateness(fields, report), Some(fields.duration_ms("ahead", report).unwrap_or(AHEAD_MS)))
    } else {
        (None, None)
    };
    let (start, on_gap) = (fields.choice("start", &STARTS, report), fields.choice("on_gap", &ON_GAPS, report));
    let batch = read_batch(reads.batch, fields, report);
    let every_ms = reads.every_ms.map(|default_ms| fields.duration_ms("every", report).unwrap_or(default_ms) as u64);
    Some(Reading {
        from: from?,
        sql: sql?,
        start,
        on_gap,
        lateness_ms,
        ahead_ms,
        batch,
        every_ms,
        key: None,
        timestamp: None,
        partition: None,
    })
}

/// The statement of the file, or the default for `from` (none when that is wrong, and reported).
fn read_sql(
    reads: &Reads,
    from: Option<&[Place]>,
    fields: &Fields<'_>,
    file_text: &str,
    report: &mut Report,
) -> Option<Statement> {
    let node = match (&reads.sql, from) {
        (Sql::Required(hint), _) => fields.require("sql", hint, report)?,
        (Sql::Default(_), Some([_, _, ..])) => {
            fields.require("sql", "it reads several topics; write a SELECT, or one function for each topic", report)?
        }
        (Sql::Default(default), Some([topic])) if fields.get("sql").is_none() => {
            let Mark { line, column } = fields.mark;
            return Some(Statement { text: default(&topic.name), line, column, is_default: true });
        }
        (Sql::Default(_), _) => fields.get("sql")?,
    };
    let text = fields.text("sql", report)?;
    if text.trim().is_empty() {
        report.at(node.mark, format!("{} is empty; write a SELECT over its topic", fields.label("sql")));
        return None;
    }
    let Mark { line, column } = node.content_mark(file_text);
    Some(Statement { text, line, column, is_default: false })
}

/// `late` and `lateness`, which has a meaning only for dead letters.
fn read_lateness(fields: &Fields<'_>, report: &mut Report) -> Option<i64> {
    let chosen = fields.get("late").map(|node| fields::choice(node, &fields.label("late"), &LATES, report));
    let lateness_ms = fields.duration_ms("lateness", report).unwrap_or(0);
    if matches!(chosen, None | Some(Some(Late::Merge))) {
        let reason = "late records are merged however late they are; set `late: dead-letter` if they shouldn't be";
        fields.refuse(&["lateness"], reason, report);
    }
    (chosen == Some(Some(Late::DeadLetter))).then_some(lateness_ms)
}

fn read_batch(default: Limits, fields: &Fields<'_>, report: &mut Report) -> Limits {
    let batch = fields
        .entry("batch")
        .and_then(|entry| Fields::open(&entry.node, entry.mark, fields.label("batch"), &BATCH, report));
    let Some(batch) = batch else { return default };
    let records = batch.integer("max_records", report);
    let bytes = batch.bytes("max_bytes", report);
    let wait_ms = batch.duration_ms("max_wait", report);
    Limits {
        max_records: records.map_or(default.max_records, |records| records as usize),
        max_bytes: bytes.map_or(default.max_bytes, |bytes| bytes as usize),
        max_wait_ms: wait_ms.map_or(default.max_wait_ms, |ms| ms as u64),
    }
}
