use std::{
    io::{BufRead as _, IsTerminal as _},
    path::{Path, PathBuf},
};

use millstream_assembly::{Systems, plan_function};
use millstream_core::Error;
use millstream_embedded::Removal;
use millstream_pipeline::{Function, Pipeline, Store, Uses};
use serde_json::json;

use crate::{
    Failure,
    args::ResetArgs,
    context::{Context, named},
};

/// `millstream reset`: removes what is embedded of a pipeline or of one function, so that it begins anew. Kafka,
/// PostgreSQL and a lake elsewhere are never touched.
pub(super) async fn reset(context: &Context, args: &ResetArgs) -> Result<(), Failure> {
    let (path, function) = places(args);
    let pipeline = context.load(path)?;
    let function = function.map(|name| named(&pipeline, name)).transpose()?.map(|(name, _)| name.as_str());
    if !context.connections.data_dir.exists() {
        let place = context.connections.data_dir.display();
        return Err(Failure::Usage(format!("there is no data folder {place} (--data-dir): nothing is to be removed")));
    }
    let plan = Plan::of(context, &pipeline, function).await?;
    if !context.json {
        plan.lines().iter().try_for_each(|line| context.say(line))?;
    }
    if plan.is_empty() {
        return Ok(());
    }
    if !args.yes {
        confirm()?;
    }
    let systems = context.open(&pipeline)?;
    plan.carry_out(&systems).await?;
    match context.json {
        true => context.say_json(&json!({ "removed": plan.removed(), "kept": plan.kept })),
        false => context.say("removed"),
    }
}

/// One argument alone is the pipeline, or a function where there is no such path.
fn places(args: &ResetArgs) -> (Option<&Path>, Option<&str>) {
    match (&args.path, &args.function) {
        (Some(path), None) if !path.exists() => (None, path.to_str()),
        (path, function) => (path.as_deref(), function.as_deref()),
    }
}

/// Asks at the terminal.
fn confirm() -> Result<(), Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::Usage("it can't be undone, and nobody can be asked here: say --yes".to_owned()));
    }
    eprint!("Remove it? It can't be undone. [y/N] ");
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    match (read, answer.trim().to_ascii_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(Failure::Usage("nothing was removed".to_owned())),
    }
}

/// What is removed, and what stays though it belongs to it.
#[derive(Default)]
struct Plan {
    embedded: Removal,
    folders: Vec<PathBuf>,
    kept: Vec<String>,
}

impl Plan {
    async fn of(context: &Context, pipeline: &Pipeline, function: Option<&str>) -> Result<Self, Failure> {
        let mut plan = Self::default();
        let chosen = |name: &&String| function.is_none_or(|only| only == name.as_str());
        for name in pipeline.functions.keys().filter(chosen) {
            if pipeline.functions[name].uses != Uses::Ingest {
                plan.function(context, pipeline, name).await?;
            }
        }
        if function.is_some() {
            return Ok(plan);
        }
        let topics: Vec<String> = pipeline.topics.keys().cloned().collect();
        if context.connections.kafka_brokers.is_some() {
            plan.kept.push(format!("the topics {} and the group offsets in Kafka", topics.join(", ")));
        } else if plan.kept.is_empty() {
            plan.embedded.topics = topics;
        } else {
            // A fence that is kept speaks of these records.
            plan.kept.push(format!("the topics {}: what stays was made of them", topics.join(", ")));
        }
        Ok(plan)
    }

    async fn function(&mut self, context: &Context, pipeline: &Pipeline, name: &str) -> Result<(), Failure> {
        let (id, into) = (Function::id(&pipeline.name, name), &pipeline.functions[name].into);
        match into.store {
            Store::Postgres if context.connections.postgres_url.is_some() => {
                let table = &into.name;
                self.kept.push(format!(
                    "{into} in PostgreSQL; to begin anew there: DROP the table {table} (or the view {table} and the table \
                     {table}_state), and DELETE FROM millstream_fences WHERE function = '{id}'"
                ));
            }
            Store::Lake if context.connections.lake_url.is_some() => {
                self.kept.push(format!("{into}: to begin anew, remove the folder {} of the lake", into.name));
            }
            Store::Lake => self.folders.push(context.connections.data_dir.join("lake").join(&into.name)),
            Store::Postgres | Store::Topic => {
                // A file that is wrong by now must not keep anybody from beginning anew.
                self.embedded.tables.push(into.name.clone());
                match plan_function(pipeline, name).await {
                    Ok(plan) if plan.planned.table.name != into.name => {
                        self.embedded.tables.push(plan.planned.table.name);
                    }
                    Ok(_) => {}
                    Err(_) => self.embedded.tables.push(format!("{}_state", into.name)),
                }
            }
        }
        // The log holds dead letters and offsets, the store of the table the fences.
        if context.connections.kafka_brokers.is_none() || context.connections.postgres_url.is_none() {
            self.embedded.functions.push(id);
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.embedded == Removal::default() && self.folders.is_empty()
    }

    fn removed(&self) -> Vec<String> {
        let Removal { functions, tables, topics } = &self.embedded;
        let named = |what: &str, names: &[String]| (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")));
        let folders: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        let removed = [
            named("tables", tables),
            named("folders", &folders),
            named("fences, dead letters and group offsets of", functions),
            named("topics with their records", topics),
        ];
        removed.into_iter().flatten().collect()
    }

    fn lines(&self) -> Vec<String> {
        let removed = self.removed().into_iter().map(|what| format!("to be removed: {what}"));
        removed.chain(self.kept.iter().map(|what| format!("stays: {what}"))).collect()
    }

    /// Folders first: what is left when it breaks off in the middle still says that it is to be removed.
    async fn carry_out(&self, systems: &Systems) -> Result<(), Error> {
        for folder in self.folders.iter().filter(|folder| folder.exists()) {
            std::fs::remove_dir_all(folder).map_err(|error| {
                Error::stop(format!("the folder {} can't be removed", folder.display())).caused_by(error)
            })?;
        }
        match systems.embedded() {
            Some(embedded) => embedded.remove(self.embedded.clone()).await,
            None => Ok(()),
        }
    }
}
