//! The `millstream` command: tries, checks, tests, runs and audits pipelines.
//!
//! ```
//! use millstream_cli::{Cli, Command};
//! use clap::Parser as _;
//!
//! let cli = Cli::parse_from(["millstream", "audit", "flow", "-p", "pipelines/bank", "--json"]);
//! assert!(cli.global.json);
//! assert!(matches!(cli.command, Some(Command::Audit { function }) if function.as_deref() == Some("flow")));
//! ```
//!
//! Results go to stdout (with `--json` for machines), progress and logs to stderr, and what became of it is in the exit
//! code: see [`Failure::exit_code`]. Each command is a file of `commands/`; the live view of `dev` is in `live/`, where
//! what is shown is a pure function of a [`live::State`].

mod args;
mod commands;
mod context;
mod failure;
mod grid;
mod infer;
mod interrupt;
mod letters;
pub mod live;
mod logs;
mod numbers;
mod patience;
mod running;
mod summary;

use std::{ffi::OsString, process::ExitCode, time::Duration};

use clap::Parser as _;
use millstream_assembly::keep_panics_to_their_place;
use millstream_core::{Env, Error, fault};

pub use args::{Cli, Command, DeadLettersCommand, DevArgs, GenerateArgs, Global, NewArgs, ProduceArgs, ResetArgs};
pub use failure::Failure;

use context::Context;

/// How long calls that nobody waits for any more may take when everything else is done.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// Runs the command that `args` ask for, with the settings of `env`, which a main makes from its environment.
pub fn main(args: impl IntoIterator<Item = OsString>, env: &Env) -> ExitCode {
    // Whatever the log's filter is, and before there is a log.
    keep_panics_to_their_place(|place| {
        eprintln!("error: a defect of millstream at {place}: please report it with this place");
    });
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no mistakes: clap prints them on stdout. A closed pipe is nobody's concern here.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { failure::USAGE } else { 0 });
        }
    };
    if let Some(setting) = env.get("MILLSTREAM_FAULT") {
        fault::arm(&setting);
    }
    match run(cli, env) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(cli: Cli, env: &Env) -> Result<(), Failure> {
    let command = cli.command.unwrap_or_else(|| Command::Dev(DevArgs::default()));
    let context = Context::new(cli.global, &command, env)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::stop("the system gives no threads or timers").caused_by(error))?;
    let outcome = runtime.block_on(commands::run(&context, command));
    // What a command has begun and given up on (a call to a broker that is away) is not waited for.
    runtime.shutdown_timeout(LAST_CALLS);
    outcome
}
