//! `millstream test`: runs a pipeline's own tests, with nothing but its fixtures.

mod given;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::{
    array::{Array as _, RecordBatch},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, Schema},
};
use millstream_core::{DeadLetter, Env, Error, Limits, ManualClock, Result};
use millstream_pipeline::{ExpectedLetters, Fixture, Pipeline, Place};
use millstream_sql::{Precision, WholeColumn};
use tempfile::TempDir;

use self::given::read_given;
use crate::{
    Connections, Function, Systems,
    audit::{
        compare::{Unequal, compare as sides},
        encoder::Encoder,
        side::Side,
    },
    csv_cells::cell_of,
    csv_table::csv_header,
    read_csv,
    rows::texts,
    schema_of,
};

/// The largest number of batches in the second run of a test: each batch is a commit.
const MAX_BATCHES: usize = 500;
/// The largest number of dead letters of one test that are compared.
const MAX_LETTERS: usize = 10_000;

/// The result of one test of the pipeline file.
#[derive(Clone, Debug)]
pub struct FixtureReport {
    /// Its name, or its number.
    pub name: String,
    /// What is not as expected; empty if the test passed.
    pub differences: Vec<String>,
}

/// Runs every test of the pipeline. The given records go through the real functions into embedded stores in a temporary
/// folder; then the tables and dead letters are compared with the expected ones. Each test runs twice, in large batches
/// and record by record: the result must not depend on how batches are cut, except for the last digits of floats.
///
/// # Errors
/// `Stop` if a fixture can't be read or a function can't be run. A difference is not an error.
pub async fn run_fixtures(pipeline: &Pipeline) -> Result<Vec<FixtureReport>> {
    let mut reports = Vec::new();
    for (number, fixture) in pipeline.tests.iter().enumerate() {
        let name = fixture.name.clone().unwrap_or_else(|| format!("test {}", number + 1));
        let differences = run(pipeline, fixture).await.map_err(|error| error.context(&name))?;
        reports.push(FixtureReport { name, differences });
    }
    Ok(reports)
}

