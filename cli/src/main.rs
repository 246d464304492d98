//! The `millstream` command; its code is in the library.

use std::process::ExitCode;

#[expect(clippy::disallowed_methods, reason = "the edge: the command reads its environment here, once")]
fn main() -> ExitCode {
    millstream_cli::main(std::env::args_os(), &|name| std::env::var(name).ok())
}
