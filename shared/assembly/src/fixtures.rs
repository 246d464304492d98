//! `millstream test`: a pipeline's own tests, with nothing but its fixtures.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::{array::RecordBatch, datatypes::Schema};
use millstream_core::{Error, ManualClock, NewRecord, Result};
use millstream_pipeline::{Connections, Fixture, Pipeline, Topic};

use crate::{Function, Systems, csv_table::csv_header, read_csv, rows::texts, schema_of};

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
/// their own, and the tables are compared with the expected files.
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

async fn run(pipeline: &Pipeline, fixture: &Fixture, read_given: ReadGiven<'_>) -> Result<Vec<String>> {
    let folder = tempfile::tempdir().map_err(|error| Error::stop("can't make a temporary folder").caused_by(error))?;
    let mut connections = Connections::read(&|_| None)?;
    connections.data_dir = folder.path().to_owned();
    // Records without a time of their own are all of 1970: the same each time.
    let systems = Systems::open(pipeline, &connections, Arc::new(ManualClock::default()))?;
    systems.create_topics(pipeline).await?;
    for (name, path) in &fixture.given {
        let topic = &pipeline.topics[name];
        let key = pipeline.functions.values().filter(|f| &f.into.name == name).find_map(|f| f.key.as_deref());
        let records = read_given(&pipeline.path(path), topic, key)?;
        systems.producer(topic)?.send(name, records).await?;
    }
    let mut written = BTreeMap::new();
    for (name, declared) in pipeline.functions.iter().filter(|(_, declared)| !declared.from.is_empty()) {
        let function = systems.function(pipeline, name).await?;
        function.drain(systems.source().as_ref()).await?;
        written.insert(declared.into.clone(), function);
    }
    let mut differences = Vec::new();
    for (target, path) in &fixture.expect {
        let function = written.get(target).ok_or_else(|| Error::stop(format!("no function writes {target}")))?;
        let wrong = compare(function, &pipeline.path(path)).await?;
        differences.extend(wrong.into_iter().map(|line| format!("{target}: {line}")));
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

/// Compares the columns that the file has.
async fn compare(function: &Function, path: &Path) -> Result<Vec<String>> {
    let all = schema_of(&function.table);
    let header = csv_header(path)?;
    let named = |name: &String| {
        let known: Vec<&str> = all.fields().iter().map(|field| field.name().as_str()).collect();
        all.index_of(name).map_err(|_| {
            Error::stop(format!("{}: line 1: no column `{name}`; there are {}", path.display(), known.join(", ")))
        })
    };
    let columns = header.iter().map(named).collect::<Result<Vec<usize>>>()?;
    let schema = Arc::new(Schema::new(columns.iter().map(|index| all.field(*index).clone()).collect::<Vec<_>>()));
    let mut balance: BTreeMap<String, i64> = BTreeMap::new();
    let mut count = |batch: &RecordBatch, by: i64| -> Result<()> {
        let texts = texts(batch)?;
        for row in 0..batch.num_rows() {
            let cells: Vec<&str> = texts.iter().map(|column| column[row].as_str()).collect();
            *balance.entry(cells.join(",")).or_default() += by;
        }
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
