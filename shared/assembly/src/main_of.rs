//! The main of every function binary: finds out where it is, and runs there.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use millstream_core::{Error, Result, SystemClock, fault};
use millstream_host::{Retries, Stop, lambda, stream};
use millstream_pipeline::{Connections, Pipeline, Uses, setting};

use crate::{Function, Systems, log_filter, require_said};

/// What a function binary reads from its environment, once.
pub struct Settings {
    /// `MILLSTREAM_PIPELINE`: the pipeline file or its folder; `pipeline.yaml` beside the binary's working folder if it
    /// isn't set.
    pub pipeline: PathBuf,
    /// `MILLSTREAM_FUNCTION`: which function of the file. May be left out when the file has one that uses this binary.
    pub function: Option<String>,
    /// Where the systems are.
    pub connections: Connections,
    /// Is `AWS_LAMBDA_RUNTIME_API` set?
    pub lambda: bool,
}

impl Settings {
    /// Reads the settings by `get`, which a main makes from its environment.
    ///
    /// # Errors
    /// `Stop` naming the variable that is wrong.
    pub fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        if let Some(setting) = get("MILLSTREAM_FAULT") {
            fault::arm(&setting);
        }
        Ok(Self {
            pipeline: setting(get, "MILLSTREAM_PIPELINE")?.map_or_else(|| PathBuf::from("."), PathBuf::from),
            function: setting(get, "MILLSTREAM_FUNCTION")?,
            connections: Connections::read(get)?,
            lambda: lambda::is_lambda(get),
        })
    }
}

/// Runs the function that `uses` this binary until the host ends it.
#[expect(clippy::disallowed_methods, reason = "the edge: a function's main reads its environment here, once")]
pub fn function_main(uses: Uses) -> ExitCode {
    keep_memory_together();
    keep_panics_to_their_place(|place| {
        tracing::error!(place, "a defect of millstream: please report it with this place");
    });
    let get = |name: &str| std::env::var(name).ok();
    let filter = log_filter(&get);
    log_to_stderr(filter.as_ref().ok().and_then(Option::as_deref).unwrap_or("info"), true);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    let done = filter.and_then(|_| Settings::read(&get)).and_then(|settings| runtime.block_on(run(uses, settings)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the function has stopped");
            ExitCode::FAILURE
        }
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

/// A panic's text may quote a record, and the log must not: where it happened is told, and no more.
pub fn keep_panics_to_their_place(tell: impl Fn(&str) + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |panic| {
        tell(&panic.location().map(ToString::to_string).unwrap_or_default());
    }));
}

/// Log lines on stderr, as JSON for machines or plain for a terminal; `filter` as in `RUST_LOG`.
pub fn log_to_stderr(filter: &str, json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, in a test, leaves the first one's subscriber.
    let _ = if json { log.json().try_init() } else { log.compact().try_init() };
}

async fn run(uses: Uses, settings: Settings) -> Result<()> {
    let pipeline = Pipeline::load(&settings.pipeline)?;
    let name = settings.function.map_or_else(|| only_one(&pipeline, uses), Ok)?;
    require_said(&settings.connections, &pipeline, &name).await?;
    let systems = Systems::open(&pipeline, &settings.connections, Arc::new(SystemClock))?;
    let [(_, log), (_, tables), (_, lake)] = systems.describe();
    tracing::info!(function = %name, log, tables, lake, create = settings.connections.create, "starting");
    if settings.lambda {
        // Lambda starts a process again that could not start.
        let function = systems.function(&pipeline, &name).await?;
        return lambda::run(Arc::clone(&function.runner) as _, function.generations.clone()).await;
    }
    let (stop, retries) = (Stop::default(), Retries::default());
    stop_on_signal(stop.clone());
    let function = once_there(&systems, &pipeline, &name, &stop, retries).await?;
    let (subscription, runner) = (function.subscription.clone(), Arc::clone(&function.runner));
    stream::run(systems.source(), subscription, runner, stop, retries).await
}

/// The function, as soon as its systems answer: one that is away at start is waited for like one that goes away later.
async fn once_there(
    systems: &Systems,
    pipeline: &Pipeline,
    name: &str,
    stop: &Stop,
    retries: Retries,
) -> Result<Function> {
    let (mut attempt, mut pause_ms) = (1, retries.first_pause_ms);
    loop {
        let error = match systems.function(pipeline, name).await {
            Err(error) if error.is_retry() && attempt < retries.max_attempts && !stop.requested() => error,
            done => return done,
        };
        if attempt == 1 || attempt.is_multiple_of(10) {
            tracing::warn!(function = name, attempt, "can't start yet, trying again: {error}");
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = pause_ms.saturating_mul(2).min(retries.max_pause_ms);
        attempt += 1;
    }
}

fn only_one(pipeline: &Pipeline, uses: Uses) -> Result<String> {
    let mut fitting = pipeline.functions.iter().filter(|(_, function)| function.uses == uses);
    match (fitting.next(), fitting.next()) {
        (Some((name, _)), None) => Ok(name.clone()),
        (None, _) => Err(Error::stop(format!("no function of pipeline {} uses this binary", pipeline.name))),
        _ => Err(Error::stop("several functions of the pipeline use this binary: say which in MILLSTREAM_FUNCTION")),
    }
}

/// SIGTERM and Ctrl-C ask for a graceful end.
fn stop_on_signal(stop: Stop) {
    tokio::spawn(async move {
        let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
            return;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        stop.request();
    });
}
