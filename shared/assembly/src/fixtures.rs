//! `millstream test`: a pipeline's own tests, with nothing but its fixtures.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::{
    array::{Array as _, RecordBatch},
    datatypes::Schema,
};
use millstream_core::{DeadLetter, Error, Limits, ManualClock, NewRecord, Result};
use millstream_pipeline::{Connections, ExpectedLetters, Fixture, Pipeline, Place, Topic};
use tempfile::TempDir;

use crate::{Function, Systems, csv_cells::cell_of, csv_table::csv_header, read_csv, rows::texts, schema_of};

/// Batches that the second run of a test has at most: each is a commit.
const MAX_BATCHES: usize = 500;
/// Dead letters of one test that are looked at.
const MAX_LETTERS: usize = 10_000;

/// What became of one test of the pipeline file.
#[derive(Clone, Debug)]
pub struct FixtureReport {
    /// Its name, or its number.
    pub name: String,
    /// What is not as expected; empty when it passed.
    pub differences: Vec<String>,
}

/// Reads the records of a given file: the topic, and the field that is the key where the pipeline says one.
pub type ReadGiven<'a> = &'a dyn Fn(&Path, &Topic, Option<&str>) -> Result<Vec<NewRecord>>;

/// Runs every test of the pipeline: the given records go through the real functions into embedded stores in a folder of
/// their own, and the tables and dead letters are compared with what is expected. Each test runs twice, in large batches
/// and record by record: what is cut otherwise must come out alike.
///
/// # Errors
/// `Stop` when a fixture can't be read or a function can't be run; a difference is no error.
pub async fn run_fixtures(pipeline: &Pipeline, read_given: ReadGiven<'_>) -> Result<Vec<FixtureReport>> {
    let mut reports = Vec::new();
    for (number, fixture) in pipeline.tests.iter().enumerate() {
        let name = fixture.name.clone().unwrap_or_else(|| format!("test {}", number + 1));
        let differences = run(pipeline, fixture, read_given).await.map_err(|error| error.context(&name))?;
        reports.push(FixtureReport { name, differences });
    }
    Ok(reports)
}

/// What the tables of a pipeline hold when the given records have gone through, as text of a CSV file each: the expected
/// file of a test that is being written.
///
/// # Errors
/// `Stop` when a file can't be read or a function can't be run.
pub async fn tables_of_given(
    pipeline: &Pipeline,
    given: &BTreeMap<String, std::path::PathBuf>,
    read_given: ReadGiven<'_>,
) -> Result<BTreeMap<Place, String>> {
    let ran = Ran::of(pipeline, given, read_given, Cut::Large).await?;
    let mut tables = BTreeMap::new();
    for (target, function) in &ran.functions {
        let schema = schema_of(&function.table);
        let names: Vec<_> = schema.fields().iter().map(|field| cell_of(field.name())).collect();
        let mut rows = Vec::new();
        for batch in shown(function).await? {
            rows.extend(csv_lines(&batch, "")?);
        }
        rows.sort();
        tables.insert(target.clone(), format!("{}\n{}\n", names.join(","), rows.join("\n")));
    }
    Ok(tables)
}

/// How the given records are cut into batches.
#[derive(Clone, Copy)]
enum Cut {
    Large,
    ByRecord,
}

/// The records of a test have gone through all functions.
struct Ran {
    functions: BTreeMap<Place, Function>,
    letters: Vec<DeadLetter>,
    /// Holds the embedded stores, until it is dropped.
    _folder: TempDir,
}

impl Ran {
    async fn of(
        pipeline: &Pipeline,
        given: &BTreeMap<String, std::path::PathBuf>,
        read_given: ReadGiven<'_>,
        cut: Cut,
    ) -> Result<Self> {
        let folder =
            tempfile::tempdir().map_err(|error| Error::stop("can't make a temporary folder").caused_by(error))?;
        let mut connections = Connections::read(&|_| None)?;
        connections.data_dir = folder.path().to_owned();
        // Records without a time of their own are all of 1970: the same each time.
        let systems = Systems::open(pipeline, &connections, Arc::new(ManualClock::default()))?;
        systems.create_topics(pipeline).await?;
        let mut most = 0;
        for (name, path) in given {
            let topic = &pipeline.topics[name];
            let records = read_given(&pipeline.path(path), topic, pipeline.key_of(name))?;
            most = most.max(records.len());
            systems.producer(topic)?.send(name, records).await?;
        }
        let mut functions = BTreeMap::new();
        for (name, declared, reading) in pipeline.readers() {
            let function = systems.function(pipeline, name).await?;
            let limits = match cut {
                Cut::Large => reading.batch,
                Cut::ByRecord => Limits { max_records: most.div_ceil(MAX_BATCHES).max(1), ..reading.batch },
            };
            function.drain_by(systems.source().as_ref(), limits).await?;
            functions.insert(declared.into.clone(), function);
        }
        let letters = systems.dead_letters(pipeline).list(None, MAX_LETTERS).await?;
        Ok(Self { functions, letters, _folder: folder })
    }
}

