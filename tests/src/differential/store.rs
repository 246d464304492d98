//! A case in a store: its pipeline, its records in the log, one function per cut, and the table as readers see it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    datatypes::{Field, Schema},
};
use millstream_assembly::{Connections, Function, Systems, audit, plan_function};
use millstream_core::{Batch, Env, Limits, NewRecord, Source, SystemClock, TopicPartition};
use millstream_pipeline::Pipeline;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rusqlite::types::ValueRef;

use super::{
    case::Case,
    compare::Texts,
    data::Reference,
    expr::Dialect,
    value::{self, Type},
};

/// How many times a call is repeated after `Retry`.
const MAX_TRIES: usize = 5;

/// Where the tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Embedded,
    Postgres,
}

/// How the records of a case are cut into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub seed: u64,
    /// The largest number of records in a batch; the first cut has one batch per partition.
    pub max_records: usize,
}

impl Cut {
    pub fn all(count: usize, seed: u64) -> Vec<Self> {
        let size = |number: usize| [usize::MAX, 1, 3, 8][if number < 2 { number } else { 2 + number % 2 }];
        (0..count).map(|number| Self { seed: seed.wrapping_add(number as u64), max_records: size(number) }).collect()
    }
}

/// A case whose records are in the log.
pub struct Scene {
    pub kind: Kind,
    pub pipeline: Pipeline,
    pub systems: Systems,
    folder: std::path::PathBuf,
}

/// The pipeline file of a case with a function for each cut.
fn pipeline_text(case: &Case, cuts: usize) -> String {
    let mut text = format!("name: d{}\ntopics:\n", case.seed);
    for topic in &case.data.topics {
        let _ = writeln!(text, "  {}:\n    partitions: {}\n    schema:", topic.name, topic.partitions);
        for field in &topic.fields {
            let not_null = if field.name == "at" { " not null" } else { "" };
            let _ = writeln!(text, "      {}: {}{not_null}", field.name, field.of.declared());
        }
        if topic.event_time {
            text += "    event_time: at\n";
        }
    }
    text += "references:\n";
    for reference in &case.data.references {
        let _ = writeln!(text, "  {0}:\n    file: {0}.csv\n    schema:", reference.name);
        for column in &reference.columns {
            let _ = writeln!(text, "      {}: {}", column.name, column.of.declared());
        }
    }
    text += "functions:\n";
    let from: Vec<_> = case.reads().into_iter().collect();
    let sql = case.statement.print(Dialect::Ours);
    for cut in 0..cuts {
        let _ = writeln!(
            text,
            "  f{cut}:\n    uses: aggregate\n    from: [{}]\n    into: postgres.o{}_{cut}\n    sql: |\n      {sql}",
            from.join(", "),
            case.seed,
        );
    }
    text
}

/// Writes the pipeline of a case into a folder. The references' files are empty: their rows are set directly.
pub fn pipeline(case: &Case, cuts: usize, folder: &Path) -> Result<Pipeline, String> {
    for reference in &case.data.references {
        let names: Vec<_> = reference.columns.iter().map(|column| column.name.as_str()).collect();
        std::fs::write(folder.join(format!("{}.csv", reference.name)), names.join(",") + "\n").unwrap();
    }
    let text = pipeline_text(case, cuts);
    Pipeline::parse(&text, &folder.join("pipeline.yaml"))
        .map_err(|wrong| format!("the pipeline file: {wrong:?}\n{text}"))
}

