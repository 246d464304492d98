//! Runs many cases, several at once, and reports the results.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use millstream_assembly::plan_function;
use tempfile::TempDir;

use super::{
    case::Case,
    compare::{Texts, differences},
    duckdb::DuckDb,
    expr::Dialect,
    plain, shrink,
    store::{self, Cut, Kind, Scene},
    value::Value,
};

/// How many cases shrinking may try.
const MAX_SHRINKS: usize = 400;
/// How many statements that two engines understand differently are shown in verbose mode.
const MAX_SAMPLES: usize = 10;
/// How many cases share a database before it is cleaned.
const CASES_PER_CLEANING: usize = 40;

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Setting {
    /// How many statements are generated, including refused ones.
    pub statements: u64,
    /// How many different cuts each statement gets.
    pub cuts: usize,
    /// The seed of the first case; each following case has the next number.
    pub seed: u64,
    /// With tables in the embedded store.
    pub embedded: bool,
    /// With tables in PostgreSQL: the URL of a server.
    pub postgres: Option<String>,
    /// How many at once.
    pub jobs: usize,
    /// Features that statements must not use.
    pub without: BTreeSet<String>,
    /// A Python that has DuckDB.
    pub python: PathBuf,
    /// How many differences are shown before the run ends.
    pub max_shown: usize,
    /// Are differences shrunk?
    pub shrink: bool,
    /// Is every statement shown?
    pub verbose: bool,
}

/// The results of a run.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Statements generated.
    pub statements: u64,
    /// Statements that were planned.
    pub accepted: u64,
    /// The reasons of refusals, with their counts.
    pub refused: BTreeMap<String, u64>,
    /// Tables compared.
    pub compared: u64,
    /// Tables that only the second oracle could compute.
    pub second_oracle: u64,
    /// Statements that no oracle could compute, by reason.
    pub unanswered: BTreeMap<String, u64>,
    /// Statements for which the oracles differ, and the function agrees with the second one.
    pub dialects: u64,
    /// The first of these statements.
    pub dialect_samples: Vec<String>,
    /// The differences, as text for people.
    pub differences: Vec<String>,
    /// Statements with differences, by the features that they have.
    pub suspects: BTreeMap<&'static str, u64>,
    /// Statements, by feature.
    pub features: BTreeMap<&'static str, u64>,
    /// The duration.
    pub took: Duration,
}

/// Runs cases and compares the results.
pub async fn differential(setting: Setting) -> Summary {
    #[expect(clippy::disallowed_methods, reason = "how long a run took is for people")]
    let began = Instant::now();
    let summary = Arc::new(Mutex::new(Summary::default()));
    let next = Arc::new(AtomicU64::new(0));
    let setting = Arc::new(setting);
    let workers = (0..setting.jobs.max(1)).map(|_| {
        let (setting, summary, next) = (Arc::clone(&setting), Arc::clone(&summary), Arc::clone(&next));
        tokio::spawn(async move {
            let mut worker = Worker::new(&setting).await;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= setting.statements || summary.lock().unwrap().differences.len() >= setting.max_shown {
                    break;
                }
                worker.case(setting.seed.wrapping_add(number), &summary).await;
                if (number + 1).is_multiple_of(500) {
                    eprintln!(
                        "differential: {} of {}, {} s, {}",
                        number + 1,
                        setting.statements,
                        began.elapsed().as_secs(),
                        summary.lock().unwrap().line()
                    );
                }
            }
        })
    });
    for worker in futures::future::join_all(workers).await {
        worker.unwrap();
    }
    let mut summary = summary.lock().unwrap().clone();
    summary.took = began.elapsed();
    summary
}

