use std::io;

use console::style;
use millstream_core::Error;
use millstream_pipeline::Diagnostics;

use crate::advice::Advice;

/// The exit code of a wrong command line.
pub(crate) const USAGE: u8 = 2;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// An audit, a test or a check found something, and has printed it.
    Differences,
    /// The command line is wrong.
    Usage(String),
    /// The pipeline file is wrong.
    Pipeline(Diagnostics),
    /// A system or a setting failed.
    System(Error),
    /// The reader of stdout has closed it.
    Closed,
}

impl Failure {
    /// The stable exit codes: 1 differences, 2 usage, 3 a person must act, 4 transient trouble.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Differences => 1,
            Self::Usage(_) => USAGE,
            Self::Pipeline(_) | Self::System(Error::Stop(_) | Error::Poison(_)) => 3,
            Self::System(Error::Retry(_) | Error::TooLarge(_) | Error::Fenced { .. }) => 4,
        }
    }

    /// Prints the failure on stderr, unless it has been printed.
    pub(crate) fn print(&self, advice: &Advice) {
        let error = style("error:").red().bold().for_stderr();
        match self {
            Self::Differences | Self::Closed => {}
            Self::Usage(message) => eprintln!("{error} {}", advice.complete(message)),
            Self::Pipeline(mistakes) => eprintln!("{mistakes}"),
            Self::System(problem) => eprintln!("{error} {}", advice.complete(&problem.to_string())),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::System(error)
    }
}

impl From<io::Error> for Failure {
    /// From an error of writing to stdout, the only output that commands write themselves.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::System(Error::stop("can't write to stdout").caused_by(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_pipeline::Pipeline;

    use super::*;

    #[test]
    fn the_exit_codes_are_stable() {
        let of = |failure: Failure| failure.exit_code();
        assert_eq!(of(Failure::Differences), 1);
        assert_eq!(of(Failure::Usage(String::new())), 2);
        assert_eq!(of(Failure::Pipeline(Pipeline::parse("", "p.yaml".as_ref()).unwrap_err())), 3);
        assert_eq!(of(Error::stop("a").into()), 3);
        assert_eq!(of(Error::poison("a").into()), 3);
        assert_eq!(of(Error::retry("a").into()), 4);
        assert_eq!(of(Error::Fenced { current: None }.into()), 4);
        assert_eq!(of(io::Error::from(io::ErrorKind::BrokenPipe).into()), 0);
        assert_eq!(of(io::Error::from(io::ErrorKind::StorageFull).into()), 3);
    }
}
