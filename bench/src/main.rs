//! The workloads, side by side in one run with a bare librdkafka consumer that only reads the same topic: the floor.
//!
//! ```text
//! bench/run                                  # starts a Kafka and a PostgreSQL, runs everything, stops them
//! millstream-bench w1 --events 5000000      # one workload, on the services of MILLSTREAM_TEST_KAFKA and …_POSTGRES
//! ```
//!
//! The machine is noisy and the broker shares it: compare the ratios of one run, not figures of two.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock, and a main its environment")]

mod drain;
mod fill;
mod floor;
mod latency;
mod process;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Anything that ends a measurement.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Subcommand)]
enum Workload {
    /// Transactions waiting in 3 partitions → 2-second sums in PostgreSQL, against the floor.
    W1 {
        /// How many transactions wait.
        #[arg(long, default_value_t = 5_000_000)]
        events: u64,
        /// How often each side runs; the median counts.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Drains a second topic as well, in which one record in so many is broken; 0 for none.
        #[arg(long, default_value_t = 0)]
        broken_every: u64,
        /// Another build of `aggregate`, drained in turns with this one: is the new one as fast as the old one?
        #[arg(long)]
        against: Option<PathBuf>,
    },
    /// From produce to visible row, at a steady rate.
    Latency {
        /// Transactions a second.
        #[arg(long, default_value_t = 1_000)]
        rate: u64,
        /// Seconds of it.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// The floor alone: reads records of a topic and does nothing with them.
    #[command(hide = true)]
    Floor { brokers: String, topic: String, records: u64 },
}

/// Where the services and the binary under test are.
#[derive(Clone)]
struct Place {
    brokers: String,
    postgres_url: String,
    aggregate: PathBuf,
}

impl Place {
    fn find() -> Result<Self, Failure> {
        let needed = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set: run bench/run"));
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
}

fn main() -> ExitCode {
    let done = match Arguments::parse().workload {
        Workload::Floor { brokers, topic, records } => floor::read(&brokers, &topic, records),
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
    let place = Place::find()?;
    match workload {
        Workload::W1 { events, rounds, broken_every, against } => {
            drain::w1(&place, events, rounds, broken_every, against).await
        }
        Workload::Latency { rate, seconds } => latency::measure(&place, rate, seconds).await,
        Workload::Floor { .. } => Ok(()),
    }
}