impl Summary {
    fn line(&self) -> String {
        let unanswered: u64 = self.unanswered.values().sum();
        format!(
            "{} accepted, {} refused, {} tables compared ({} with the second oracle), {unanswered} unanswered, {} dialect, {} differences",
            self.accepted,
            self.refused.values().sum::<u64>(),
            self.compared,
            self.second_oracle,
            self.dialects,
            self.differences.len()
        )
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for difference in &self.differences {
            writeln!(f, "{difference}\n")?;
        }
        let list = |f: &mut std::fmt::Formatter<'_>, title: &str, of: &BTreeMap<String, u64>| {
            let mut all: Vec<_> = of.iter().collect();
            all.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            all.iter().take(25).try_for_each(|(reason, count)| writeln!(f, "{title} {count:6} × {reason}"))
        };
        list(f, "refused", &self.refused)?;
        list(f, "unanswered", &self.unanswered)?;
        for (feature, count) in &self.features {
            let suspects = self.suspects.get(feature).copied().unwrap_or(0);
            writeln!(f, "feature {feature:20} {count:6} statements, {suspects} with differences")?;
        }
        write!(f, "{} statements in {:.1} s: {}", self.statements, self.took.as_secs_f64(), self.line())
    }
}

struct Worker<'a> {
    setting: &'a Setting,
    duck: DuckDb,
    /// The URL of the worker's own database, and a reader's session in it.
    postgres: Option<(String, tokio_postgres::Client)>,
    cases: usize,
    folder: TempDir,
}

/// A difference in one store and cut.
struct Difference {
    kind: Kind,
    cut: Cut,
    what: What,
}

enum What {
    Failed(String),
    Rows { missing: Texts, odd: Texts, got: Texts },
}

/// The results of the oracles.
struct Expected {
    rows: Texts,
    second: bool,
}

impl<'a> Worker<'a> {
    async fn new(setting: &'a Setting) -> Self {
        let postgres = match &setting.postgres {
            Some(url) => {
                let url = crate::new_database(url, "differential").await;
                let reader = store::reader(&url).await;
                let name = url.rsplit_once('/').unwrap().1.split('?').next().unwrap().to_owned();
                reader.batch_execute(&format!("ALTER DATABASE {name} SET synchronous_commit = off")).await.unwrap();
                Some((url, reader))
            }
            None => None,
        };
        Self { setting, duck: DuckDb::start(&setting.python), postgres, cases: 0, folder: TempDir::new().unwrap() }
    }

    async fn case(&mut self, seed: u64, summary: &Mutex<Summary>) {
        let is_off = |feature: &str| self.setting.without.contains(feature);
        let case = Case::generate(seed, &is_off);
        let features = case.statement.features();
        {
            let mut summary = summary.lock().unwrap();
            summary.statements += 1;
            if features.iter().any(|feature| is_off(feature)) {
                *summary.refused.entry("without".into()).or_default() += 1;
                return;
            }
        }
        if self.setting.verbose {
            println!("{seed}: {}", case.statement.print(Dialect::Ours));
        }
        if let Err(reason) = planned(&case, self.folder.path()).await {
            if self.setting.verbose {
                println!("{seed}: refused: {reason}");
            }
            *summary.lock().unwrap().refused.entry(class(&reason)).or_default() += 1;
            return;
        }
        {
            let mut summary = summary.lock().unwrap();
            summary.accepted += 1;
            features.iter().for_each(|feature| *summary.features.entry(feature).or_default() += 1);
        }
        let expected = match self.expected(&case).await {
            Ok(expected) => expected,
            Err(reason) => {
                if self.setting.verbose {
                    println!("{seed}: unanswered: {reason}\n{}", case.statement.print(Dialect::Duck));
                }
                *summary.lock().unwrap().unanswered.entry(class(&reason)).or_default() += 1;
                return;
            }
        };
        let cuts = Cut::all(self.setting.cuts, seed);
        let mut found = None;
        for kind in self.kinds() {
            let difference = self.differs(&case, &expected, kind, &cuts).await;
            found = found.or(difference);
        }
        {
            let mut summary = summary.lock().unwrap();
            summary.compared += (cuts.len() * self.kinds().len()) as u64;
            summary.second_oracle += u64::from(expected.second) * cuts.len() as u64;
        }
        let Some(difference) = found else { return };
        if self.is_dialect(&case, &difference).await {
            let sample = self.report(&case, &difference).await;
            let mut summary = summary.lock().unwrap();
            summary.dialects += 1;
            if summary.dialect_samples.len() < MAX_SAMPLES {
                summary.dialect_samples.push(sample);
            }
            return;
        }
        let (case, difference) =
            if self.setting.shrink { self.shrunk(case, difference).await } else { (case, difference) };
        let report = self.report(&case, &difference).await;
        eprintln!("{report}\n");
        let mut summary = summary.lock().unwrap();
        summary.differences.push(report);
        case.statement.features().into_iter().for_each(|feature| *summary.suspects.entry(feature).or_default() += 1);
    }

