use arrow::datatypes::{DataType, SchemaRef};
use millstream_core::{Compression, FIRST_REDRIVE, Tombstones};

use crate::{
    diagnostic::{Report, list_allowed},
    fields::Fields,
    names::{TOPIC_NAME_RULE, is_topic_name},
    node::Entry,
    shape::{Field, Form, Mapping, Presence, Shape, words},
    types,
};

/// A topic: how it is created, and what its records look like.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// How many partitions it is created with, 1 to 10,000.
    pub partitions: i32,
    /// Which generation of the topic this is, from 1. The user raises it when the topic is deleted and re-created.
    pub generation: u32,
    /// How values are encoded.
    pub format: Format,
    /// The fields in the declared order. Timestamps are `Timestamp(Microsecond, UTC)`; the unit of those that arrive as
    /// numbers is in the field's metadata under [`crate::EPOCH_METADATA`].
    pub schema: SchemaRef,
    /// The field that holds the event time, a not-null timestamp; without it, the event time is Kafka's timestamp.
    pub event_time: Option<String>,
    /// How producers compress batches.
    pub compression: Compression,
    /// What happens to a record without a value.
    pub tombstones: Tombstones,
    /// The function whose event store this is, for one that is no topic of the log but is read like one: its schema is known when
    /// that function has been planned, and empty before.
    pub feed_of: Option<String>,
}

/// How values are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object each.
    #[default]
    Json,
}

const FORMATS: [(&str, Format); 1] = [("json", Format::Json)];
const COMPRESSIONS: [(&str, Compression); 5] = [
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];
const TOMBSTONES: [(&str, Tombstones); 2] = [("dead-letter", Tombstones::DeadLetter), ("skip", Tombstones::Skip)];

pub(crate) static TOPIC: Mapping = Mapping {
    name: "Topic",
    doc: "A topic: how it is created, and what its records look like.",
    fields: &[
        Field {
            name: "partitions",
            shape: Shape::Integer(1..=10_000),
            presence: Presence::Required,
            doc: "How many partitions it is created with.",
        },
        Field {
            name: "generation",
            shape: Shape::Integer(1..=FIRST_REDRIVE as i64),
            presence: Presence::Default("1"),
            doc: "Raise it when the topic was deleted and re-created: its offsets start at 0 again.",
        },
        Field {
            name: "format",
            shape: Shape::Choice(|| words(&FORMATS)),
            presence: Presence::Default("json"),
            doc: "How values are encoded.",
        },
        Field {
            name: "schema",
            shape: Shape::Named(&Shape::FieldType),
            presence: Presence::Required,
            doc: "The fields in order, each with its type.",
        },
        Field {
            name: "event_time",
            shape: Shape::Text,
            presence: Presence::Optional,
            doc: "The field that holds the event time, a `timestamp not null`. Without it, the event time is Kafka's timestamp.",
        },
        Field {
            name: "compression",
            shape: Shape::Choice(|| words(&COMPRESSIONS)),
            presence: Presence::Default("gzip"),
            doc: "How producers compress batches.",
        },
        Field {
            name: "tombstones",
            shape: Shape::Choice(|| words(&TOMBSTONES)),
            presence: Presence::Default("dead-letter"),
            doc: "What happens to a record without a value: it becomes a dead letter, or is skipped.",
        },
    ],
    form: Form::Fields,
};

/// Reads one entry of `topics:`.
pub(crate) fn read_topic(entry: &Entry, report: &mut Report) -> Option<Topic> {
    let name = &entry.key;
    if !is_topic_name(name) {
        report.at(entry.mark, format!("`{name}` can't be the name of a topic; use {TOPIC_NAME_RULE}"));
    }
    let fields = Fields::open(&entry.node, entry.mark, format!("topic `{name}`"), &TOPIC, report)?;
    let partitions = fields
        .require("partitions", "how many the topic is created with, such as 3", report)
        .and_then(|_| fields.integer("partitions", report));
    let generation = fields.integer("generation", report).unwrap_or(1);
    let format = fields.choice("format", &FORMATS, report);
    let compression = fields.choice("compression", &COMPRESSIONS, report);
    let tombstones = fields.choice("tombstones", &TOMBSTONES, report);
    let schema = fields
        .require("schema", "its fields and their types, such as `{ id: string, at: timestamp }`", report)
        .and_then(|node| types::read_schema(node, &fields.place, report));
    let event_time = schema.as_ref().and_then(|schema| read_event_time(&fields, schema, report));
    Some(Topic {
        partitions: partitions? as i32,
        generation: generation as u32,
        format,
        schema: schema?,
        event_time,
        compression,
        tombstones,
        feed_of: None,
    })
}

fn read_event_time(fields: &Fields<'_>, schema: &SchemaRef, report: &mut Report) -> Option<String> {
    let mark = fields.get("event_time")?.mark;
    let (name, label) = (fields.text("event_time", report)?, fields.label("event_time"));
    let wrong = match schema.field_with_name(&name) {
        Err(_) => {
            let allowed = list_allowed(&name, schema.fields().iter().map(|field| field.name().as_str()));
            format!("which is not a field of its schema{allowed}")
        }
        Ok(field) if !matches!(field.data_type(), DataType::Timestamp(..)) => {
            let hint = "give that field the type `timestamp not null`, or `timestamp(ms) not null` for numbers";
            format!("which is not a timestamp; {hint}")
        }
        Ok(field) if field.is_nullable() => {
            let hint = "add ` not null` to its type, so that a record without it goes to the dead letters";
            format!("which may be null; {hint}")
        }
        Ok(_) => return Some(name),
    };
    report.at(mark, format!("{label} is `{name}`, {wrong}"));
    None
}
