//! The workloads, in one run with the floor: bare clients that do the least that the job needs.
//!
//! ```text
//! bench/run                                  # starts the services, runs everything, prints one table, stops them
//! millstream-bench w1 --events 5000000      # one workload, on the services of MILLSTREAM_TEST_KAFKA, …_POSTGRES and …_S3
//! ```
//!
//! The machine is noisy, and the broker runs on it too: compare the ratios within one run, not the figures of two runs.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock, and a main its environment")]

mod all;
mod backlog;
mod cached;
mod cold;
mod drain;
mod files;
mod fill;
mod hop;
mod keep;
mod latency;
mod process;
mod table;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};
use millstream_bench::{Failure, bare};
use millstream_core::Compression;

use crate::{
    backlog::{Kind, Shape},
    drain::Beside,
    table::{Row, Table},
};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    workload: Workload,
    /// How many times each side runs; the median counts.
    #[arg(long, global = true, default_value_t = 3)]
    rounds: usize,
}

#[derive(Subcommand)]
enum Workload {
    /// Every workload below, with what is given in bench/README.md.
    All,
    /// A backlog → a table in PostgreSQL, compared with a bare consumer.
    W1(W1),
    /// A backlog of nested events in 3 partitions → flattened Parquet on an S3, compared with a bare consumer.
    W2 {
        /// How many positions the backlog has.
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
    },
    /// A backlog in 3 partitions → filtered and joined with a reference → another topic, compared with a bare loop.
    W3 {
        /// How many transactions the backlog has.
        #[arg(long, default_value_t = 2_000_000)]
        events: u64,
    },
    /// A backlog in 3 partitions → an event store in Cassandra, compared with a bare driver's inserts.
    W4 {
        /// How many transactions the backlog has.
        #[arg(long, default_value_t = 300_000)]
        events: u64,
    },
    /// The time from produce through a topic to the cache, at a steady rate.
    CacheLatency {
        /// Orders per second.
        #[arg(long, default_value_t = 500)]
        rate: u64,
        /// The duration of a round in seconds.
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
    /// The time from produce to visible row, at a steady rate.
    Latency {
        /// Transactions per second.
        #[arg(long, default_value_t = 1_000)]
        rate: u64,
        /// The duration of a round in seconds.
        #[arg(long, default_value_t = 15)]
        seconds: u64,
        /// The function's `batch.max_wait`, such as 5ms.
        #[arg(long)]
        max_wait: Option<String>,
    },
    /// From the start of `aggregate` on Lambda to the first committed row, beside a handler that only greets.
    ColdStart,
    /// Only a bare consumer, with what millstream replaces of librdkafka.
    #[command(hide = true)]
    Read { brokers: String, topic: String, records: u64 },
}

#[derive(Args)]
struct W1 {
    /// How many records the backlog has.
    #[arg(long, default_value_t = 5_000_000)]
    events: u64,
    /// How the records are compressed.
    #[arg(long, value_enum, default_value_t = Codec::Gzip)]
    compression: Codec,
    /// The topic's partitions.
    #[arg(long, default_value_t = fill::PARTITIONS)]
    partitions: i32,
    /// So many groups in each batch, instead of the bank's windows.
    #[arg(long, conflicts_with = "wide")]
    groups: Option<u64>,
    /// Nested events of 2 kB instead of the bank's transactions.
    #[arg(long)]
    wide: bool,
    /// Also drains a second topic, in which one record in this many is broken; 0 for no second topic.
    #[arg(long, default_value_t = 0, conflicts_with_all = ["groups", "wide"])]
    broken_every: u64,
    /// Another build of `aggregate`, run in turns with this one: compares a new build with an old one.
    #[arg(long)]
    against: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Codec {
    None,
    Gzip,
    Lz4,
    Zstd,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            Codec::Gzip => Self::Gzip,
            Codec::Lz4 => Self::Lz4,
            Codec::Zstd => Self::Zstd,
        }
    }
}

/// Where the services and the binaries under test are.
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

    /// Another binary beside this program's.
    fn binary(&self, name: &str) -> Result<PathBuf, Failure> {
        let binary = std::env::current_exe()?.with_file_name(name);
        if binary.exists() {
            Ok(binary)
        } else {
            Err(format!("{} is missing: build it in the same profile", binary.display()).into())
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.workload {
        Workload::Read { brokers, topic, records } => read_by_our_gzip(&brokers, &topic, records),
        workload => tokio::runtime::Runtime::new()
            .map_err(Into::into)
            .and_then(|runtime| runtime.block_on(run(workload, arguments.rounds)))
            .map(|rows| print!("{}", Table(rows))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Making a client is what links millstream's function into this binary.
fn read_by_our_gzip(brokers: &str, topic: &str, records: u64) -> Result<(), Failure> {
    fill::kafka(brokers)?;
    bare::read(brokers, topic, records)
}

async fn run(workload: Workload, rounds: usize) -> Result<Vec<Row>, Failure> {
    let place = Place::find()?;
    match workload {
        Workload::All => all::measure(&place, rounds).await,
        Workload::W1(w1) => {
            let beside = Beside { build: w1.against, broken_every: w1.broken_every };
            let shape = match (w1.groups, w1.wide) {
                (Some(accounts), _) => Shape::Accounts(accounts),
                (None, true) => Shape::Wide,
                (None, false) => Shape::Bank { broken_every: 0 },
            };
            let (events, partitions, compression) = (w1.events, w1.partitions, w1.compression.into());
            drain::w1(&place, "W1", Kind { shape, events, partitions, compression }, rounds, beside).await
        }
        Workload::W2 { events } => files::w2(&place, events, rounds).await,
        Workload::W3 { events } => hop::w3(&place, events, rounds).await,
        Workload::W4 { events } => keep::w4(&place, &needed("MILLSTREAM_TEST_CASSANDRA")?, events, rounds).await,
        Workload::CacheLatency { rate, seconds } => {
            cached::measure(&place, &needed("MILLSTREAM_TEST_REDIS")?, (rate, seconds), rounds).await
        }
        Workload::Latency { rate, seconds, max_wait } => {
            latency::measure(&place, (rate, seconds), max_wait.as_deref(), rounds).await
        }
        Workload::ColdStart => cold::measure(&place, rounds).await,
        Workload::Read { .. } => Ok(Vec::new()),
    }
}
