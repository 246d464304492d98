//! The workloads, in one run with the floor: a bare librdkafka consumer that only reads the same topic.
//!
//! ```text
//! bench/run                                  # starts a Kafka and a PostgreSQL, runs everything, stops them
//! millstream-bench w1 --events 5000000      # one workload, on the services of MILLSTREAM_TEST_KAFKA, …_POSTGRES and …_S3
//! ```
//!
//! The machine is noisy, and the broker runs on it too: compare the ratios within one run, not the figures of two runs.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock, and a main its environment")]

mod cached;
mod drain;
mod files;
mod fill;
mod floor;
mod hop;
mod keep;
mod latency;
mod process;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Any error that ends a measurement.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Subcommand)]
enum Workload {
    /// A backlog in 3 partitions → 2-second sums in PostgreSQL, compared with the floor.
    W1 {
        /// How many transactions the backlog has.
        #[arg(long, default_value_t = 5_000_000)]
        events: u64,
        /// How many times each side runs; the median counts.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Also drains a second topic, in which one record in this many is broken; 0 for no second topic.
        #[arg(long, default_value_t = 0)]
        broken_every: u64,
        /// Another build of `aggregate`, run in turns with this one: compares a new build with an old one.
        #[arg(long)]
        against: Option<PathBuf>,
    },
    /// A backlog of nested events in 3 partitions → flattened Parquet on an S3, compared with the floor.
    W2 {
        /// How many positions the backlog has.
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
        /// How many times each side runs; the median counts.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// A backlog in 3 partitions → filtered and joined with a reference → another topic, compared with a bare loop.
    W3 {
        /// How many transactions the backlog has.
        #[arg(long, default_value_t = 2_000_000)]
        events: u64,
        /// How many times each side runs; the median counts.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// A backlog in 3 partitions → an event store in Cassandra, compared with a bare driver's inserts.
    W4 {
        /// How many transactions the backlog has.
        #[arg(long, default_value_t = 300_000)]
        events: u64,
        /// How many times each side runs; the median counts.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// The time from produce through a topic to the cache, at a steady rate.
    CacheLatency {
        /// Orders per second.
        #[arg(long, default_value_t = 500)]
        rate: u64,
        /// The duration in seconds.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// The time from produce to visible row, at a steady rate.
    Latency {
        /// Transactions per second.
        #[arg(long, default_value_t = 1_000)]
        rate: u64,
        /// The duration in seconds.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// Only the floor: reads records of a topic and drops them.
    #[command(hide = true)]
    Floor { brokers: String, topic: String, records: u64 },
    /// Only the bare driver: inserts rows.
    #[command(hide = true)]
    Inserts { cassandra: String, keyspace: String, rows: u64 },
    /// Only the bare loop: reads records of a topic and writes them to another one.
    #[command(hide = true)]
    Loop { brokers: String, from: String, into: String, records: u64 },
}

/// Where the services and the binary under test are.
#[derive(Clone)]
struct Place {
    brokers: String,
    postgres_url: String,
    aggregate: PathBuf,
}

fn needed(name: &str) -> Result<String, Failure> {
    Ok(std::env::var(name).map_err(|_| format!("{name} is not set: run bench/run"))?)
}

impl Place {
    fn find() -> Result<Self, Failure> {
        let aggregate = std::env::current_exe()?.with_file_name("aggregate");
        if !aggregate.exists() {
            return Err(format!("{} is missing: build it in the same profile", aggregate.display()).into());
        }
        Ok(Self {
            brokers: needed("MILLSTREAM_TEST_KAFKA")?,
            postgres_url: needed("MILLSTREAM_TEST_POSTGRES")?,
            aggregate,
        })
    }

    /// The binary of another function, beside that of `aggregate`.
    fn binary(&self, name: &str) -> Result<PathBuf, Failure> {
        let binary = self.aggregate.with_file_name(name);
        if binary.exists() {
            Ok(binary)
        } else {
            Err(format!("{} is missing: build it in the same profile", binary.display()).into())
        }
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().workload {
        Workload::Floor { brokers, topic, records } => floor::read(&brokers, &topic, records),
        Workload::Loop { brokers, from, into, records } => hop::consume_and_produce(&brokers, &from, &into, records),
        workload => {
            tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| runtime.block_on(run(workload)))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(workload: Workload) -> Result<(), Failure> {
    if let Workload::Inserts { cassandra, keyspace, rows } = &workload {
        return keep::insert(cassandra, keyspace, *rows).await;
    }
    let place = Place::find()?;
    match workload {
        Workload::W4 { events, rounds } => {
            keep::w4(&place, &needed("MILLSTREAM_TEST_CASSANDRA")?, events, rounds).await
        }
        Workload::CacheLatency { rate, seconds } => {
            cached::measure(&place, &needed("MILLSTREAM_TEST_REDIS")?, rate, seconds).await
        }
        Workload::W1 { events, rounds, broken_every, against } => {
            drain::w1(&place, events, rounds, broken_every, against).await
        }
        Workload::Latency { rate, seconds } => latency::measure(&place, rate, seconds).await,
        Workload::W2 { events, rounds } => files::w2(&place, events, rounds).await,
        Workload::W3 { events, rounds } => hop::w3(&place, events, rounds).await,
        Workload::Floor { .. } | Workload::Loop { .. } | Workload::Inserts { .. } => Ok(()),
    }
}
