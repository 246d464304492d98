//! The main of every function binary: from its kind to a function that runs where the process is.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use millstream_core::{Env, Error, Result, Retries, SystemClock};
use millstream_host::{Host, Stop, detect, shell, stop_on_signals, wait_for};
use millstream_pipeline::{Origin, Pipeline, Uses};

use crate::{
    Connections, Making, Systems, describe_unknown, function::is_feed, maker::require_keys, require_said,
    variables::KNOWN,
};

/// The shortest period that a schedule of EventBridge can have.
const DEFAULT_PERIOD: Duration = Duration::from_secs(60);
/// Lambda ends an invocation after 15 minutes.
const MAX_PERIOD_S: u64 = 15 * 60;

/// What a function binary reads from its environment, once.
struct Settings {
    /// `MILLSTREAM_PIPELINE`: the pipeline file or its folder; `pipeline.yaml` in the working folder if it isn't set.
    pipeline: PathBuf,
    /// `MILLSTREAM_FUNCTION`: which function of the file. May be left out if only one uses this binary.
    function: Option<String>,
    /// `MILLSTREAM_PERIOD_S`: for a function that makes records and is called by a schedule, how many seconds each call makes
    /// records; 60 if it isn't set.
    period: Duration,
    /// Where the systems are.
    connections: Connections,
    /// Where this process runs.
    host: Host,
}

impl Settings {
    /// Reads the settings from `env`, which a main makes from its environment.
    ///
    /// # Errors
    /// `Stop` naming the variable that is wrong.
    fn read(env: &Env) -> Result<Self> {
        Ok(Self {
            pipeline: env.find_text("MILLSTREAM_PIPELINE")?.map_or_else(|| PathBuf::from("."), PathBuf::from),
            function: env.find_text("MILLSTREAM_FUNCTION")?,
            period: env.find_text("MILLSTREAM_PERIOD_S")?.map_or(Ok(DEFAULT_PERIOD), |text| period(&text))?,
            connections: Connections::read(env)?,
            host: detect(env),
        })
    }
}

fn period(text: &str) -> Result<Duration> {
    match text.parse() {
        Ok(seconds @ 1..=MAX_PERIOD_S) => Ok(Duration::from_secs(seconds)),
        _ => Err(Error::stop(format!(
            "MILLSTREAM_PERIOD_S must be the seconds from one event of the schedule to the next, 1 to {MAX_PERIOD_S}; it is \
             something else"
        ))),
    }
}

/// Runs a function of the kind `uses`, until the host ends it: the whole main of its binary. The function and its systems are
/// named by the environment.
#[expect(clippy::disallowed_methods, reason = "the edge: a function's main reads its environment here, once")]
pub fn function_main(uses: Uses) -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if matches!(arguments.as_slice(), [only] if only == "--help" || only == "-h") {
        println!("{}", help(uses));
        return ExitCode::SUCCESS;
    }
    let env = Env::of_process(std::env::vars_os());
    shell::prepare(&env, |place| {
        tracing::error!(place, "a bug in millstream: please report it with this place");
    });
    let filter = shell::log_filter(&env);
    shell::log_json_to_stderr(filter.as_ref().ok().and_then(Option::as_deref).unwrap_or("info"));
    if let Some(unknown) = describe_unknown(&env) {
        tracing::warn!("{unknown}");
    }
    let is_alone = check_arguments(arguments.len());
    let done = is_alone
        .and(filter)
        .and_then(|_| Settings::read(&env))
        .and_then(|settings| shell::block_on(run(uses, settings)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the function has stopped");
            ExitCode::FAILURE
        }
    }
}

fn help(uses: Uses) -> String {
    let name = uses.name();
    format!(
        "Runs one function of a pipeline that uses `{name}`: on AWS Lambda if the environment is Lambda's, otherwise as a process \
         that reads until it is asked to end (SIGTERM).\n\n\
         It takes no arguments. Its environment says what to run, and where the systems are:\n\n  \
         MILLSTREAM_PIPELINE  the pipeline file or its folder (the working folder)\n  \
         MILLSTREAM_FUNCTION  which function of the file (the only one that uses `{name}`)\n\n\
         The others, of which README.md says more:\n\n  {}\n\n\
         `millstream check` checks the file, and `millstream dev` runs all of it with nothing installed.",
        KNOWN.join("\n  ")
    )
}

/// An argument would be ignored. Its text is not told: it may be a secret.
fn check_arguments(count: usize) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    Err(Error::stop(format!(
        "a function's binary takes no arguments, and got {count}: its settings are in the environment, such as \
         MILLSTREAM_PIPELINE (the pipeline file) and MILLSTREAM_FUNCTION (which of its functions)"
    )))
}

async fn run(uses: Uses, settings: Settings) -> Result<()> {
    let Settings { pipeline, function, period, connections, host } = settings;
    let pipeline = crate::load(&pipeline)?;
    let name = function.map_or_else(|| find_only_one(&pipeline, uses), Ok)?;
    check_kind(&pipeline, &name, uses)?;
    require_said(&connections, &pipeline, &name)?;
    let making_of = pipeline.functions.get(&name).and_then(|declared| declared.making());
    if host == Host::Lambda && making_of.is_some_and(|making| matches!(making.origin, Origin::Webhook(_))) {
        require_keys(&connections.env)?;
    }
    if host == Host::Lambda {
        refuse_both(&pipeline, &name)?;
    }
    let clock = Arc::new(SystemClock);
    let systems = Systems::open_for(&pipeline, &name, &connections, clock.clone())?;
    let places: Vec<_> = systems.describe().iter().map(|(what, place)| format!("{what}: {place}")).collect();
    tracing::info!(function = %name, systems = places.join(" · "), create = connections.create, "starting");
    let making = Making { period, ..Making::new(clock) };
    let (stop, retries) = (stop_on(host)?, Retries::default());
    let ready = match host {
        // Lambda restarts a process that fails to start.
        Host::Lambda => systems.ready(&pipeline, &name, &making).await?,
        Host::Stream => {
            let end = async {
                stop.wait().await;
                "it was asked to end"
            };
            let ready = || systems.ready(&pipeline, &name, &making);
            match wait_for(&format!("function `{name}`"), retries, end, ready).await {
                // It has begun nothing that it would have to drain.
                Err(error) if error.is_retry() && stop.is_requested() => {
                    tracing::info!(function = %name, "asked to end before it was ready");
                    return Ok(());
                }
                ready => ready?,
            }
        }
    };
    millstream_host::run(host, ready.work(&systems), stop, retries).await
}

