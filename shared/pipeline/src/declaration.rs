//! The part of a pipeline file that decides what a function's table holds.

use arrow::datatypes::{DataType, Field as ArrowField, Schema};
use millstream_core::EPOCH_METADATA;
use serde_json::Value as Json;

use crate::{Pipeline, Reading, Reference, ReferenceFrom, Topic};

impl Pipeline {
    /// What decides the rows of a function's table, as a pipeline file of its own: the statement, the topics that it reads
    /// or writes and the `references`, and what it takes for late. What only decides when and where the function begins, or how
    /// large its batches are, is left out. It is JSON, which is YAML: [`Pipeline::parse`] reads it.
    ///
    /// A store keeps it beside the table, so that a later version can say what has changed. None for a function that reads
    /// no topic.
    pub fn declaration(&self, function: &str, references: &[&str]) -> Option<String> {
        let declared = self.functions.get(function)?;
        let reading = declared.reading()?;
        let output = Some(&declared.into.name).filter(|_| declared.into.system.is_log());
        let named = reading.topics().chain(output);
        let topics = named.filter_map(|name| Some((name.as_str(), topic(self.topics.get(name)?))));
        let topics = object(topics);
        let references = references.iter().filter_map(|name| Some((*name, reference(self.references.get(*name)?))));
        let references = object(references);
        let declared_function = object(
            [
                ("uses", text(declared.uses.name())),
                ("from", list(reading.from.iter().map(|place| text(&place.to_string())))),
                ("sql", text(&reading.sql.text)),
                ("into", text(&declared.into.to_string())),
            ]
            .into_iter()
            .chain(reading.key.as_ref().map(|key| ("key", text(key))))
            .chain(reading.timestamp.as_ref().map(|field| ("timestamp", text(field))))
            .chain(reading.partition.as_ref().map(|field| ("partition", text(field))))
            .chain(judged(reading)),
        );
        let mut sections = vec![
            ("name", text(&self.name)),
            ("topics", topics),
            ("functions", object([(function, declared_function)])),
        ];
        if references != "{}" {
            sections.push(("references", references));
        }
        Some(object(sections))
    }
}

/// Which events the function leaves out.
fn judged(reading: &Reading) -> Vec<(&'static str, String)> {
    let milliseconds = |ms: i64| text(&format!("{ms}ms"));
    let late = reading.lateness_ms.map(|ms| [("late", text("dead-letter")), ("lateness", milliseconds(ms))]);
    let ahead = reading.ahead_ms.map(|ms| ("ahead", milliseconds(ms)));
    late.into_iter().flatten().chain(ahead).collect()
}

fn topic(topic: &Topic) -> String {
    let generation = ("generation", topic.generation.to_string());
    let event_time = topic.event_time.as_ref().map(|field| ("event_time", text(field)));
    let rest = [("partitions", "1".to_owned()), generation].into_iter().chain(event_time);
    object(rest.chain([("schema", schema(&topic.schema))]))
}

fn reference(reference: &Reference) -> String {
    let from = match &reference.from {
        ReferenceFrom::File(file) => ("file", text(&file.display().to_string())),
        ReferenceFrom::Postgres(table) => ("from", text(&format!("postgres.{table}"))),
        ReferenceFrom::Cassandra(table) => ("from", text(&format!("cassandra.{table}"))),
        ReferenceFrom::Cosmos(table) => ("from", text(&format!("cosmos.{table}"))),
        ReferenceFrom::Lake(file) => ("from", text(&format!("lake.{}", file.display()))),
    };
    object([from, ("schema", schema(&reference.schema))])
}

fn schema(schema: &Schema) -> String {
    object(schema.fields().iter().map(|field| (field.name().as_str(), field_type(field))))
}

fn field_type(field: &ArrowField) -> String {
    let scalar = match field.data_type() {
        DataType::Struct(fields) => {
            return object(fields.iter().map(|field| (field.name().as_str(), field_type(field))));
        }
        DataType::List(item) => return list([field_type(item)]),
        DataType::Utf8 => "string".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int32 => "int".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "float".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Binary => "binary".to_owned(),
        DataType::Timestamp(..) => match field.metadata().get(EPOCH_METADATA) {
            Some(unit) => format!("timestamp({unit})"),
            None => "timestamp".to_owned(),
        },
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        // A schema has no other types.
        other => other.to_string(),
    };
    text(&format!("{scalar}{}", if field.is_nullable() { "" } else { " not null" }))
}

fn text(text: &str) -> String {
    Json::from(text).to_string()
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

/// In the order given: that of a schema's fields matters, for `SELECT *`.
fn object<'a>(entries: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let entries = entries.into_iter().map(|(name, value)| format!("{}: {value}", text(name)));
    format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests;
