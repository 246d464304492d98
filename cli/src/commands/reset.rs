use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_assembly::{EmbeddedFile, Home, Removal, Systems, beside, plan_function, topics_beside};
use millstream_core::Error;
use millstream_pipeline::{Function, Pipeline};
use serde_json::json;

use crate::{
    Failure,
    args::ResetArgs,
    context::{Context, named},
};

/// `millstream reset`: removes the embedded data of a pipeline or of one function, so that it starts from the
/// beginning. Kafka, PostgreSQL and a lake elsewhere are never touched.
pub(super) async fn reset(context: &Context, args: &ResetArgs) -> Result<(), Failure> {
    let (path, function) = places(context, args)?;
    let pipeline = context.load(path)?;
    let function = function.map(|name| named(&pipeline, name)).transpose()?.map(|(name, _)| name.as_str());
    if !context.connections.data_dir.exists() {
        let place = context.connections.data_dir.display();
        return Err(Failure::Usage(format!("there is no data folder {place} (--data-dir): nothing to remove")));
    }
    let file = EmbeddedFile::of(&context.connections, Arc::clone(&context.clock));
    nobody_else_has_it(&file)?;
    // Nothing of it stays open while a person is asked.
    let plan = Plan::of(context, &pipeline, function).await?;
    if plan.needs_file || !plan.folders.is_empty() && file.path.exists() {
        whole_folder_is_ours(context, &file, &pipeline).await?;
    }
    if !context.json {
        plan.lines().iter().try_for_each(|line| context.say(line))?;
    }
    if plan.is_empty() {
        return Ok(());
    }
    if !args.yes {
        context.confirm("Remove it? This can't be undone.", "nothing was removed")?;
    }
    // Somebody may have begun while the question stood.
    nobody_else_has_it(&file)?;
    plan.carry_out(&file).await?;
    if context.json {
        context.say_json(&json!({ "removed": plan.removed(), "kept": plan.kept }))
    } else {
        context.say("removed")
    }
}

/// A single argument is the pipeline, or a function if there is no such path. With `-p` it is a function.
fn places<'a>(context: &Context, args: &'a ResetArgs) -> Result<(Option<&'a Path>, Option<&'a str>), Failure> {
    let (path, function) = (args.path.as_deref(), args.function.as_deref());
    let Some(one) = path.filter(|_| function.is_none()) else { return Ok((path, function)) };
    if context.names_pipeline() || !one.exists() {
        return Ok((None, one.to_str()));
    }
    let is_function = |name: &str| context.load(None).is_ok_and(|pipeline| named(&pipeline, name).is_ok());
    match one.to_str().filter(|name| is_function(name)) {
        Some(name) => Err(Failure::Usage(format!(
            "`{name}` is a file or folder, and also a function of {}: write `./{name}` for the path, or `{name} -p \
             PIPELINE` for a function",
            context.file(None).display()
        ))),
        None => Ok((Some(one), None)),
    }
}

/// A table's name does not say whose it is: where another pipeline has written too, its tables might go with ours.
async fn whole_folder_is_ours(context: &Context, file: &EmbeddedFile, pipeline: &Pipeline) -> Result<(), Failure> {
    let mut others = file.pipelines().await?;
    others.retain(|name| *name != pipeline.name);
    if others.is_empty() {
        return Ok(());
    }
    let (folder, others) = (context.connections.data_dir.display(), others.join(", "));
    Err(Error::stop(format!(
        "the data folder {folder} also holds data of pipeline {others}, and `reset` can't tell which tables and topics \
         belong to which pipeline: nothing was removed. Remove the whole folder to reset all of them, and give each \
         pipeline its own folder (MILLSTREAM_DATA_DIR, --data-dir)"
    ))
    .into())
}

fn nobody_else_has_it(file: &EmbeddedFile) -> Result<(), Failure> {
    if file.is_open() {
        Err(Error::stop(format!(
            "another process has {} open, such as a `dev`: end it first; nothing was removed",
            file.path.display()
        ))
        .into())
    } else {
        Ok(())
    }
}

