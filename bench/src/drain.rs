//! W1: a backlog of transactions → 2-second sums in PostgreSQL.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use millstream_testkit::database_url;
use tokio_postgres::{Client, NoTls};

use crate::{
    Failure, Place, fill,
    process::{Measured, Usage},
};

/// The time limit of a run.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// How often PostgreSQL is polled until the first row is visible, and after it. On a small machine each query slows
/// down the measured process, so the second interval is as long as an error of half a percent of a run allows.
const FIRST_POLL: Duration = Duration::from_millis(5);
const POLL: Duration = Duration::from_millis(20);

/// The result of one run of one side.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub seconds: f64,
    pub usage: Usage,
    pub first_row_s: f64,
}

/// Prints the result of one side.
pub fn line(events: u64, name: &str, run: &Run) {
    println!(
        "{name:<22} {:>9.0} events/s   {:>5.2} CPU-s per million   peak {:>4.0} MiB   ({:.2} s)",
        events as f64 / run.seconds,
        run.usage.cpu_s / (events as f64 / 1e6),
        run.usage.peak_mib,
        run.seconds
    );
}

pub async fn w1(
    place: &Place,
    events: u64,
    rounds: usize,
    broken_every: u64,
    against: Option<PathBuf>,
) -> Result<(), Failure> {
    let other = against.map(|aggregate| Place { aggregate, ..place.clone() });
    let whole = Backlog::fill(place, events, 0).await?;
    let broken = if broken_every > 0 { Some(Backlog::fill(place, events, broken_every).await?) } else { None };
    let (mut floors, mut drains, mut broken_drains, mut others) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds.max(1) {
        floors.push(floor(place, &whole.topic, events)?);
        drains.push(drain(place, &whole, &round.to_string()).await?);
        if let Some(other) = &other {
            others.push(drain(other, &whole, &format!("{round}_other")).await?);
        }
        if let Some(broken) = &broken {
            broken_drains.push(drain(place, broken, &round.to_string()).await?);
        }
    }
    let (floor, drain) = (median(floors), median(drains));
    let line = |name: &str, run: &Run| line(events, name, run);
    println!("W1: {events} events, median of {rounds}, from start of the process to the last event");
    line("bare consumer (floor)", &floor);
    line("millstream aggregate", &drain);
    if let Some(other) = &other {
        let run = median(others);
        line("… another build", &run);
        println!("{}: {:.0} % of its rate", other.aggregate.display(), 100.0 * run.seconds / drain.seconds);
    }
    if let Some(broken) = &broken {
        let run = median(broken_drains);
        line("… some broken", &run);
        println!(
            "{} of {events} broken: exactly these are dead letters; {:.0} % of the rate without broken records",
            broken.dead_letters(),
            100.0 * drain.seconds / run.seconds
        );
    }
    println!(
        "ratio: {:.0} % of the floor's rate, {:.2} times its CPU; first row visible after {:.0} ms",
        100.0 * floor.seconds / drain.seconds,
        drain.usage.cpu_s / floor.usage.cpu_s,
        drain.first_row_s * 1e3
    );
    Ok(())
}

/// A topic with a backlog of records.
struct Backlog {
    topic: String,
    events: u64,
    /// One record in this many is broken; 0 means none.
    broken_every: u64,
}

impl Backlog {
    async fn fill(place: &Place, events: u64, broken_every: u64) -> Result<Self, Failure> {
        let topic = format!("w1_{}_{events}_{broken_every}", std::process::id());
        let began = Instant::now();
        fill::topic(&place.brokers, &topic, events, broken_every).await?;
        eprintln!("{events} gzip transactions wait in 3 partitions ({:.0} s to send)", began.elapsed().as_secs_f64());
        Ok(Self { topic, events, broken_every })
    }

    /// How many records are broken.
    fn dead_letters(&self) -> u64 {
        (0..self.events).filter(|number| fill::is_broken(*number, self.broken_every)).count() as u64
    }
}

pub fn median(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    runs[runs.len() / 2]
}

pub fn floor(place: &Place, topic: &str, events: u64) -> Result<Run, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["floor", &place.brokers, topic, &events.to_string()]).stdout(Stdio::piped());
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
    fill::pipeline(place, folder.path(), &name, &backlog.topic).await?;
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
        if done >= backlog.events {
            seconds = measured.elapsed().as_secs_f64();
        }
        tokio::time::sleep(if first_row_s.is_none() { FIRST_POLL } else { POLL }).await;
    }
    let usage = measured.usage()?;
    if backlog.broken_every == 0 {
        database.check(backlog.events).await?;
    }
    let letters = fill::dead_letters(place, &name).await?;
    if letters != backlog.dead_letters() {
        return Err(format!("{letters} dead letters instead of {}", backlog.dead_letters()).into());
    }
    drop(measured);
    Ok(Run { seconds, usage, first_row_s: first_row_s.unwrap_or(seconds) })
}

/// The function's binary, as it is deployed.
pub fn aggregate(place: &Place, folder: &std::path::Path, postgres_url: &str) -> Command {
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

    /// Checks that the table has as many windows and groups as the events.
    async fn check(&self, events: u64) -> Result<(), Failure> {
        let row = self
            .client
            .query_one("SELECT count(DISTINCT curr_time)::bigint, count(*)::bigint FROM transaction_flow", &[])
            .await?;
        let (windows, rows): (i64, i64) = (row.get(0), row.get(1));
        let due = (events as i64 - 1) / (2 * fill::EVENTS_PER_S as i64) + 1;
        if windows != due || rows > due * 40 {
            return Err(format!("{windows} windows and {rows} rows; {due} windows were expected").into());
        }
        Ok(())
    }
}

async fn connect(url: &str) -> Result<Client, Failure> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