impl Scene {
    /// Creates the topics and produces the records.
    pub async fn new(
        case: &Case,
        kind: Kind,
        cuts: usize,
        folder: &Path,
        postgres: Option<&str>,
    ) -> Result<Self, String> {
        let wrong = |error: millstream_core::Error| error.to_string();
        let pipeline = pipeline(case, cuts, folder)?;
        let url = postgres.filter(|_| kind == Kind::Postgres).map(|url| ("MILLSTREAM_POSTGRES_URL", url));
        let mut connections = Connections::read(&Env::of(url)).map_err(wrong)?;
        connections.data_dir = folder.join("data");
        let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).map_err(wrong)?;
        systems.create_topics(&pipeline).await.map_err(wrong)?;
        for (index, topic) in case.data.topics.iter().enumerate() {
            let records = case.data.records.iter().filter(|record| record.topic == index);
            let new = records.map(|record| NewRecord {
                value: Some(topic.json(record).into_bytes()),
                timestamp_ms: Some(record.timestamp_ms),
                partition: Some(record.partition),
                ..NewRecord::default()
            });
            let producer = systems.producer(&pipeline.topics[&topic.name]).map_err(wrong)?;
            producer.send(&topic.name, new.collect()).await.map_err(wrong)?;
        }
        Ok(Self { kind, pipeline, systems, folder: folder.to_owned() })
    }

    /// Runs one cut. The error is an error of the function, or a dead letter that is unexpected or missing.
    pub async fn run(&self, case: &Case, number: usize, cut: Cut) -> Result<(), String> {
        let name = format!("f{number}");
        let function =
            self.systems.function(&self.pipeline, &name).await.map_err(|error| format!("at start: {error}"))?;
        let mut rng = StdRng::seed_from_u64(cut.seed);
        let source = self.systems.source();
        let mut next: BTreeMap<(usize, i32), i64> = BTreeMap::new();
        for phase in 0..case.data.phases {
            set_references(&function, &case.data.references, phase);
            let ends = ends(case, phase);
            loop {
                let open: Vec<_> = ends.iter().filter(|(at, end)| next.get(at).copied().unwrap_or(0) < **end).collect();
                let Some((at, end)) = open.choose(&mut rng).copied() else { break };
                let mut steps = vec![(*at, *end)];
                if open.len() > 1 && rng.random_bool(0.3) {
                    steps.extend(open.iter().find(|(other, _)| *other != at).map(|(at, end)| (**at, **end)));
                }
                let mut batches = Vec::new();
                for (at, end) in steps {
                    let from = next.get(&at).copied().unwrap_or(0);
                    let count =
                        if cut.max_records == usize::MAX { end } else { rng.random_range(1..=cut.max_records as i64) };
                    let to = end.min(from.saturating_add(count));
                    // Sometimes a redelivery, from a few records before.
                    let back = if rng.random_bool(0.1) { rng.random_range(0..=3) } else { 0 };
                    let partition = TopicPartition::new(case.data.topics[at.0].name.as_str(), 1, at.1);
                    batches.push(read(source.as_ref(), &partition, (from - back).max(0), to).await?);
                    next.insert(at, to);
                }
                bring_in(&function, batches).await?;
            }
        }
        self.check_letters(case, &function).await
    }

    /// Audits a cut: the audit must find nothing. References are set by hand here, and an audit would load them.
    pub async fn audit(&self, number: usize) -> Result<(), String> {
        let name = format!("f{number}");
        let plan = plan_function(&self.pipeline, &name).await.map_err(|wrong| wrong.to_string())?;
        if !plan.references.is_empty() {
            return Ok(());
        }
        let report = audit(&self.systems, &self.pipeline, &name).await.map_err(|error| format!("no audit: {error}"))?;
        if report.is_clean() { Ok(()) } else { Err(format!("the audit finds {:?}", report.differences)) }
    }

    /// Checks that exactly the dirty records are dead letters.
    async fn check_letters(&self, case: &Case, function: &Function) -> Result<(), String> {
        let letters = self.systems.dead_letters(&self.pipeline).list(Some(&function.id), 1_000_000).await;
        let letters = letters.map_err(|error| error.to_string())?;
        let reads = case.reads();
        let place = |topic: &str, partition: i32, offset: i64| (topic.to_owned(), partition, offset);
        let dirty: BTreeSet<_> = case
            .data
            .placed()
            .into_iter()
            .filter(|(record, _)| record.dirty.is_some() && reads.contains(&case.data.topics[record.topic].name))
            .map(|(record, offset)| place(&case.data.topics[record.topic].name, record.partition, offset))
            .collect();
        let of = |letter: &millstream_core::DeadLetter| {
            let position = &letter.position;
            place(&position.partition.topic, position.partition.partition, position.offset)
        };
        if let Some(odd) = letters.iter().find(|letter| !dirty.contains(&of(letter))) {
            return Err(format!("dead letter at {:?}: {}", of(odd), odd.reason));
        }
        let have: BTreeSet<_> = letters.iter().map(of).collect();
        match dirty.iter().find(|place| !have.contains(place)) {
            Some(lost) => Err(format!("no dead letter at {lost:?}")),
            None => Ok(()),
        }
    }

    /// The table of a cut as readers see it.
    pub async fn table(
        &self,
        case: &Case,
        number: usize,
        reader: Option<&tokio_postgres::Client>,
    ) -> Result<Texts, String> {
        let table = format!("o{}_{number}", case.seed);
        match reader {
            Some(client) if self.kind == Kind::Postgres => in_postgres(client, case, &table).await,
            _ => in_file(&self.folder.join("data").join("millstream.db"), case, &table),
        }
    }
}

