use std::{
    io::{BufRead as _, IsTerminal as _},
    path::{Path, PathBuf},
};

use millstream_assembly::{Systems, plan_function};
use millstream_core::Error;
use millstream_embedded::{Embedded, Removal};
use millstream_pipeline::{Function, Pipeline, System};
use serde_json::json;

use crate::{
    Failure,
    args::ResetArgs,
    context::{Context, named},
};

/// `millstream reset`: removes what is embedded of a pipeline or of one function, so that it begins anew. Kafka,
/// PostgreSQL and a lake elsewhere are never touched.
pub(super) async fn reset(context: &Context, args: &ResetArgs) -> Result<(), Failure> {
    let (path, function) = places(context, args)?;
    let pipeline = context.load(path)?;
    let function = function.map(|name| named(&pipeline, name)).transpose()?.map(|(name, _)| name.as_str());
    if !context.connections.data_dir.exists() {
        let place = context.connections.data_dir.display();
        return Err(Failure::Usage(format!("there is no data folder {place} (--data-dir): nothing is to be removed")));
    }
    whole_folder_is_ours(context, &pipeline).await?;
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
    // Somebody may have begun while the question stood.
    nobody_else_has_it(context)?;
    let systems = context.open(&pipeline)?;
    plan.carry_out(&systems).await?;
    match context.json {
        true => context.say_json(&json!({ "removed": plan.removed(), "kept": plan.kept })),
        false => context.say("removed"),
    }
}

/// One argument alone is the pipeline, or a function where there is no such path. Beside `-p` it is a function.
fn places<'a>(context: &Context, args: &'a ResetArgs) -> Result<(Option<&'a Path>, Option<&'a str>), Failure> {
    let (path, function) = (args.path.as_deref(), args.function.as_deref());
    let Some(one) = path.filter(|_| function.is_none()) else { return Ok((path, function)) };
    if context.names_pipeline() || !one.exists() {
        return Ok((None, one.to_str()));
    }
    let is_function = |name: &str| context.load(None).is_ok_and(|pipeline| named(&pipeline, name).is_ok());
    match one.to_str().filter(|name| is_function(name)) {
        Some(name) => Err(Failure::Usage(format!(
            "`{name}` is there as a file or folder, and a function of {} has that name: say `./{name}` for the path, or \
             `{name} -p PIPELINE` for the function",
            context.file(None).display()
        ))),
        None => Ok((Some(one), None)),
    }
}

/// A table's name does not say whose it is: where another pipeline has written too, its tables might go with ours.
async fn whole_folder_is_ours(context: &Context, pipeline: &Pipeline) -> Result<(), Failure> {
    nobody_else_has_it(context)?;
    let systems = context.open(pipeline)?;
    let Some(embedded) = systems.embedded() else { return Ok(()) };
    let mut others = embedded.pipelines().await?;
    others.retain(|name| *name != pipeline.name);
    if others.is_empty() {
        return Ok(());
    }
    let (folder, others) = (context.connections.data_dir.display(), others.join(", "));
    Err(Error::stop(format!(
        "the data folder {folder} also holds what pipeline {others} wrote, and which tables and topics are whose is not \
         known: nothing was removed. Remove the whole folder to begin anew with all of them; and give each pipeline a \
         folder of its own (MILLSTREAM_DATA_DIR, --data-dir)"
    ))
    .into())
}

fn nobody_else_has_it(context: &Context) -> Result<(), Failure> {
    let file = context.connections.data_dir.join("millstream.db");
    match Embedded::is_open(&file) {
        true => Err(Error::stop(format!(
            "another process has {} open, such as a `dev`: end it first; nothing was removed",
            file.display()
        ))
        .into()),
        false => Ok(()),
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
        for name in pipeline.readers().map(|(name, ..)| name).filter(chosen) {
            plan.function(context, pipeline, name).await?;
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
        match into.system {
            System::Postgres if context.connections.postgres_url.is_some() => {
                let table = &into.name;
                self.kept.push(format!(
                    "{into} in PostgreSQL; to begin anew there: DROP the table {table} (or the view {table} and the table \
                     {table}_state), and DELETE FROM millstream_fences WHERE function = '{id}'"
                ));
            }
            System::Lake if context.connections.lake_url.is_some() => {
                self.kept.push(format!("{into}: to begin anew, remove the folder {} of the lake", into.name));
            }
            System::Lake => self.folders.push(context.connections.data_dir.join("lake").join(&into.name)),
            System::Postgres | System::Topic => {
                let unknown = |wrong| {
                    Error::stop(format!(
                        "{wrong}\nso it is not known which tables are its own, and nothing was removed: correct it, or remove \
                         the whole data folder {}",
                        context.connections.data_dir.display()
                    ))
                };
                let table = plan_function(pipeline, name).await.map_err(unknown)?.planned.table.name;
                self.embedded.tables.push(into.name.clone());
                if table != into.name {
                    self.embedded.tables.push(table);
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