/// What is removed, and what stays although it belongs to the pipeline or function.
#[derive(Default)]
struct Plan {
    embedded: Removal,
    /// Is anything of the pipeline in the embedded store's file?
    needs_file: bool,
    folders: Vec<PathBuf>,
    kept: Vec<String>,
}

impl Plan {
    async fn of(context: &Context, pipeline: &Pipeline, function: Option<&str>) -> Result<Self, Failure> {
        let systems = context.open(pipeline)?;
        let log_is_embedded = !context.connections.log_is_connected();
        let mut plan = Self { needs_file: log_is_embedded, ..Self::default() };
        let chosen = |name: &&String| function.is_none_or(|only| only == name.as_str());
        for name in pipeline.readers().map(|(name, ..)| name).filter(chosen) {
            plan.function(context, &systems, pipeline, name).await?;
        }
        if let Some(only) = function {
            let into = pipeline.functions.get(only).map(|declared| &declared.into).filter(|into| into.system.is_log());
            plan.kept.extend(into.map(|into| format!("{into} with the fences of {only}: reset the whole pipeline")));
            return Ok(plan);
        }
        let topics: Vec<String> =
            pipeline.log_topics().map(|(name, _)| name.clone()).chain(topics_beside(pipeline)).collect();
        if !log_is_embedded {
            let log = systems.log_place();
            plan.kept.push(format!("the topics {} and the group offsets in {log}", topics.join(", ")));
        } else if plan.kept.is_empty() {
            plan.embedded.topics = topics;
        } else {
            // The fences that stay refer to these records.
            plan.kept.push(format!("the topics {}: the tables that stay were made from them", topics.join(", ")));
        }
        Ok(plan)
    }

    async fn function(
        &mut self,
        context: &Context,
        systems: &Systems,
        pipeline: &Pipeline,
        name: &str,
    ) -> Result<(), Failure> {
        let (id, into) = (Function::id(&pipeline.name, name), &pipeline.functions[name].into);
        if into.system.is_log() && !context.connections.log_is_connected() {
            self.embedded.functions.push(id);
            return Ok(());
        }
        let Some((home, store)) = systems.home(into.system).zip(systems.store(into.system)) else { return Ok(()) };
        match home {
            Home::Connected => {
                let (place, how) = (store.place(), store.how_to_reset(&id, &into.name));
                self.kept.push(format!("{into} in {place}; to begin anew there: {how}"));
            }
            Home::Folder(folder) => self.folders.push(folder.join(&into.name)),
            Home::Database => {
                let unknown = |wrong| {
                    Error::stop(format!(
                        "{wrong}\nso it is unknown which tables belong to the pipeline, and nothing was removed: correct it, or remove \
                        the whole data folder {}",
                        context.connections.data_dir.display()
                    ))
                };
                let table = plan_function(pipeline, name).await.map_err(unknown)?.planned.table.name;
                self.embedded.tables.push(into.name.clone());
                if table != into.name {
                    self.embedded.tables.push(table);
                }
                // What a rebuild that was ended has left.
                let (function, table) = beside(&id, &into.name);
                self.embedded.functions.push(function.clone());
                self.embedded.rebuilds.push((function, table));
            }
        }
        // The log holds dead letters and offsets, the store of the table the fences.
        self.needs_file |= *home == Home::Database;
        if !context.connections.log_is_connected() || *home == Home::Database {
            self.embedded.functions.push(id);
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.embedded == Removal::default() && self.folders.is_empty()
    }

    fn removed(&self) -> Vec<String> {
        let Removal { functions, tables, rebuilds, topics } = &self.embedded;
        let rebuilds: Vec<String> = rebuilds.iter().map(|(_, table)| table.clone()).collect();
        let named = |what: &str, names: &[String]| (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")));
        let folders: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        let removed = [
            named("tables", tables),
            named("what rebuilds have left in tables", &rebuilds),
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
    async fn carry_out(&self, file: &EmbeddedFile) -> Result<(), Error> {
        for folder in self.folders.iter().filter(|folder| folder.exists()) {
            std::fs::remove_dir_all(folder).map_err(|error| {
                Error::stop(format!("the folder {} can't be removed", folder.display())).caused_by(error)
            })?;
        }
        if self.needs_file { file.remove(self.embedded.clone()).await } else { Ok(()) }
    }
}