    fn kinds(&self) -> Vec<Kind> {
        let embedded = self.setting.embedded.then_some(Kind::Embedded);
        embedded.into_iter().chain(self.postgres.as_ref().map(|_| Kind::Postgres)).collect()
    }

    async fn expected(&mut self, case: &Case) -> Result<Expected, String> {
        let tables = case.tables();
        let duck = self.duck.query(&tables, &case.statement.print(Dialect::Duck)).await;
        match duck {
            Ok(rows) => Ok(Expected { rows, second: false }),
            Err(reason) => match plain::query(&tables, &case.statement.print(Dialect::Plain)).await {
                Ok(rows) => Ok(Expected { rows, second: true }),
                Err(second) => Err(format!("{reason} / {second}")),
            },
        }
    }

    /// The first difference in a store.
    async fn differs(&mut self, case: &Case, expected: &Expected, kind: Kind, cuts: &[Cut]) -> Option<Difference> {
        self.cases += 1;
        if let Some((_, reader)) = &self.postgres
            && self.cases.is_multiple_of(CASES_PER_CLEANING)
        {
            store::clean(reader).await;
        }
        // In memory, if the machine has such a folder.
        let memory = PathBuf::from("/dev/shm");
        let folder =
            if memory.is_dir() { TempDir::with_prefix_in("millstream-", memory) } else { TempDir::new() }.unwrap();
        let (url, reader) = self.postgres.as_ref().map(|(url, reader)| (url.as_str(), reader)).unzip();
        let failed = |cut: Cut, reason: String| Some(Difference { kind, cut, what: What::Failed(reason) });
        let scene = match Scene::new(case, kind, cuts.len(), folder.path(), url).await {
            Ok(scene) => scene,
            Err(reason) => return failed(cuts[0], reason),
        };
        for (number, cut) in cuts.iter().enumerate() {
            if let Err(reason) = scene.run(case, number, *cut).await {
                return failed(*cut, reason);
            }
            let got = match scene.table(case, number, reader).await {
                Ok(got) => got,
                Err(reason) => return failed(*cut, reason),
            };
            if let Some((missing, odd)) = differences(&case.types(), &expected.rows, &got, &case.dust()) {
                return Some(Difference { kind, cut: *cut, what: What::Rows { missing, odd, got } });
            }
            // The audit must come to the same result, whatever the oracle: one cut is enough for that.
            if number == 0
                && let Err(reason) = scene.audit(number).await
            {
                return failed(*cut, reason);
            }
        }
        None
    }

    /// Do the oracles differ, and does the function agree with the second one? Then the engines interpret the text
    /// differently.
    async fn is_dialect(&mut self, case: &Case, difference: &Difference) -> bool {
        let What::Rows { got, .. } = &difference.what else { return false };
        let plain = plain::query(&case.tables(), &case.statement.print(Dialect::Plain)).await;
        plain.is_ok_and(|plain| differences(&case.types(), &plain, got, &case.dust()).is_none())
    }