async fn run(pipeline: &Pipeline, fixture: &Fixture, read_given: ReadGiven<'_>) -> Result<Vec<String>> {
    let once = differences(pipeline, fixture, read_given, Cut::Large).await?;
    if !once.is_empty() {
        return Ok(once);
    }
    let again = differences(pipeline, fixture, read_given, Cut::ByRecord).await?;
    let cut = |line| format!("with one record a batch, unlike with all in one: {line}");
    Ok(again.into_iter().map(cut).collect())
}

async fn differences(
    pipeline: &Pipeline,
    fixture: &Fixture,
    read_given: ReadGiven<'_>,
    cut: Cut,
) -> Result<Vec<String>> {
    let ran = Ran::of(pipeline, &fixture.given, read_given, cut).await?;
    let mut differences = Vec::new();
    for (target, path) in &fixture.expect {
        let function = ran.functions.get(target).ok_or_else(|| Error::stop(format!("no function writes {target}")))?;
        let wrong = compare(function, &pipeline.path(path)).await?;
        differences.extend(wrong.into_iter().map(|line| format!("{target}: {line}")));
    }
    let none = ExpectedLetters::Count(0);
    for topic in pipeline.topics.keys() {
        let letters: Vec<_> = ran.letters.iter().filter(|letter| &letter.position.partition.topic == topic).collect();
        let wrong = compare_letters(&letters, fixture.dead_letters.get(topic).unwrap_or(&none));
        differences.extend(wrong.into_iter().map(|line| format!("dead letters of {topic}: {line}")));
    }
    Ok(differences)
}

/// The table as its readers see it.
async fn shown(function: &Function) -> Result<Vec<RecordBatch>> {
    let rows = function.runner.sink().snapshot().await?.rows;
    match (&function.table.combine, &function.table.view) {
        (Some(combine), Some(_)) => Ok(vec![combine.finish(&combine.combine(&rows).await?).await?.0]),
        _ => Ok(rows),
    }
}

/// The rows as a CSV file has them; a null is `null`.
fn csv_lines(batch: &RecordBatch, null: &str) -> Result<Vec<String>> {
    let texts = texts(batch)?;
    let cell = |column: usize, row: usize| match batch.column(column).is_null(row) {
        true => null.to_owned(),
        false => cell_of(&texts[column][row]).into_owned(),
    };
    let line = |row| (0..batch.num_columns()).map(|column| cell(column, row)).collect::<Vec<_>>().join(",");
    Ok((0..batch.num_rows()).map(line).collect())
}

/// Compares the columns that the file has.
async fn compare(function: &Function, path: &Path) -> Result<Vec<String>> {
    let all = schema_of(&function.table);
    let named = |name: &String| {
        let known: Vec<&str> = all.fields().iter().map(|field| field.name().as_str()).collect();
        all.index_of(name).map_err(|_| {
            Error::stop(format!("{}:1: no column `{name}`; there are {}", path.display(), known.join(", ")))
        })
    };
    let columns = csv_header(path)?.iter().map(named).collect::<Result<Vec<usize>>>()?;
    let schema = Arc::new(Schema::new(columns.iter().map(|index| all.field(*index).clone()).collect::<Vec<_>>()));
    let mut balance: BTreeMap<String, i64> = BTreeMap::new();
    let mut count = |batch: &RecordBatch, by: i64| -> Result<()> {
        csv_lines(batch, "null")?.into_iter().for_each(|line| *balance.entry(line).or_default() += by);
        Ok(())
    };
    for batch in shown(function).await? {
        let projected = batch.project(&columns);
        count(&projected.map_err(|error| Error::stop("internal: columns of the table").caused_by(error))?, 1)?;
    }
    count(&read_csv(path, &schema)?, -1)?;
    let line = |(row, times): (String, i64)| match times {
        0 => None,
        more if more > 0 => Some(format!("not expected: {row}")),
        _ => Some(format!("missing: {row}")),
    };
    Ok(balance.into_iter().filter_map(line).collect())
}

/// Compares by record: one that several functions could not process is one dead letter here.
fn compare_letters(letters: &[&DeadLetter], expected: &ExpectedLetters) -> Vec<String> {
    let mut records: BTreeMap<_, Vec<&DeadLetter>> = BTreeMap::new();
    letters.iter().for_each(|letter| records.entry(&letter.position).or_default().push(letter));
    let mut wrong = Vec::new();
    match expected {
        ExpectedLetters::Count(count) if *count == records.len() => return wrong,
        ExpectedLetters::Count(0) => {}
        ExpectedLetters::Count(count) => wrong.push(format!("{count} expected, {} there", records.len())),
        ExpectedLetters::Reasons(parts) => {
            for part in parts {
                let of_part = |letters: &Vec<&DeadLetter>| letters.iter().any(|letter| letter.reason.contains(part));
                let found = records.iter().find(|(_, letters)| of_part(letters)).map(|(position, _)| *position);
                match found {
                    Some(position) => drop(records.remove(position)),
                    None => wrong.push(format!("missing: one whose reason has `{part}`")),
                }
            }
        }
    }
    let line = |letter: &&DeadLetter| format!("{} of {}: {}", letter.position, letter.function, letter.reason);
    let not_expected = if matches!(expected, ExpectedLetters::Count(1..)) { "" } else { "not expected: " };
    wrong.extend(records.values().flatten().map(|letter| format!("{not_expected}{}", line(letter))));
    wrong
}

#[cfg(test)]
mod tests;
