use std::sync::Arc;

use millstream_assembly::{Function, Maker, Making, Ready, Systems};
use millstream_core::{Error, Result, Retries};
use millstream_host::Stop;
use millstream_pipeline::{Pipeline, Place};
use tokio::task::{JoinError, JoinSet};

use crate::patience::Patience;

/// A running function that makes records.
#[derive(Clone)]
pub(crate) struct Generating {
    pub name: String,
    pub into: Place,
    maker: Arc<Maker>,
}

impl Generating {
    /// Records that were acknowledged.
    pub fn sent(&self) -> u64 {
        self.maker.sent()
    }
}

/// A running function that reads topics.
#[derive(Clone)]
pub(crate) struct Consuming {
    pub name: String,
    pub into: Place,
    pub function: Arc<Function>,
}

impl Consuming {
    /// The topics that it reads.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.function.subscription.topics.iter().map(|(name, _)| name.as_str())
    }
}

/// Functions of a pipeline that run in this process, each in a task of its own.
#[derive(Default)]
pub(crate) struct Running {
    pub generators: Vec<Generating>,
    pub functions: Vec<Consuming>,
    makers: Group,
    readers: Group,
}

/// Tasks that are asked to end together.
#[derive(Default)]
struct Group {
    stop: Stop,
    tasks: JoinSet<(String, Result<()>)>,
}

impl Running {
    /// Makes a function ready (its topic, its table, its references) and runs it as its container does, whatever its kind.
    /// `making` is for one that makes records.
    pub async fn start(
        &mut self,
        systems: &Systems,
        pipeline: &Pipeline,
        name: &str,
        making: &Making,
        patience: &Patience,
    ) -> Result<()> {
        let what = format!("function `{name}`");
        let ready = patience.wait_for(&what, || systems.ready(pipeline, name, making)).await;
        // Some errors name the function already.
        let named = |error: Error| if error.to_string().starts_with(&what) { error } else { of_function(name, error) };
        let ready = ready.map_err(named)?;
        let work = ready.work(systems);
        let (name, into) = (name.to_owned(), pipeline.functions[name].into.clone());
        let group = match ready {
            Ready::Maker(maker) => {
                self.generators.push(Generating { name: name.clone(), into, maker });
                &mut self.makers
            }
            Ready::Reader(function) => {
                self.functions.push(Consuming { name: name.clone(), into, function });
                &mut self.readers
            }
        };
        let stop = group.stop.clone();
        group.tasks.spawn(async move {
            let ended = millstream_host::serve(work, stop, Retries::default()).await;
            (name, ended)
        });
        Ok(())
    }

    /// Waits until one of the tasks ends by itself, which is always too early.
    pub async fn ended(&mut self) -> Error {
        if self.makers.tasks.is_empty() && self.readers.tasks.is_empty() {
            return std::future::pending().await;
        }
        let ended = tokio::select! {
            Some(ended) = self.makers.tasks.join_next() => ended,
            Some(ended) = self.readers.tasks.join_next() => ended,
        };
        outcome(ended).err().unwrap_or_else(|| Error::stop("internal: a function has ended before it was asked to"))
    }

    /// Ends the functions that make records, then those that read them, and waits until everything in flight is written.
    /// Returns the first error of those that failed.
    pub async fn drain(&mut self) -> Result<()> {
        let makers = self.makers.drain().await;
        let readers = self.readers.drain().await;
        makers.and(readers)
    }
}

impl Group {
    async fn drain(&mut self) -> Result<()> {
        self.stop.request();
        let mut first = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            first = first.and(outcome(ended));
        }
        first
    }
}

/// The functions of a pipeline that make records, and those that read them, in the order in which records pass them.
pub(crate) fn names(pipeline: &Pipeline) -> (Vec<&String>, Vec<&String>) {
    (pipeline.makers().map(|(name, ..)| name).collect(), pipeline.readers().map(|(name, ..)| name).collect())
}

fn outcome(ended: Result<(String, Result<()>), JoinError>) -> Result<()> {
    match ended {
        Ok((name, outcome)) => outcome.map_err(|error| of_function(&name, error)),
        Err(failed) => {
            Err(Error::stop("internal: a function has panicked; no partial write is possible").caused_by(failed))
        }
    }
}

fn of_function(name: &str, error: Error) -> Error {
    error.context(format_args!("function `{name}`"))
}
