//! The `millstream` command: tries, checks, tests, runs and audits pipelines.
//!
//! ```
//! use millstream_cli::{Cli, Command};
//! use clap::Parser as _;
//!
//! let cli = Cli::parse_from(["millstream", "audit", "flow", "-p", "pipelines/bank", "--json"]);
//! assert!(cli.global.json);
//! assert!(matches!(cli.command, Some(Command::Audit(args)) if args.function.as_deref() == Some("flow")));
//! ```
//!
//! Results go to stdout (with `--json` for machines), progress and logs to stderr, and the exit code tells the outcome:
//! see [`Failure::exit_code`]. Each command is a file in `commands/`. The live view of `dev` is in `live/`: the text on
//! the screen is a pure function of a [`live::State`].

mod advice;
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
mod since;
mod summary;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;
use millstream_core::Env;
use millstream_host::shell;

pub use args::{
    AuditArgs, Cli, Command, DeadLettersCommand, DevArgs, GenerateArgs, Global, NewArgs, PeekArgs, PreviewArgs,
    ProduceArgs, RebuildArgs, RedriveArgs, ResetArgs, TopicsCommand,
};
pub use failure::Failure;

use self::{advice::Advice, context::Context};

/// Runs the command that `args` ask for, with the settings of `env`, which a main makes from its environment.
pub fn main(args: impl IntoIterator<Item = OsString>, env: &Env) -> ExitCode {
    // Not by the log: it may be filtered out there, and there is no log yet.
    shell::prepare(env, |place| {
        eprintln!("error: a bug in millstream at {place}: please report it with this place");
    });
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not errors: clap prints them on stdout. A closed pipe is ignored.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { failure::USAGE } else { 0 });
        }
    };
    let advice = Advice::of(cli.global.pipeline.as_deref(), cli.global.data_dir.as_deref());
    match run(cli, env) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(&advice);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(cli: Cli, env: &Env) -> Result<(), Failure> {
    let command = cli.command.unwrap_or_else(|| Command::Dev(DevArgs::default()));
    let context = Context::new(cli.global, &command, env)?;
    shell::block_on(commands::run(&context, command))
}
