//! The `millstream` command; its code is in the library.

use std::process::ExitCode;

use millstream_core::Env;

#[expect(clippy::disallowed_methods, reason = "the edge: the command reads its environment here, once")]
fn main() -> ExitCode {
    millstream_cli::main(std::env::args_os(), &Env::of_process(std::env::vars_os()))
}