/// The rows of a pipeline's tables after the given records, each table as the text of a CSV file: to write the expected
/// file of a new test.
///
/// # Errors
/// `Stop` if a file can't be read or a function can't be run.
pub async fn tables_of_given(
    pipeline: &Pipeline,
    given: &BTreeMap<String, std::path::PathBuf>,
) -> Result<BTreeMap<Place, String>> {
    let ran = Ran::of(pipeline, given, Cut::Large).await?;
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

/// The state after the records of a test have gone through all functions.
struct Ran {
    functions: BTreeMap<Place, Function>,
    letters: Vec<DeadLetter>,
    /// The folder of the embedded stores, which is deleted on drop.
    _folder: TempDir,
}

impl Ran {
    async fn of(pipeline: &Pipeline, given: &BTreeMap<String, std::path::PathBuf>, cut: Cut) -> Result<Self> {
        let folder =
            tempfile::tempdir().map_err(|error| Error::stop("can't make a temporary folder").caused_by(error))?;
        let mut connections = Connections::read(&Env::default())?;
        connections.data_dir = folder.path().to_owned();
        // Records without a time of their own all get the same one, in 1970.
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

async fn run(pipeline: &Pipeline, fixture: &Fixture) -> Result<Vec<String>> {
    let once = differences(pipeline, fixture, Cut::Large).await?;
    if !once.is_empty() {
        return Ok(once);
    }
    let again = differences(pipeline, fixture, Cut::ByRecord).await?;
    let cut = |line| format!("with one record per batch, but not with all in one batch: {line}");
    Ok(again.into_iter().map(cut).collect())
}

async fn differences(pipeline: &Pipeline, fixture: &Fixture, cut: Cut) -> Result<Vec<String>> {
    let ran = Ran::of(pipeline, &fixture.given, cut).await?;
    let mut differences = Vec::new();
    for (target, path) in &fixture.expect {
        let function = ran.functions.get(target).ok_or_else(|| Error::stop(format!("no function writes {target}")))?;
        let wrong = match compare(function, &pipeline.path(path)).await {
            // The expected file is wrong: the test fails, and the others run.
            Err(Error::Stop(cause)) => vec![cause.to_string()],
            compared => compared?,
        };
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

/// The rows of the table that readers see.
async fn shown(function: &Function) -> Result<Vec<RecordBatch>> {
    let rows = function.runner.sink().snapshot().await?.rows;
    match (&function.table.combine, &function.table.view) {
        (Some(combine), Some(_)) => Ok(vec![combine.finish(&combine.combine(&rows).await?).await?.0]),
        _ => {
            // What a row of a topic carries stands behind its own columns.
            let own: Vec<usize> = (0..schema_of(&function.table).fields().len()).collect();
            let broken = |error| Error::stop("internal: rows without their columns").caused_by(error);
            rows.iter().map(|rows| rows.project(&own).map_err(broken)).collect()
        }
    }
}

/// The rows as lines of a CSV file, with `null` for a null.
fn csv_lines(batch: &RecordBatch, null: &str) -> Result<Vec<String>> {
    let texts = texts(batch)?;
    let cell = |column: usize, row: usize| {
        if batch.column(column).is_null(row) { null.to_owned() } else { cell_of(&texts[column][row]).into_owned() }
    };
    let line = |row| (0..batch.num_columns()).map(|column| cell(column, row)).collect::<Vec<_>>().join(",");
    Ok((0..batch.num_rows()).map(line).collect())
}

/// Compares only the columns that the file has, and floats as the audit does.
async fn compare(function: &Function, path: &Path) -> Result<Vec<String>> {
    let all = schema_of(&function.table);
    let named = |name: &String| {
        let known: Vec<&str> = all.fields().iter().map(|field| field.name().as_str()).collect();
        all.index_of(name).map_err(|_| {
            Error::stop(format!("{}:1: no column `{name}`; there are {}", path.display(), known.join(", ")))
        })
    };
    let columns = csv_header(path)?.iter().map(named).collect::<Result<Vec<usize>>>()?;
    // A null that should not be there is a difference, and not a mistake of the file.
    let schema = columns.iter().map(|index| all.field(*index).clone().with_nullable(true));
    let schema = Arc::new(Schema::new(schema.collect::<Vec<_>>()));
    let column = |field: &Arc<Field>| {
        let (name, data_type) = (field.name().clone(), field.data_type().clone());
        // The last digits of floats depend on how batches are cut.
        let precision = if data_type == DataType::Float64 { Precision::Rounded } else { Precision::Exact };
        WholeColumn { name, data_type, precision, rounding: None }
    };
    let encoder = Arc::new(Encoder::new(schema.fields().iter().map(column).collect())?);
    let (mut found, mut expected) = (Side::new(&encoder), Side::new(&encoder));
    for batch in shown(function).await? {
        let projected = batch.project(&columns);
        found.add(&projected.map_err(|error| Error::stop("internal: columns of the table").caused_by(error))?)?;
    }
    expected.add(&read_expected(path, &schema)?)?;
    let mut lines = Vec::new();
    sides(&mut found, &mut expected, false, &mut |unequal| {
        let rows = match &unequal {
            Unequal::First(row, _) => vec![(row, "not expected")],
            Unequal::Second(row, _) => vec![(row, "missing")],
            Unequal::Both(first, second, _) => vec![(first, "not expected"), (second, "missing")],
        };
        for (row, what) in rows {
            lines.extend(csv_lines(row, "null")?.into_iter().map(|line| (line, what)));
        }
        Ok(())
    })?;
    lines.sort();
    Ok(lines.into_iter().map(|(line, what)| format!("{what}: {line}")).collect())
}

/// The rows of an expected file. No field of a topic is unsigned, as `approx_distinct` is, so the decoder knows no such type.
fn read_expected(path: &Path, schema: &Arc<Schema>) -> Result<RecordBatch> {
    let decoded = |field: &Arc<Field>| match field.data_type() {
        DataType::UInt64 => field.as_ref().clone().with_data_type(DataType::Decimal128(20, 0)),
        _ => field.as_ref().clone(),
    };
    let rows = read_csv(path, &Arc::new(Schema::new(schema.fields().iter().map(decoded).collect::<Vec<_>>())))?;
    let wrong = |error| Error::stop(format!("{}: a number doesn't fit its column", path.display())).caused_by(error);
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns = rows.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast_with_options(column, field.data_type(), &options));
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>().map_err(wrong)?).map_err(wrong)
}

/// Compares by record: if several functions could not process a record, it counts as one dead letter here.
fn compare_letters(letters: &[&DeadLetter], expected: &ExpectedLetters) -> Vec<String> {
    let mut records: BTreeMap<_, Vec<&DeadLetter>> = BTreeMap::new();
    letters.iter().for_each(|letter| records.entry(&letter.position).or_default().push(letter));
    let mut wrong = Vec::new();
    match expected {
        ExpectedLetters::Count(count) if *count == records.len() => return wrong,
        ExpectedLetters::Count(0) => {}
        ExpectedLetters::Count(count) => wrong.push(format!("{count} expected, {} found", records.len())),
        ExpectedLetters::Reasons(parts) => {
            for part in parts {
                let of_part = |letters: &Vec<&DeadLetter>| letters.iter().any(|letter| letter.reason.contains(part));
                let found = records.iter().find(|(_, letters)| of_part(letters)).map(|(position, _)| *position);
                match found {
                    Some(position) => drop(records.remove(position)),
                    None => wrong.push(format!("missing: a dead letter with `{part}` in its reason")),
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
