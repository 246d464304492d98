use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use millstream_ingest::{Events, Pace};
use millstream_assembly::{Function, Systems};
use millstream_core::{Error, Position, Result};
use millstream_host::{Retries, Stop, stream};
use millstream_pipeline::{Pipeline, Target, Uses};
use tokio::task::{JoinError, JoinSet};

use crate::{context::Context, patience::Patience};

/// A generator that runs.
#[derive(Clone, Debug)]
pub(crate) struct Generating {
    pub name: String,
    pub into: Target,
    sent: Arc<AtomicU64>,
}

impl Generating {
    /// Records that were acknowledged.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// A function that runs.
#[derive(Clone)]
pub(crate) struct Consuming {
    pub name: String,
    pub into: Target,
    pub function: Arc<Function>,
}

/// Functions of a pipeline that run in this process, each as tasks of its own.
pub(crate) struct Running {
    pub generators: Vec<Generating>,
    pub functions: Vec<Consuming>,
    stop_generators: Stop,
    stop_functions: Stop,
    generator_tasks: JoinSet<(String, Result<()>)>,
    function_tasks: JoinSet<(String, Result<()>)>,
}

impl Running {
    pub fn new() -> Self {
        Self {
            generators: Vec::new(),
            functions: Vec::new(),
            stop_generators: Stop::default(),
            stop_functions: Stop::default(),
            generator_tasks: JoinSet::new(),
            function_tasks: JoinSet::new(),
        }
    }

    /// Makes a function ready (its table, its references) and starts it.
    pub async fn start_function(
        &mut self,
        systems: &Systems,
        pipeline: &Pipeline,
        name: &str,
        patience: &Patience,
    ) -> Result<()> {
        let what = format!("function `{name}`");
        let function = patience.wait_for(&what, || systems.function(pipeline, name)).await;
        // What was waited for is named already.
        let named = |error: Error| if error.to_string().starts_with(&what) { error } else { of_function(name, error) };
        let function = function.map_err(named)?;
        let function = Arc::new(function);
        let (source, stop) = (systems.source(), self.stop_functions.clone());
        let (subscription, runner) = (function.subscription.clone(), Arc::clone(&function.runner));
        let task_name = name.to_owned();
        self.function_tasks.spawn(async move {
            (task_name, stream::run(source, subscription, runner, stop, Retries::default()).await)
        });
        let into = pipeline.functions[name].into.clone();
        self.functions.push(Consuming { name: name.to_owned(), into, function });
        Ok(())
    }

    /// Starts a generator, at `rate` records a second in place of its own. `sent` is told each acknowledged position.
    pub fn start_generator(
        &mut self,
        context: &Context,
        systems: &Systems,
        pipeline: &Pipeline,
        name: &str,
        rate: Option<f64>,
        mut sent: impl FnMut(&[Position]) + Send + 'static,
    ) -> Result<()> {
        let declared = &pipeline.functions[name];
        let topic = &pipeline.topics[&declared.into.name];
        // The moment is chance enough: two starts are to make different records.
        let seed = context.clock.now_us().unsigned_abs();
        let events = Events::new(topic, declared, seed).map_err(|error| of_function(name, error))?;
        let of_file = declared.generate.as_ref().map(Pace::of);
        let pace =
            rate.map(Pace::PerSecond).or(of_file).ok_or_else(|| Error::stop(format!("`{name}` makes no records")))?;
        let count = Arc::new(AtomicU64::new(0));
        let (producer, clock) = (systems.producer(topic)?, Arc::clone(&context.clock));
        let (stop, counted) = (self.stop_generators.clone(), Arc::clone(&count));
        let (task_name, topic) = (name.to_owned(), declared.into.name.clone());
        self.generator_tasks.spawn(async move {
            let report = move |positions: &[Position]| {
                counted.fetch_add(positions.len() as u64, Ordering::Relaxed);
                sent(positions);
            };
            let stopping = move || stop.requested();
            let done = millstream_ingest::generate(events, pace, &topic, producer, clock, stopping, report).await;
            (task_name, done.map(drop))
        });
        self.generators.push(Generating { name: name.to_owned(), into: declared.into.clone(), sent: count });
        Ok(())
    }

    /// Waits until one of the tasks ends by itself, which is always too early.
    pub async fn ended(&mut self) -> Error {
        let nothing_left = self.generator_tasks.is_empty() && self.function_tasks.is_empty();
        if nothing_left {
            return std::future::pending().await;
        }
        let ended = tokio::select! {
            Some(ended) = self.generator_tasks.join_next() => ended,
            Some(ended) = self.function_tasks.join_next() => ended,
        };
        outcome(ended).err().unwrap_or_else(|| Error::stop("internal: a function has ended though nobody asked it to"))
    }

    /// Ends the generators, then the functions, and waits until what they have in hand is written. The first error of
    /// those that ended badly.
    pub async fn drain(&mut self) -> Result<()> {
        self.stop_generators.request();
        let mut first = Ok(());
        while let Some(ended) = self.generator_tasks.join_next().await {
            first = first.and(outcome(ended));
        }
        self.stop_functions.request();
        while let Some(ended) = self.function_tasks.join_next().await {
            first = first.and(outcome(ended));
        }
        first
    }
}

/// The functions of a pipeline that make records, and those that read them, by name.
pub(crate) fn names(pipeline: &Pipeline) -> (Vec<&String>, Vec<&String>) {
    let (making, reading): (Vec<_>, Vec<_>) =
        pipeline.functions.iter().partition(|(_, function)| function.uses == Uses::Ingest);
    (making.into_iter().map(|(name, _)| name).collect(), reading.into_iter().map(|(name, _)| name).collect())
}

fn outcome(ended: Result<(String, Result<()>), JoinError>) -> Result<()> {
    match ended {
        Ok((name, outcome)) => outcome.map_err(|error| of_function(&name, error)),
        Err(failed) => Err(Error::stop("internal: a function has panicked; it wrote nothing half").caused_by(failed)),
    }
}

fn of_function(name: &str, error: Error) -> Error {
    error.context(format_args!("function `{name}`"))
}
