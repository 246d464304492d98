//! The backlogs that `aggregate` drains, and the tables that it makes of them.

use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use millstream_core::{Compression, NewRecord};
use tokio_postgres::Client;

use crate::{Failure, Place, fill};

/// What the records are, and what is made of them.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Transactions of `pipelines/bank` → sums by branch, currency and 2 seconds. One record in `broken_every` is
    /// truncated; 0: none.
    Bank { broken_every: u64 },
    /// Payments of so many accounts in turns → a row for each account, in batches in which each account has a payment.
    Accounts(u64),
    /// Nested events of 2 kB → the hottest of each minute.
    Wide,
}

/// How a backlog is made.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub shape: Shape,
    pub events: u64,
    pub partitions: i32,
    pub compression: Compression,
}

/// Makes the records of these numbers.
type Make = Box<dyn FnMut(Range<u64>) -> Result<Vec<NewRecord>, Failure> + Send>;

/// A topic with a backlog of records.
pub struct Backlog {
    pub topic: String,
    pub kind: Kind,
    /// The sum of all transactions that are not broken, in hundredths.
    hundredths: i64,
}

/// 2026-01-01T00:00:00Z.
const FIRST_S: u64 = 1_767_225_600;
/// Wide events for each minute of event time.
const WIDE_A_MINUTE: u64 = 6_000;
const MODULES: [&str; 10] =
    ["zarya", "unity", "zvezda", "destiny", "harmony", "columbus", "kibo", "tranquility", "cupola", "nauka"];
const NOTE: &str = "All systems nominal; the crew continues the scheduled experiments, the exercise programme and the maintenance \
                    of the water recovery system, and prepares the arrival of the next cargo vehicle at the forward port.";

impl Backlog {
    /// Creates the topic and fills it.
    pub async fn fill(place: &Place, kind: Kind) -> Result<Self, Failure> {
        // Unique in a run: a topic of each kind, however many are measured.
        let Kind { shape, events, partitions, compression } = kind;
        let shape_name = match shape {
            Shape::Bank { broken_every } => format!("bank{broken_every}"),
            Shape::Accounts(accounts) => format!("accounts{accounts}"),
            Shape::Wide => "wide".to_owned(),
        };
        let compression_name = format!("{compression:?}").to_lowercase();
        let topic = format!("w1_{}_{shape_name}_{events}_{partitions}_{compression_name}", std::process::id());
        let began = Instant::now();
        let hundredths = Arc::new(AtomicI64::new(0));
        let make: Make = match shape {
            Shape::Bank { broken_every } => {
                let (mut make, hundredths) = (fill::transactions(&topic, broken_every)?, Arc::clone(&hundredths));
                Box::new(move |numbers| {
                    let records = make(numbers)?;
                    hundredths.fetch_add(records.iter().filter_map(amount).sum(), Ordering::Relaxed);
                    Ok(records)
                })
            }
            Shape::Accounts(accounts) => Box::new(move |numbers| Ok(numbers.map(|at| payment(at, accounts)).collect())),
            Shape::Wide => Box::new(|numbers| Ok(numbers.map(wide).collect())),
        };
        fill::send(place, &topic, (partitions, compression), events, make).await?;
        eprintln!("{events} records wait in {topic} ({:.0} s to send)", began.elapsed().as_secs_f64());
        Ok(Self { topic, kind, hundredths: hundredths.load(Ordering::Relaxed) })
    }

    /// How many records are broken.
    pub fn dead_letters(&self) -> u64 {
        let Shape::Bank { broken_every } = self.kind.shape else { return 0 };
        (0..self.kind.events).filter(|number| fill::is_broken(*number, broken_every)).count() as u64
    }

    /// Writes the pipeline that drains it into `folder`, under a name of its own.
    pub async fn pipeline(&self, place: &Place, folder: &Path, name: &str) -> Result<(), Failure> {
        let (topic, partitions) = (&self.topic, self.kind.partitions);
        let text = match self.kind.shape {
            Shape::Bank { .. } => fill::pipeline_text(name, topic, partitions, ""),
            Shape::Accounts(accounts) => accounts_text(name, topic, partitions, accounts),
            Shape::Wide => wide_text(name, topic, partitions),
        };
        fill::write_pipeline(place, folder, name, &text).await
    }