/// One past the last offset of each partition in a phase.
fn ends(case: &Case, phase: usize) -> BTreeMap<(usize, i32), i64> {
    let reads = case.reads();
    let mut ends = BTreeMap::new();
    for (record, offset) in case.data.placed() {
        if record.phase <= phase && reads.contains(&case.data.topics[record.topic].name) {
            ends.insert((record.topic, record.partition), offset + 1);
        }
    }
    ends
}

async fn read(source: &dyn Source, partition: &TopicPartition, from: i64, to: i64) -> Result<Batch, String> {
    let limits = Limits { max_records: 1_000_000, max_bytes: 1 << 24, max_wait_ms: 0 };
    source.read(partition, from..to, limits).await.map_err(|error| error.to_string())
}

/// Processes all batches at once.
async fn bring_in(function: &Function, batches: Vec<Batch>) -> Result<(), String> {
    let one = async |batch: Batch| {
        let mut tries = 0;
        loop {
            tries += 1;
            match function.runner.process(batch.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_retry() && tries < MAX_TRIES => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    let done = futures::future::join_all(batches.into_iter().map(one)).await;
    done.into_iter().collect()
}

fn set_references(function: &Function, references: &[Reference], phase: usize) {
    for table in &function.references {
        let Some(reference) = references.iter().find(|reference| reference.name == table.name) else { continue };
        let rows = &reference.versions[phase];
        let fields = reference.columns.iter().map(|column| Field::new(column.name.as_str(), column.of.arrow(), true));
        let columns = reference.columns.iter().enumerate().map(|(index, column)| {
            let values: Vec<_> = rows.iter().map(|row| &row[index]).collect();
            value::array(&column.of, &values)
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        table.set(vec![RecordBatch::try_new(schema, columns.collect()).unwrap()]);
    }
}

/// Reads the table with a separate connection that knows only the names of the store.
fn in_file(file: &Path, case: &Case, table: &str) -> Result<Texts, String> {
    let wrong = |error: rusqlite::Error| format!("the table can't be read: {error}");
    let connection = rusqlite::Connection::open(file).map_err(wrong)?;
    let types = case.types();
    let names: Vec<_> = case.statement.items().iter().map(|item| format!("\"{}\"", item.name)).collect();
    let mut select = connection.prepare(&format!("SELECT {} FROM \"{table}\"", names.join(", "))).map_err(wrong)?;
    let mut rows = select.query([]).map_err(wrong)?;
    let mut texts = Texts::new();
    while let Some(row) = rows.next().map_err(wrong)? {
        let mut cells = Vec::new();
        for (index, of) in types.iter().enumerate() {
            cells.push(stored_text(row.get_ref(index).map_err(wrong)?, of)?);
        }
        texts.push(cells);
    }
    Ok(texts)
}

fn stored_text(value: ValueRef<'_>, of: &Type) -> Result<Option<String>, String> {
    Ok(Some(match value {
        ValueRef::Null => return Ok(None),
        ValueRef::Integer(number) if *of == Type::Bool => (number != 0).to_string(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(text) => {
            let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
            if *of == Type::Time { time_us(text)?.to_string() } else { text.to_owned() }
        }
        ValueRef::Blob(_) => return Err("a blob".to_owned()),
    }))
}

fn time_us(text: &str) -> Result<i64, String> {
    let instant = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.fZ");
    instant
        .map(|instant| instant.and_utc().timestamp_micros())
        .map_err(|error| format!("'{text}' is not a time: {error}"))
}

/// A session with a time zone far from UTC.
pub async fn reader(url: &str) -> tokio_postgres::Client {
    let client = crate::postgres_client(url).await;
    client.batch_execute("SET TimeZone = 'America/New_York'; SET client_min_messages = error").await.unwrap();
    client
}

async fn in_postgres(client: &tokio_postgres::Client, case: &Case, table: &str) -> Result<Texts, String> {
    let items = case.statement.items().iter();
    let columns: Vec<_> = items
        .map(|item| match item.expr.of {
            Type::Time => format!("CAST(CAST(extract(epoch FROM \"{}\") * 1000000 AS bigint) AS text)", item.name),
            _ => format!("CAST(\"{}\" AS text)", item.name),
        })
        .collect();
    let query = format!("SELECT {} FROM \"{table}\"", columns.join(", "));
    let rows = client.simple_query(&query).await.map_err(|error| {
        let error = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
        format!("the table can't be read: {error}")
    })?;
    let mut texts = Texts::new();
    for message in rows {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            texts.push((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect());
        }
    }
    Ok(texts)
}

/// Removes all tables of earlier cases.
pub async fn clean(client: &tokio_postgres::Client) {
    client.batch_execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await.unwrap();
}
