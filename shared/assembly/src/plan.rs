use std::{collections::BTreeMap, sync::Arc};

use millstream_codec::{JsonDecoder, JsonOptions, full_schema};
use millstream_core::{Column, Decode, meta};
use millstream_pipeline::{Diagnostic, Format, Function, Pipeline, Reading, Reference, Topic};
use millstream_sql::{Input, Planned, ReferenceTable, SqlError, Statement};

use crate::{NotRunnable, feeds, kept, output::find_misfit, used::joined_by};

/// A function of a pipeline file, planned: all that is known of it without any service.
pub struct FunctionPlan {
    /// Its table, its transform and the columns it reads.
    pub planned: Planned,
    /// Bytes to the columns that it reads, by topic.
    pub decoders: BTreeMap<String, Arc<dyn Decode>>,
    /// The references that the statement may join; their rows are loaded by whoever runs it.
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
    let reading =
        function.reading().ok_or_else(|| place(1, 1, NotRunnable { function: name.to_owned() }.to_string()))?;
    let at = |error: SqlError| {
        let (line, column) = reading.sql.position_in_file(error.line.zip(error.column));
        place(line, column, format!("function `{name}`: {}", error.message))
    };
    let topics = topics_of(pipeline, reading);
    if let Some((feed, writer)) = topics.iter().find_map(|(name, topic)| feeds::unknown(name, topic)) {
        return Err(at(refusal(&format!("it reads {feed}, and the function `{writer}`, which keeps that, is wrong"))));
    }
    let references = reference_tables(pipeline);
    let statement = statement(pipeline, function, reading, references.clone());
    let mut planned = millstream_sql::plan(&statement).await.map_err(at)?;
    if planned.table.combine.is_some() {
        check_merging(function).map_err(|message| at(refusal(&message)))?;
    }
    if let Some(topic) = pipeline.topics.get(&function.into.name).filter(|_| function.into.system.is_log()) {
        let misfit = find_misfit(&function.into.name, topic, reading, &planned.table);
        misfit.map_or(Ok(()), |message| Err(at(refusal(&message))))?;
    }
    if function.uses.keeps_positions() {
        kept::check(pipeline, function).map_err(|message| at(refusal(&message)))?;
        kept::name_entity(function, reading, &mut planned.table).map_err(|message| at(refusal(&message)))?;
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

/// The columns of a function's statement, without planning how it runs; none if it is wrong.
pub(crate) fn columns(pipeline: &Pipeline, function: &Function, reading: &Reading) -> Option<Vec<Column>> {
    millstream_sql::columns(&statement(pipeline, function, reading, reference_tables(pipeline))).ok()
}

/// The tables of the pipeline's references, without rows.
fn reference_tables(pipeline: &Pipeline) -> Vec<Arc<ReferenceTable>> {
    let table = |(name, reference): (&String, &Reference)| {
        let of = if reference.lookup { ReferenceTable::asked } else { ReferenceTable::new };
        Arc::new(of(name.clone(), Arc::clone(&reference.schema)))
    };
    pipeline.references.iter().map(table).collect()
}

/// The statement of a planned function, over the rows that its references have now.
pub(crate) fn statement_of<'a>(
    pipeline: &'a Pipeline,
    name: &str,
    plan: &FunctionPlan,
) -> Result<Statement<'a>, NotRunnable> {
    let function = pipeline.functions.get(name);
    let found = function.and_then(|function| Some((function, function.reading()?)));
    let (function, reading) = found.ok_or_else(|| NotRunnable { function: name.to_owned() })?;
    Ok(statement(pipeline, function, reading, plan.references.clone()))
}

fn statement<'a>(
    pipeline: &Pipeline,
    function: &'a Function,
    reading: &'a Reading,
    references: Vec<Arc<ReferenceTable>>,
) -> Statement<'a> {
    let topics = topics_of(pipeline, reading).into_iter();
    let inputs = topics.map(|(name, topic)| Input { name: name.clone(), schema: full_schema(&topic.schema) });
    let carried: &[&str] = match function.uses {
        _ if function.into.system.is_log() => &CARRIED,
        uses if uses.keeps_positions() => &CARRIED[..2],
        _ => &[],
    };
    Statement { sql: &reading.sql.text, inputs: inputs.collect(), references, into: &function.into.name, carried }
}

/// What a record that is made of another one takes from it.
const CARRIED: [&str; 3] = [meta::OFFSET, meta::TIMESTAMP, meta::HEADERS];

fn topics_of<'a>(pipeline: &'a Pipeline, reading: &Reading) -> Vec<(&'a String, &'a Topic)> {
    reading.topics().filter_map(|topic| pipeline.topics.get_key_value(topic)).collect()
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

/// A statement with aggregates needs a sink that merges rows, and a kind of function that does.
fn check_merging(function: &Function) -> Result<(), String> {
    if !function.into.system.merges() {
        return Err(
            "aggregates merge into rows that are there, and files never change: write them into postgres".into()
        );
    }
    if !function.uses.merges() {
        let kind = function.uses.name();
        return Err(format!(
            "aggregates merge into rows that are there, and a function that uses `{kind}` appends rows: use `aggregate`"
        ));
    }
    Ok(())
}
