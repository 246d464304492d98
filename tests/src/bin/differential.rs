//! Compares millstream with other engines over generated statements and records: see `millstream_tests::differential`.
//! `tests/differential` starts the services that it needs.
#![allow(clippy::unwrap_used, reason = "this is test code: a panic is how it fails")]

use std::{collections::BTreeSet, process::ExitCode};

use clap::{Parser, ValueEnum};
use millstream_tests::differential::{Setting, differential};

/// Runs generated statements over generated records through the real function in random cuts, and compares what readers
/// see with DuckDB and DataFusion. The exit code is 1 if anything differs.
#[derive(Parser)]
struct Args {
    /// How many statements.
    #[arg(long, default_value_t = 1_000)]
    statements: u64,
    /// How many different cuts into batches each statement gets.
    #[arg(long, default_value_t = 4)]
    cuts: usize,
    /// The first case's seed; if it is missing, a random one is used and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// The store of the tables; PostgreSQL is the server in MILLSTREAM_TEST_POSTGRES.
    #[arg(long, value_enum, default_value_t = Store::Embedded)]
    store: Store,
    /// How many cases run at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Features that statements must not use: joins, above, union, hop, ….
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// End the run after this many differences.
    #[arg(long, default_value_t = 10)]
    max_shown: usize,
    /// Show differences as found, without shrinking them.
    #[arg(long)]
    no_shrink: bool,
    /// Show every statement.
    #[arg(long)]
    verbose: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Store {
    Embedded,
    Postgres,
    Both,
}

fn main() -> ExitCode {
    let args = Args::parse();
    #[expect(clippy::disallowed_methods, reason = "the edge: it is printed, so that the run can be repeated")]
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("differential: seed {seed}");
    let setting = Setting {
        statements: args.statements,
        cuts: args.cuts,
        seed,
        embedded: args.store != Store::Postgres,
        postgres: (args.store != Store::Embedded).then(|| millstream_tests::setting("MILLSTREAM_TEST_POSTGRES")),
        jobs: args.jobs,
        without: args.without.into_iter().collect::<BTreeSet<_>>(),
        python: millstream_tests::setting("MILLSTREAM_TEST_DUCKDB").into(),
        max_shown: args.max_shown,
        shrink: !args.no_shrink,
        verbose: args.verbose,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let summary = runtime.block_on(differential(setting));
    if args.verbose {
        summary.dialect_samples.iter().for_each(|sample| println!("a difference of dialects: {sample}\n"));
    }
    println!("{summary}");
    if summary.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