    async fn shrunk(&mut self, mut case: Case, mut difference: Difference) -> (Case, Difference) {
        let mut tries = 0;
        'again: loop {
            for simpler in shrink::simpler(&case) {
                tries += 1;
                if tries > MAX_SHRINKS {
                    return (case, difference);
                }
                if planned(&simpler, self.folder.path()).await.is_err() {
                    continue;
                }
                let Ok(expected) = self.expected(&simpler).await else { continue };
                let found = self.differs(&simpler, &expected, difference.kind, &[difference.cut]).await;
                if let Some(found) = found
                    && same_sort(&found.what, &difference.what)
                    && !self.is_dialect(&simpler, &found).await
                {
                    (case, difference) = (simpler, found);
                    continue 'again;
                }
            }
            return (case, difference);
        }
    }

    async fn report(&mut self, case: &Case, difference: &Difference) -> String {
        let tables = case.tables();
        let statement = &case.statement;
        let duck = self.duck.query(&tables, &statement.print(Dialect::Duck)).await;
        let plain = plain::query(&tables, &statement.print(Dialect::Plain)).await;
        let mut lines = vec![
            format!("=== DIFFERENCE: seed {}, {:?}, {:?}", case.seed, difference.kind, difference.cut),
            format!("features: {}", statement.features().into_iter().collect::<Vec<_>>().join(", ")),
            format!("millstream: {}", statement.print(Dialect::Ours)),
            format!("DuckDB:     {}", statement.print(Dialect::Duck)),
            format!("DataFusion: {}", statement.print(Dialect::Plain)),
        ];
        let reads = case.reads();
        for topic in case.data.topics.iter().filter(|topic| reads.contains(&topic.name)) {
            let fields = topic.fields.iter().map(|field| format!("{}: {}", field.name, field.of.declared()));
            let fields = fields.collect::<Vec<_>>().join(", ");
            lines.push(format!("topic {} {{{fields}}}, event_time: {}", topic.name, topic.event_time));
        }
        for (record, offset) in case.data.placed() {
            let topic = &case.data.topics[record.topic];
            if !reads.contains(&topic.name) {
                continue;
            }
            let place = format!("{}/{}/{offset} phase {}", topic.name, record.partition, record.phase);
            lines.push(format!("  {place} at {} ms: {}", record.timestamp_ms, topic.json(record)));
        }
        let text = statement.print(Dialect::Ours);
        let named = |reference: &&super::data::Reference| text.contains(&format!("{} ", reference.name));
        for reference in case.data.references.iter().filter(named) {
            for (version, rows) in reference.versions.iter().enumerate() {
                for row in rows {
                    let json = |(value, column): (&Value, &super::data::Field)| value.json(&column.of);
                    let cells: Vec<_> = row.iter().zip(&reference.columns).map(json).collect();
                    lines.push(format!("  {} version {version}: {}", reference.name, cells.join(", ")));
                }
            }
        }
        match &difference.what {
            What::Failed(reason) => lines.push(format!("millstream failed: {reason}")),
            What::Rows { missing, odd, got } => {
                lines.extend(missing.iter().map(|row| format!("expected, not there: {}", shown(row))));
                lines.extend(odd.iter().map(|row| format!("there, not expected: {}", shown(row))));
                lines.push(format!("millstream says {} rows", got.len()));
            }
        }
        for (name, answer) in [("DuckDB", duck), ("DataFusion", plain)] {
            match answer {
                Ok(rows) => {
                    lines.push(format!("{name} says {} rows", rows.len()));
                    lines.extend(rows.iter().take(10).map(|row| format!("  {}", shown(row))));
                }
                Err(error) => lines.push(format!("{name} says: {error}")),
            }
        }
        lines.join("\n")
    }
}

fn same_sort(a: &What, b: &What) -> bool {
    match (a, b) {
        (What::Failed(a), What::Failed(b)) => class(a) == class(b),
        (What::Rows { .. }, What::Rows { .. }) => true,
        _ => false,
    }
}

fn shown(row: &[Option<String>]) -> String {
    let cells = row.iter().map(|cell| cell.as_ref().map_or_else(|| "NULL".to_owned(), |text| format!("'{text}'")));
    cells.collect::<Vec<_>>().join(", ")
}

async fn planned(case: &Case, folder: &Path) -> Result<(), String> {
    let pipeline = store::pipeline(case, 1, folder)?;
    plan_function(&pipeline, "f0").await.map(drop).map_err(|wrong| wrong.message)
}

/// A reason without the parts that differ from case to case.
fn class(reason: &str) -> String {
    let mut class = String::new();
    for c in reason.chars() {
        let c = if c.is_ascii_digit() { '#' } else { c };
        if !(c == '#' && class.ends_with('#')) {
            class.push(c);
        }
    }
    class.chars().take(160).collect::<String>().replace('\n', " ")
}
