use std::io::Write as _;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{Cli, Failure};

/// `millstream completions SHELL`
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    // `generate` panics if it can't write; writing to memory always works.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "millstream", &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}
