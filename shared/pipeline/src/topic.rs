use arrow::datatypes::{DataType, SchemaRef};
use millstream_core::{Compression, Tombstones};

use crate::{
    diagnostic::{Report, allowed},
    fields::Fields,
    node::Entry,
    types,
};

/// A topic: how it is made, and what its records look like.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// How many partitions it is created with, 1 to 10,000.
    pub partitions: i32,
    /// Which incarnation of the topic this is, from 1; raised by the user when it is deleted and re-created.
    pub generation: u32,
    /// How values are encoded.
    pub format: Format,
    /// The fields in the declared order. Timestamps are `Timestamp(Microsecond, UTC)`; the unit of those that arrive as
    /// numbers is in the field's metadata under [`crate::EPOCH_METADATA`].
    pub schema: SchemaRef,
    /// The field that holds the event time, a not-null timestamp; none takes Kafka's timestamp.
    pub event_time: Option<String>,
    /// How producers compress batches.
    pub compression: Compression,
    /// What a null value is.
    pub tombstones: Tombstones,
}

/// How values are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object each.
    #[default]
    Json,
}

pub(crate) const FORMATS: [(&str, Format); 1] = [("json", Format::Json)];
pub(crate) const COMPRESSIONS: [(&str, Compression); 5] = [
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];
pub(crate) const TOMBSTONES: [(&str, Tombstones); 2] =
    [("dead-letter", Tombstones::DeadLetter), ("skip", Tombstones::Skip)];
pub(crate) const MAX_PARTITIONS: i64 = 10_000;
pub(crate) const TOPIC_FIELDS: [&str; 7] =
    ["partitions", "generation", "format", "schema", "event_time", "compression", "tombstones"];

/// Reads one entry of `topics:`.
pub(crate) fn read(entry: &Entry, report: &mut Report) -> Option<Topic> {
    let name = &entry.key;
    let valid = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if name.is_empty() || name.len() > 249 || !name.chars().all(valid) || [".", ".."].contains(&name.as_str()) {
        let rule = "use 1 to 249 letters, digits, `.`, `_` and `-` (Kafka's rule)";
        report.at(entry.mark, format!("`{name}` can't be the name of a topic; {rule}"));
    }
    let fields = Fields::open(&entry.node, entry.mark, format!("topic `{name}`"), &TOPIC_FIELDS, report)?;
    let partitions = fields
        .require("partitions", "how many the topic is created with, such as 3", report)
        .and_then(|_| fields.integer("partitions", 1..=MAX_PARTITIONS, report));
    let generation = fields.integer("generation", 1..=i64::from(u32::MAX), report).unwrap_or(1);
    let format = fields.choice("format", &FORMATS, report);
    let compression = fields.choice("compression", &COMPRESSIONS, report);
    let tombstones = fields.choice("tombstones", &TOMBSTONES, report);
    let schema = fields
        .require("schema", "its fields and their types, such as `{ id: string, at: timestamp }`", report)
        .and_then(|node| types::schema(node, &fields.place, report));
    let event_time = schema.as_ref().and_then(|schema| event_time(&fields, schema, report));
    Some(Topic {
        partitions: partitions? as i32,
        generation: generation as u32,
        format,
        schema: schema?,
        event_time,
        compression,
        tombstones,
    })
}

fn event_time(fields: &Fields<'_>, schema: &SchemaRef, report: &mut Report) -> Option<String> {
    let mark = fields.get("event_time")?.mark;
    let (name, place) = (fields.text("event_time", report)?, &fields.place);
    match schema.field_with_name(&name) {
        Err(_) => {
            let allowed = allowed(&name, schema.fields().iter().map(|field| field.name().as_str()));
            report.at(mark, format!("`event_time` in {place} is `{name}`, which is not a field of its schema{allowed}"));
        }
        Ok(field) if !matches!(field.data_type(), DataType::Timestamp(..)) => report.at(
            mark,
            format!("`event_time` in {place} is `{name}`, which is not a timestamp; give that field the type `timestamp not null`, or `timestamp(ms) not null` for numbers"),
        ),
        Ok(field) if field.is_nullable() => report.at(
            mark,
            format!("`event_time` in {place} is `{name}`, which may be null; add ` not null` to its type, so that a record without it goes to the dead letters"),
        ),
        Ok(_) => return Some(name),
    }
    None
}
