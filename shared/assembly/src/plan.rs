use std::{collections::BTreeMap, sync::Arc};

use millstream_codec::{JsonDecoder, JsonOptions, full_schema};
use millstream_core::Decode;
use millstream_pipeline::{Diagnostic, Format, Function, Pipeline, System, Topic, Uses};
use millstream_sql::{Input, Planned, ReferenceTable, SqlError, Statement};

use crate::used::joined_by;

/// A function of a pipeline file, planned: all that is known of it without any service.
pub struct FunctionPlan {
    /// Its table, its transform and the columns it reads.
    pub planned: Planned,
    /// Bytes to the columns that it reads, by topic.
    pub decoders: BTreeMap<String, Arc<dyn Decode>>,
    /// The references that the statement joins; their rows are loaded when it is run.
    pub references: Vec<Arc<ReferenceTable>>,
}

/// Plans a function that reads topics.
///
/// # Errors
/// What is wrong with its SQL or its topics, at its place in the pipeline file.
pub async fn plan_function(pipeline: &Pipeline, name: &str) -> Result<FunctionPlan, Diagnostic> {
    let place = |line, column, message| Diagnostic { file: pipeline.file.clone(), line, column, message };
    let function = pipeline
        .functions
        .get(name)
        .ok_or_else(|| place(1, 1, format!("there is no function `{name}`; there are {}", names(pipeline))))?;
    let sql = sql_of(function).map_err(|message| place(1, 1, format!("function `{name}`: {message}")))?;
    let at = |error: SqlError| {
        let message = format!("function `{name}`: {}", error.message);
        match (&function.sql, error.line, error.column) {
            (Some(sql), Some(line), Some(column)) => place(sql.line + line - 1, sql.column + column - 1, message),
            (Some(sql), ..) => place(sql.line, sql.column, message),
            (None, ..) => place(1, 1, message),
        }
    };
    let topics: Vec<(&String, &Topic)> =
        function.from.iter().filter_map(|topic| pipeline.topics.get_key_value(topic)).collect();
    let inputs = topics.iter().map(|(name, topic)| Input { name: (*name).clone(), schema: full_schema(&topic.schema) });
    let references: Vec<_> = pipeline
        .references
        .iter()
        .map(|(name, reference)| Arc::new(ReferenceTable::new(name, Arc::clone(&reference.schema))))
        .collect();
    let statement =
        Statement { sql: &sql, inputs: inputs.collect(), references: references.clone(), into: &function.into.name };
    let planned = millstream_sql::plan(&statement).await.map_err(at)?;
    if function.into.system == System::Lake && planned.table.combine.is_some() {
        return Err(at(refusal(
            "aggregates merge into rows that are there, and files never change: write them into postgres",
        )));
    }
    let mut decoders = BTreeMap::new();
    for (name, topic) in topics {
        let columns = planned.columns.get(name).into_iter().flatten().cloned().collect();
        let decoder = decoder(topic, columns).map_err(|error| at(refusal(&error.to_string())))?;
        decoders.insert(name.clone(), decoder);
    }
    let is_joined = |table: &Arc<ReferenceTable>| joined_by(pipeline, function).any(|(name, _)| *name == table.name);
    let references = references.into_iter().filter(is_joined).collect();
    Ok(FunctionPlan { planned, decoders, references })
}

fn refusal(message: &str) -> SqlError {
    SqlError { message: message.to_owned(), line: None, column: None }
}

fn names(pipeline: &Pipeline) -> String {
    pipeline.functions.keys().cloned().collect::<Vec<_>>().join(", ")
}

fn decoder(topic: &Topic, columns: Vec<String>) -> millstream_core::Result<Arc<dyn Decode>> {
    match topic.format {
        Format::Json => Ok(Arc::new(JsonDecoder::new(JsonOptions {
            schema: Arc::clone(&topic.schema),
            columns: Some(columns),
            event_time: topic.event_time.clone(),
            tombstones: topic.tombstones,
        })?)),
    }
}

/// The statement that a function runs: its own, or for an archive without one every field with the record's position.
///
/// # Errors
/// Why there is none.
pub fn sql_of(function: &Function) -> Result<String, String> {
    if let Some(sql) = &function.sql {
        return Ok(sql.value.clone());
    }
    match (function.uses, function.from.as_slice()) {
        (Uses::Archive, [topic]) => {
            Ok(format!("SELECT *, _partition, _offset, _timestamp FROM \"{}\"", topic.replace('"', "\"\"")))
        }
        (Uses::Archive, _) => Err("an archive of several topics needs `sql`, or one function per topic".into()),
        _ => Err("needs `sql`".into()),
    }
}
