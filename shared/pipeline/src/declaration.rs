//! The part of a pipeline file that decides what a function's table holds.

use arrow::datatypes::{DataType, Field as ArrowField, Schema};
use millstream_core::EPOCH_METADATA;
use serde_json::Value as Json;

use crate::{Pipeline, Reading, Reference, ReferenceFrom, Topic};

impl Pipeline {
    /// What decides the rows of a function's table, as a pipeline file of its own: the statement, the topics that it reads
    /// and the `references`, and what it takes for late. What only decides when and where the function begins, or how
    /// large its batches are, is left out. It is JSON, which is YAML: [`Pipeline::parse`] reads it.
    ///
    /// A store keeps it beside the table, so that a later version can say what has changed. None for a function that reads
    /// no topic.
    pub fn declaration(&self, function: &str, references: &[&str]) -> Option<String> {
        let declared = self.functions.get(function)?;
        let reading = declared.reading()?;
        let topics = reading.topics().filter_map(|name| Some((name.as_str(), topic(self.topics.get(name)?))));
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
mod tests {
    use super::*;

    const FILE: &str = r#"
name: shop
topics:
  orders:
    partitions: 7
    generation: 3
    compression: zstd
    event_time: at
    schema:
      z: string
      product: string not null
      price: "decimal(18,2) not null"
      at: timestamp(ms) not null
      when: timestamp
      raw: binary
      day: date
      numbers: { "it's \"odd\"": int, b: bigint, f: float, d: double not null, yes: boolean }
      items: [{ price: "decimal(4,4)", tags: [string] }]
  plain: { partitions: 1, schema: { a: bigint } }
functions:
  sales:
    uses: aggregate
    from: [orders, plain]
    sql: |
      SELECT product, -- "why"
             count(*) AS n FROM orders GROUP BY 1
    into: postgres.sales
    late: dead-letter
    lateness: 2h
    start: latest
    batch: { max_records: 7 }
  all: { uses: archive, from: plain, into: lake.plain }
references:
  p: { from: postgres.products, refresh: 1m, schema: { x: string not null } }
  q: { from: lake.folder/q.parquet, schema: { x: int } }
"#;

    #[test]
    fn a_declaration_is_a_pipeline_file_of_the_same_meaning() {
        let pipeline = Pipeline::parse(FILE, "pipeline.yaml".as_ref()).unwrap();
        let text = pipeline.declaration("sales", &["p", "q"]).unwrap();
        let read = Pipeline::parse(&text, "pipeline.yaml".as_ref()).unwrap();
        assert_eq!(read.declaration("sales", &["p", "q"]), Some(text.clone()));
        assert_eq!(read.functions.keys().collect::<Vec<_>>(), ["sales"]);
        let (before, after) = (&pipeline.functions["sales"], &read.functions["sales"]);
        let (was, is) = (before.reading().unwrap(), after.reading().unwrap());
        assert_eq!((&was.from, &was.sql.text), (&is.from, &is.sql.text));
        assert_eq!((was.lateness_ms, was.ahead_ms, &before.into), (is.lateness_ms, is.ahead_ms, &after.into));
        for (name, topic) in &read.topics {
            let before = &pipeline.topics[name];
            assert_eq!(
                (&topic.schema, topic.generation, &topic.event_time),
                (&before.schema, before.generation, &before.event_time)
            );
        }
        for (name, reference) in &read.references {
            let before = &pipeline.references[name];
            assert_eq!((&reference.from, &reference.schema), (&before.from, &before.schema));
        }
        assert!(!text.contains("zstd") && !text.contains("max_records") && !text.contains("latest"), "{text}");
    }

    #[test]
    fn what_only_decides_where_a_declared_functionbegins_is_not_in_it() {
        let of = |text: &str| {
            let pipeline = Pipeline::parse(text, "pipeline.yaml".as_ref()).unwrap();
            (pipeline.declaration("sales", &[]), pipeline.declaration("all", &[]))
        };
        let other = FILE.replace("latest", "earliest").replace("partitions: 7", "partitions: 9").replace("1m", "2m");
        assert_eq!(of(FILE), of(&other));
        assert_ne!(of(FILE), of(&FILE.replace("generation: 3", "generation: 4")));
        assert!(of(FILE).1.unwrap().contains("SELECT"), "the default statement is spelled out");
    }
}
