//! The process around a function or a command: what the mains of all binaries do in the same way.

use std::{io, time::Duration};

use millstream_core::{Env, Error, Result, fault};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// How long calls that were given up (to a broker that is away) may take when everything else is done.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// The words that a log filter may have.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// Text for a person.
    Plain {
        /// With the escape codes of a terminal.
        colours: bool,
    },
}

/// Prepares the process: its memory, what a panic says, and the fault point that a test has armed (`MILLSTREAM_FAULT`). A
/// main calls it first, before there are threads.
///
/// A panic's text may quote a record, and must be in no log: `tell_panic` gets the place where it happened and no more.
pub fn prepare(env: &Env, tell_panic: impl Fn(&str) + Send + Sync + 'static) {
    keep_memory_together();
    std::panic::set_hook(Box::new(move |panic| {
        tell_panic(&panic.location().map(ToString::to_string).unwrap_or_default());
    }));
    if let Some(setting) = env.get("MILLSTREAM_FAULT") {
        fault::arm(&setting);
    }
}

/// glibc gives each thread a heap of its own, and each keeps what it once needed. A function's threads take turns at the
/// same work, so two heaps serve as fast and keep some 10 MiB less.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "mallopt has no precondition but to be called before there are threads")]
fn keep_memory_together() {
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep_memory_together() {}

/// Runs a main's work on a runtime of its own. Calls that the work has given up are not waited for.
///
/// # Errors
/// `Stop` when the system gives no threads or timers; what the work returns.
pub fn block_on<T, E: From<Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::stop("the system gives no threads or timers").caused_by(error))?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_CALLS);
    outcome
}

/// Sends log lines that `filter` lets through to `writer`. Tests may call this twice; the first subscriber stays.
pub fn log_to<W>(writer: W, filter: &str, format: LogFormat)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let _ = match format {
        LogFormat::Json => log.json().try_init(),
        LogFormat::Plain { colours } => log.with_ansi(colours).compact().try_init(),
    };
}

/// As [`log_to`], on stderr and for machines: what a function's binary does.
pub fn log_json_to_stderr(filter: &str) {
    log_to(io::stderr, filter, LogFormat::Json);
}

/// `MILLSTREAM_LOG`, if it is set and not empty: a filter as in `RUST_LOG`. It refuses filters that the subscriber would
/// misread: it takes a misspelt level for a module's name, and an empty filter for errors only.
///
/// # Errors
/// `Stop` that says what is allowed.
pub fn log_filter(env: &Env) -> Result<Option<String>> {
    let Some(filter) = env.get("MILLSTREAM_LOG").filter(|filter| !filter.trim().is_empty()) else { return Ok(None) };
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    for part in filter.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if !is_level(level) || EnvFilter::try_new(part).is_err() {
            return Err(Error::stop(format!(
                "MILLSTREAM_LOG: `{part}` is not a log filter: it may be {}, or MODULE=LEVEL, or a comma-separated list \
                 (`info,millstream_kafka=debug`)",
                LEVELS.join(", ")
            )));
        }
    }
    Ok(Some(filter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_spelt_right_or_refused() {
        let of = |value: &str| log_filter(&Env::of([("MILLSTREAM_LOG", value)]));
        for filter in ["info", "WARN", "info,millstream_kafka=debug", "off", " debug , rdkafka=off"] {
            assert_eq!(of(filter).unwrap().as_deref(), Some(filter));
        }
        assert_eq!((of("").unwrap(), of(" ").unwrap(), log_filter(&Env::default()).unwrap()), (None, None, None));
        for filter in ["inof", "info,debg", "millstream_kafka=verbose", "=", "info;debug"] {
            let said = of(filter).unwrap_err().to_string();
            assert!(said.starts_with("MILLSTREAM_LOG: `") && said.contains("off, error, warn"), "{said}");
        }
    }
}
