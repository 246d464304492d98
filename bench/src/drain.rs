//! W1: a backlog → a table in PostgreSQL, beside bare consumers.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use millstream_core::Compression;
use millstream_testkit::database_url;
use tokio_postgres::{Client, NoTls};

use crate::{
    Failure, Place,
    backlog::{Backlog, Kind, Shape},
    fill,
    process::Measured,
    table::{Row, Run, Side, compare},
};

/// The time limit of a run.
pub const PATIENCE: Duration = Duration::from_secs(900);

/// How often PostgreSQL is polled until the first row is visible, and after it. On a small machine each query slows
/// down the measured process, so the second interval is as long as an error of half a percent of a run allows.
const FIRST_POLL: Duration = Duration::from_millis(5);
const POLL: Duration = Duration::from_millis(20);

/// What is measured beside the stock consumer and `aggregate`.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Another build of `aggregate`, run in turns with this one.
    pub build: Option<PathBuf>,
    /// A second topic, in which one record in this many is broken; 0: none.
    pub broken_every: u64,
}

/// A side of W1.
enum Who<'a> {
    /// librdkafka as it comes.
    Stock,
    /// With what millstream replaces of it.
    OurGzip,
    /// `aggregate`, of a place, draining a backlog.
    Ours(&'a Place, &'a Backlog),
}

/// The order of so many sides in a round: another one begins each time.
pub fn in_turns(round: usize, sides: usize) -> impl Iterator<Item = usize> {
    (0..sides).map(move |side| (side + round) % sides)
}

/// Each side in turns, from the start of its process to the last event.
pub async fn w1(place: &Place, name: &str, kind: Kind, rounds: usize, beside: Beside) -> Result<Vec<Row>, Failure> {
    let backlog = Backlog::fill(place, kind).await?;
    let broken = match beside.broken_every {
        0 => None,
        broken_every => Some(Backlog::fill(place, Kind { shape: Shape::Bank { broken_every }, ..kind }).await?),
    };
    let other = beside.build.map(|aggregate| Place { aggregate, ..place.clone() });
    let mut sides = vec![(Who::Stock, Side::new("bare consumer"))];
    if kind.compression == Compression::Gzip {
        sides.push((Who::OurGzip, Side::new("bare consumer with our gzip")));
    }
    sides.push((Who::Ours(place, &backlog), Side::new("**millstream aggregate**")));
    if let Some(other) = &other {
        sides.push((Who::Ours(other, &backlog), Side::new("another build")));
    }
    if let Some(broken) = &broken {
        sides.push((Who::Ours(place, broken), Side::new(format!("one in {} broken", beside.broken_every))));
    }
    // The first reader of a topic finds a cold broker, so it is not measured.
    floor(place, &backlog.topic, kind.events)?;
    for round in 0..rounds.max(1) {
        for turn in in_turns(round, sides.len()) {
            let (who, side) = &mut sides[turn];
            side.runs.push(match who {
                Who::Stock => floor(place, &backlog.topic, kind.events)?,
                Who::OurGzip => read(&std::env::current_exe()?, place, &backlog.topic, kind.events)?,
                Who::Ours(place, backlog) => drain(place, backlog, &format!("{round}_{turn}")).await?,
            });
        }
    }
    let ours = sides.iter().filter(|(who, _)| matches!(who, Who::Ours(..))).take(1);
    let first_row_ms: Vec<f64> = ours.flat_map(|(_, side)| &side.runs).map(|run| run.first_row_s * 1e3).collect();
    let first_row = crate::table::duration(format!("{name}: from start to the first row"), first_row_ms.into_iter());
    let sides: Vec<Side> = sides.into_iter().map(|(_, side)| side).collect();
    let mut rows = compare(name, kind.events, &sides);
    rows.push(first_row);
    Ok(rows)
}

/// A stock librdkafka that reads the topic.
pub fn floor(place: &Place, topic: &str, events: u64) -> Result<Run, Failure> {
    read(&place.binary("bare")?, place, topic, events)
}

/// `binary` has the subcommand `read`: as librdkafka comes, or with what millstream replaces of it.
fn read(binary: &Path, place: &Place, topic: &str, events: u64) -> Result<Run, Failure> {
    let mut command = Command::new(binary);
    command.args(["read", &place.brokers, topic, &events.to_string()]).stdout(Stdio::piped());
    let mut measured = Measured::start(&mut command)?;
    let mut line = String::new();
    BufReader::new(measured.stdout()?).read_line(&mut line)?;
    if !line.starts_with("read ") {
        return Err("the bare consumer read too little".into());
    }
    Ok(Run { seconds: measured.elapsed().as_secs_f64(), usage: measured.usage()?, first_row_s: 0.0 })
}

async fn drain(place: &Place, backlog: &Backlog, round: &str) -> Result<Run, Failure> {
    let name = format!("{}_{round}", backlog.topic);
    let database = Database::create(place, &format!("bench_{name}")).await?;
    let folder = tempfile::tempdir()?;
    backlog.pipeline(place, folder.path(), &name).await?;
    let mut measured = Measured::start(&mut aggregate(place, folder.path(), &database.url))?;
    let (mut seconds, mut first_row_s) = (0.0, None);
    while seconds == 0.0 {
        measured.alive()?;
        if measured.elapsed() > PATIENCE {
            return Err("the drain does not finish".into());
        }
        let done = database.done().await;
        if first_row_s.is_none() && done > 0 {
            first_row_s = Some(measured.elapsed().as_secs_f64());
        }
        if done >= backlog.kind.events {
            seconds = measured.elapsed().as_secs_f64();
        }
        tokio::time::sleep(if first_row_s.is_none() { FIRST_POLL } else { POLL }).await;
    }
    let usage = measured.usage()?;
    backlog.check(&database.client).await?;
    let letters = fill::dead_letters(place, &name).await?;
    if letters != backlog.dead_letters() {
        return Err(format!("{letters} dead letters instead of {}", backlog.dead_letters()).into());
    }
    drop(measured);
    Ok(Run { seconds, usage, first_row_s: first_row_s.unwrap_or(seconds) })
}

/// The function's binary, as it is deployed.
pub fn aggregate(place: &Place, folder: &Path, postgres_url: &str) -> Command {
    let mut command = Command::new(&place.aggregate);
    command
        .env("MILLSTREAM_PIPELINE", folder)
        .env("MILLSTREAM_FUNCTION", "flow")
        .env("MILLSTREAM_KAFKA_BROKERS", &place.brokers)
        .env("MILLSTREAM_POSTGRES_URL", postgres_url)
        .env("MILLSTREAM_DATA_DIR", folder)
        .env("MILLSTREAM_LOG", "warn");
    command
}

/// The database of one run.
pub struct Database {
    pub url: String,
    pub client: Client,
}

impl Database {
    pub async fn create(place: &Place, name: &str) -> Result<Self, Failure> {
        let admin = connect(&place.postgres_url).await?;
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name}")).await?;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        let url = database_url(&place.postgres_url, name).ok_or("MILLSTREAM_TEST_POSTGRES names no database")?;
        Ok(Self { client: connect(&url).await?, url })
    }

    /// How many records are in the sink; 0 while there is no fence.
    pub async fn done(&self) -> u64 {
        // Rows with partition -1 belong to a whole topic.
        let sum = "SELECT coalesce(sum(next_offset), 0)::bigint FROM millstream_fences WHERE partition >= 0";
        let fences = self.client.query_one(sum, &[]).await;
        fences.map_or(0, |row| row.get::<_, i64>(0) as u64)
    }
}

async fn connect(url: &str) -> Result<Client, Failure> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