/// A mapping calls for topics, and a schedule for event stores: no event says which of both it is for.
fn refuse_both(pipeline: &Pipeline, name: &str) -> Result<()> {
    let reading = pipeline.functions.get(name).and_then(|declared| declared.reading());
    let (feeds, topics): (Vec<_>, Vec<_>) =
        reading.into_iter().flat_map(|reading| reading.topics()).partition(|topic| is_feed(pipeline, topic));
    match (feeds.first(), topics.first()) {
        (Some(feed), Some(topic)) => Err(Error::stop(format!(
            "`{name}` reads the event store {feed} and the topic {topic}: on Lambda, a schedule calls for one and an event source \
             mapping for the other. Make two functions of it, or run it as a service (a container or a process)"
        ))),
        _ => Ok(()),
    }
}

/// Lambda freezes and ends its processes itself: there a signal must keep its default effect.
fn stop_on(host: Host) -> Result<Stop> {
    match host {
        Host::Stream => stop_on_signals(|| {}),
        Host::Lambda => Ok(Stop::default()),
    }
}

/// Each binary runs functions of one kind: another one may lack the systems that this function needs.
fn check_kind(pipeline: &Pipeline, name: &str, uses: Uses) -> Result<()> {
    match pipeline.functions.get(name) {
        Some(function) if function.uses != uses => {
            let (has, own) = (function.uses.name(), uses.name());
            Err(Error::stop(format!(
                "function `{name}` uses `{has}`: run it by the binary `{has}`; this one is `{own}`"
            )))
        }
        _ => Ok(()),
    }
}

fn find_only_one(pipeline: &Pipeline, uses: Uses) -> Result<String> {
    let mut fitting = pipeline.functions.iter().filter(|(_, function)| function.uses == uses);
    match (fitting.next(), fitting.next()) {
        (Some((name, _)), None) => Ok(name.clone()),
        (None, _) => Err(Error::stop(format!("no function of pipeline {} uses this binary", pipeline.name))),
        _ => Err(Error::stop("several functions of the pipeline use this binary: say which in MILLSTREAM_FUNCTION")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_of_a_binary_names_its_kind_and_its_variables() {
        let said = help(Uses::Store);
        assert!(said.contains("uses `store`") && said.contains("MILLSTREAM_KAFKA_BROKERS"), "{said}");
    }

    #[test]
    fn a_binary_takes_no_arguments() {
        assert!(check_arguments(0).is_ok());
        let said = check_arguments(2).unwrap_err().to_string();
        assert!(said.contains("takes no arguments, and got 2") && said.contains("MILLSTREAM_PIPELINE"), "{said}");
    }

    #[test]
    fn a_binary_runs_functions_of_its_kind() {
        let text = "name: p\ntopics: { t: { partitions: 1, schema: { a: bigint } } }\nfunctions:\n  \
                    keep: { uses: archive, from: t, into: lake.f }\n";
        let pipeline = Pipeline::parse(text, "p.yaml".as_ref()).unwrap();
        assert!(check_kind(&pipeline, "keep", Uses::Archive).is_ok());
        let refused = check_kind(&pipeline, "keep", Uses::Aggregate).unwrap_err().to_string();
        assert_eq!(refused, "function `keep` uses `archive`: run it by the binary `archive`; this one is `aggregate`");
    }

    #[test]
    fn on_lambda_a_function_reads_topics_or_event_stores() {
        let text = "name: p\ntopics: { t: { partitions: 1, schema: { a: bigint } } }\nfunctions:\n  \
                    keep: { uses: store, from: t, into: cassandra.e }\n  \
                    one: { uses: report, from: cassandra.e, into: postgres.o, sql: SELECT a FROM cassandra.e }\n  \
                    both: { uses: report, from: [t, cassandra.e], into: postgres.b, sql: SELECT a FROM t UNION ALL SELECT a FROM cassandra.e }\n";
        let pipeline = Pipeline::parse(text, "p.yaml".as_ref()).unwrap();
        assert!(refuse_both(&pipeline, "one").is_ok() && refuse_both(&pipeline, "keep").is_ok());
        let refused = refuse_both(&pipeline, "both").unwrap_err().to_string();
        assert!(refused.contains("the event store cassandra.e and the topic t"), "{refused}");
    }

    #[test]
    fn a_period_is_seconds_that_an_invocation_can_have() {
        let read = |value: &str| {
            let settings = Settings::read(&Env::of([("MILLSTREAM_PERIOD_S", value)]));
            settings.map(|settings| settings.period).map_err(|error| error.to_string())
        };
        assert_eq!(read("300"), Ok(Duration::from_secs(300)));
        assert_eq!(Settings::read(&Env::default()).unwrap().period, DEFAULT_PERIOD);
        for wrong in ["0", "901", "1m", "-1", "1.5"] {
            assert!(read(wrong).unwrap_err().contains("MILLSTREAM_PERIOD_S"), "{wrong}");
        }
    }
}