    /// Checks that the table is what the records make.
    pub async fn check(&self, client: &Client) -> Result<(), Failure> {
        let events = self.kind.events as i64;
        let (sql, due) = match self.kind.shape {
            Shape::Bank { .. } => {
                let windows = (events - 1) / (2 * fill::EVENTS_PER_S as i64) + 1;
                let sql =
                    "SELECT count(DISTINCT curr_time)::bigint, (100 * sum(batch_value))::bigint FROM transaction_flow";
                (sql, (windows, self.hundredths))
            }
            Shape::Accounts(accounts) => {
                ("SELECT count(*)::bigint, sum(payments)::bigint FROM balances", (accounts as i64, events))
            }
            Shape::Wide => {
                let minutes = (events - 1) / WIDE_A_MINUTE as i64 + 1;
                ("SELECT count(*)::bigint, sum(events)::bigint FROM hottest", (minutes, events))
            }
        };
        let row = client.query_one(sql, &[]).await?;
        let found: (i64, i64) = (row.get(0), row.get(1));
        if found == due { Ok(()) } else { Err(format!("{found:?} instead of {due:?}: {sql}").into()) }
    }
}

/// The amount of a transaction in hundredths; none of a broken one.
fn amount(transaction: &NewRecord) -> Option<i64> {
    let text = std::str::from_utf8(transaction.value.as_deref()?).ok()?;
    let amount = text.split_once(r#""amount":"#)?.1.trim_start_matches('"').split(['"', ',', '}']).next()?;
    let (whole, part) = amount.split_once('.').unwrap_or((amount, ""));
    // A broken transaction may end in the amount.
    text.ends_with('}').then(|| format!("{whole}{part:0<2}").parse().ok())?
}

fn payment(number: u64, accounts: u64) -> NewRecord {
    let value = format!(r#"{{"account":{},"amount":"{}.25"}}"#, number % accounts, number % 1_000);
    NewRecord { value: Some(value.into_bytes()), ..NewRecord::default() }
}

fn accounts_text(name: &str, topic: &str, partitions: i32, accounts: u64) -> String {
    format!(
        r#"name: {name}
topics:
  {topic}: {{ partitions: {partitions}, schema: {{ account: bigint not null, amount: "decimal(18,2) not null" }} }}
functions:
  flow:
    uses: aggregate
    from: {topic}
    sql: SELECT account, sum(amount) AS balance, count(*) AS payments FROM {topic} GROUP BY account
    batch: {{ max_records: {} }}
    into: postgres.balances
"#,
        accounts.max(32_000)
    )
}

/// A position with the state of the station's modules, as open-notify would write it.
fn wide(number: u64) -> NewRecord {
    let (latitude, longitude) = ((number as f64 * 0.01).sin() * 51.64, (number as f64 * 0.32) % 360.0 - 180.0);
    let modules: Vec<String> = MODULES
        .iter()
        .enumerate()
        .map(|(at, module)| {
            let wave = (number as f64 * 0.001 + at as f64).sin();
            format!(
                r#""{module}": {{"temperature_c": {:.2}, "pressure_kpa": {:.3}, "humidity": {:.2}, "co2_ppm": {}, "power": {{"volts": {:.2}, "amps": {:.3}}}}}"#,
                22.0 + wave * 3.0,
                101.3 + wave,
                45.0 + wave * 9.0,
                2_000 + (wave * 900.0) as i64,
                124.0 + wave * 2.0,
                9.0 + wave
            )
        })
        .collect();
    let crew: Vec<String> = (0..7).map(|at| format!(r#"{{"name": "Astronaut {at}", "craft": "ISS"}}"#)).collect();
    let value = format!(
        r#"{{"iss_position": {{"latitude": "{latitude:.4}", "longitude": "{longitude:.4}"}}, "timestamp": {}, "message": "success", "modules": {{{}}}, "crew": [{}], "note": "{NOTE}"}}"#,
        FIRST_S + number * 60 / WIDE_A_MINUTE,
        modules.join(", "),
        crew.join(", ")
    );
    NewRecord { value: Some(value.into_bytes()), ..NewRecord::default() }
}

/// The schema has every field; the statement needs three.
fn wide_text(name: &str, topic: &str, partitions: i32) -> String {
    const MODULE: &str = "{ temperature_c: double, pressure_kpa: double, humidity: double, co2_ppm: int, power: { volts: double, amps: double } }";
    let modules: Vec<String> = MODULES.iter().map(|module| format!("{module}: {MODULE}")).collect();
    format!(
        r#"name: {name}
topics:
  {topic}:
    partitions: {partitions}
    schema:
      iss_position: {{ latitude: string, longitude: string }}
      timestamp: timestamp(s) not null
      message: string
      modules: {{ {} }}
      crew: [{{ name: string, craft: string }}]
      note: string
    event_time: timestamp
functions:
  flow:
    uses: aggregate
    from: {topic}
    sql: |
      SELECT tumble("timestamp", INTERVAL '1 minute') AS minute, max(modules['destiny']['temperature_c']) AS hottest_c,
             count(*) AS events
      FROM {topic} WHERE message = 'success' GROUP BY 1
    into: postgres.hottest
"#,
        modules.join(", ")
    )
}
