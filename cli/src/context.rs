use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_assembly::{Connections, Systems, describe_unknown};
use millstream_core::{Clock, Env, Result, SystemClock};
use millstream_host::shell::log_filter;
use millstream_pipeline::{Function, Pipeline};
use serde_json::Value;

use crate::{Command, Failure, Global, advice::Advice, logs::Logs, patience::Patience};

/// What every command works with.
pub(crate) struct Context {
    pipeline: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    pub json: bool,
    pub verbose: bool,
    pub connections: Connections,
    pub clock: Arc<dyn Clock>,
    /// The user and the machine that run the command: `user-host`, as far as the environment says.
    pub who: String,
    pub logs: Logs,
    pub advice: Advice,
}

/// Used when no pipeline is given and the current folder has none: the one that ships.
const DEFAULT_PIPELINE: &str = "pipelines/bank";

impl Context {
    pub fn new(global: Global, command: &Command, env: &Env) -> Result<Self, Failure> {
        let filter = log_filter(env)?;
        let filter = filter.as_deref().unwrap_or(match (global.verbose, command) {
            (0, Command::Run { .. }) | (1, _) => "info",
            (0, _) => "warn",
            _ => "debug",
        });
        let logs = Logs::start(filter);
        if let Some(unknown) = describe_unknown(env) {
            tracing::warn!("{unknown}");
        }
        let mut connections = Connections::read(env)?;
        connections.data_dir = global.data_dir.clone().unwrap_or(connections.data_dir);
        Ok(Self {
            advice: Advice::of(global.pipeline.as_deref(), global.data_dir.as_deref()),
            pipeline: global.pipeline,
            data_dir: global.data_dir,
            json: global.json,
            verbose: global.verbose > 0,
            connections,
            clock: Arc::new(SystemClock),
            who: who(env),
            logs,
        })
    }

    /// The pipeline file; `positional` is what the command itself was given.
    pub fn file(&self, positional: Option<&Path>) -> PathBuf {
        let here = || Path::new("pipeline.yaml").is_file().then_some(PathBuf::from("."));
        let path = self.named(positional).map(Path::to_owned).or_else(here);
        let path = path.unwrap_or_else(|| PathBuf::from(DEFAULT_PIPELINE));
        if path.is_dir() { path.join("pipeline.yaml") } else { path }
    }

    /// Does the command line name a pipeline by `-p`?
    pub fn names_pipeline(&self) -> bool {
        self.pipeline.is_some()
    }

    /// The advice for a command that names its pipeline by `positional` too.
    pub fn advice_for(&self, positional: Option<&Path>) -> Advice {
        Advice::of(self.named(positional), self.data_dir.as_deref())
    }

    /// The pipeline that the command line names.
    fn named<'a>(&'a self, positional: Option<&'a Path>) -> Option<&'a Path> {
        positional.or(self.pipeline.as_deref())
    }

    /// The pipeline file, where there is one.
    ///
    /// # Errors
    /// `Usage` when the command line names no pipeline, and there is none in the usual places.
    pub fn found(&self, positional: Option<&Path>) -> Result<PathBuf, Failure> {
        let file = self.file(positional);
        if self.named(positional).is_none() && !file.is_file() {
            return Err(Failure::Usage(format!(
                "there is no pipeline here: neither ./pipeline.yaml nor {DEFAULT_PIPELINE}/pipeline.yaml; name one (-p PATH), \
                 or begin one with `millstream new NAME`"
            )));
        }
        Ok(file)
    }

    pub fn load(&self, positional: Option<&Path>) -> Result<Pipeline, Failure> {
        millstream_assembly::load(&self.found(positional)?).map_err(Failure::Pipeline)
    }

    /// The global arguments that name the pipeline and the data folder, as they were given.
    pub fn global_args(&self) -> impl Iterator<Item = String> {
        let given = [("-p", &self.pipeline), ("--data-dir", &self.data_dir)];
        given
            .into_iter()
            .filter_map(|(name, path)| Some(format!("{name} {}", quoted(&path.as_ref()?.to_string_lossy()))))
    }

    /// The systems of the pipeline, with one of its topics created if it is missing and may be created.
    pub async fn open_for(&self, pipeline: &Pipeline, topic: &str, patience: &Patience) -> Result<Systems> {
        let systems = self.open(pipeline)?;
        if self.connections.create {
            let (topics, partitions) = (systems.topics(), pipeline.topics[topic].partitions);
            patience.wait_for(topic, || topics.create_topic(topic, partitions, &[])).await?;
        }
        Ok(systems)
    }

    pub fn open(&self, pipeline: &Pipeline) -> Result<Systems> {
        Systems::open(pipeline, &self.connections, Arc::clone(&self.clock))
    }

    /// Asks for confirmation at the terminal; `kept` says what a no means.
    ///
    /// # Errors
    /// `Usage` for a no, and where there is no terminal.
    pub fn confirm(&self, question: &str, kept: &str) -> Result<(), Failure> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Err(Failure::Usage(
                "this can't be undone, and there is no terminal to confirm it: pass --yes".to_owned(),
            ));
        }
        eprint!("{question} [y/N] ");
        let mut answer = String::new();
        let read = stdin.lock().read_line(&mut answer);
        match (read, answer.trim().to_ascii_lowercase().as_str()) {
            (Ok(_), "y" | "yes") => Ok(()),
            _ => Err(Failure::Usage(kept.to_owned())),
        }
    }

    /// Tells a person how it goes, beside the result.
    pub fn tell(&self, line: &str) {
        eprintln!("{line}");
    }

    /// Prints a line of the result.
    pub fn say(&self, line: impl AsRef<str>) -> Result<(), Failure> {
        Ok(writeln!(std::io::stdout().lock(), "{}", line.as_ref())?)
    }

    /// Prints the result as one JSON document.
    pub fn say_json(&self, document: &Value) -> Result<(), Failure> {
        self.say(format!("{document:#}"))
    }
}

/// A word for a shell: in quotes if it has characters that mean something there.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./:@%+,=".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// As part of a consumer group's name: letters, digits, `-` and `_`.
fn who(env: &Env) -> String {
    let first = |names: &[&str]| names.iter().find_map(|name| env.get(name).filter(|value| !value.is_empty()));
    let kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let user = first(&["USER", "LOGNAME", "USERNAME"]).unwrap_or_else(|| "somebody".to_owned());
    let host = first(&["HOSTNAME", "COMPUTERNAME"]).or_else(kernel).unwrap_or_else(|| "somewhere".to_owned());
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || letter == '_' { letter } else { '-' };
    format!("{user}-{}", host.trim()).chars().map(plain).collect()
}

/// A function of the pipeline, by its name or by its id (`bank.flow`).
pub(crate) fn named<'a>(pipeline: &'a Pipeline, name: &str) -> Result<(&'a String, &'a Function), Failure> {
    let of_id = name.strip_prefix(pipeline.name.as_str()).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name);
    let found = pipeline.functions.get_key_value(name).or_else(|| pipeline.functions.get_key_value(of_id));
    found.ok_or_else(|| {
        let names: Vec<_> = pipeline.functions.keys().cloned().collect();
        Failure::Usage(format!("pipeline {} has no function `{name}`; it has {}", pipeline.name, names.join(", ")))
    })
}
