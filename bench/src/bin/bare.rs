//! The bare clients as they come. A binary of its own: millstream replaces a function of librdkafka in every binary that it is
//! linked into.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use millstream_bench::{Failure, bare};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    client: Client,
}

#[derive(Subcommand)]
enum Client {
    /// Reads records of a topic and drops them.
    Read { brokers: String, topic: String, records: u64 },
    /// Reads records of a topic and writes them to another one.
    Hop { brokers: String, from: String, into: String, records: u64 },
    /// Inserts rows into Cassandra.
    Insert { cassandra: String, keyspace: String, rows: u64 },
}

fn main() -> ExitCode {
    match run(Arguments::parse().client) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(client: Client) -> Result<(), Failure> {
    match client {
        Client::Read { brokers, topic, records } => bare::read(&brokers, &topic, records),
        Client::Hop { brokers, from, into, records } => bare::consume_and_produce(&brokers, &from, &into, records),
        Client::Insert { cassandra, keyspace, rows } => {
            tokio::runtime::Runtime::new()?.block_on(bare::insert(&cassandra, &keyspace, rows))
        }
    }
}
