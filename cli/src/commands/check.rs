mod deployed;

use std::path::Path;

use millstream_assembly::{Standing, partitions_differ, plan_function, type_name};
use millstream_core::{Merge, Role, Table};
use millstream_ingest::Events;
use millstream_pipeline::{Diagnostic, Diagnostics, Origin, Pipeline, Work};
use serde_json::{Value, json};

use self::deployed::{Start, starts_of};
use crate::{Failure, context::Context, grid::Grid, numbers::counted};

/// `millstream check`: everything that can be checked without a service; if `deployed`, also what a start would do with the
/// tables that are there.
pub(super) async fn check(context: &Context, path: Option<&Path>, deployed: bool) -> Result<(), Failure> {
    let file = context.found(path)?;
    let mut starts = Vec::new();
    let (plans, mistakes, warnings) = match millstream_assembly::load(&file) {
        Ok(pipeline) => {
            context.connections.check(&pipeline)?;
            let (plans, mistakes) = plans(&pipeline).await;
            if deployed && mistakes.is_empty() {
                starts = starts_of(context, &pipeline).await?;
            }
            (plans, mistakes, warnings(context, &pipeline).await)
        }
        Err(mistakes) => (Vec::new(), mistakes.into(), Vec::new()),
    };
    let fits = starts.iter().all(|start| !matches!(start.standing, Standing::Stops { .. }));
    if context.json {
        let mistake = |wrong: &Diagnostic| json!({ "file": wrong.file, "line": wrong.line, "column": wrong.column, "message": wrong.message });
        context.say_json(&json!({
            "ok": mistakes.is_empty(),
            "warnings": warnings,
            "mistakes": mistakes.iter().map(mistake).collect::<Vec<_>>(),
            "functions": plans.iter().map(Plan::json).collect::<Vec<_>>(),
            "deployed": deployed.then(|| starts.iter().map(Start::json).collect::<Vec<_>>()),
        }))?;
    } else {
        // Plans would scroll mistakes off the screen.
        for plan in plans.iter().filter(|_| mistakes.is_empty()) {
            plan.lines().iter().try_for_each(|line| context.say(line))?;
        }
        mistakes.iter().try_for_each(|mistake| context.say(mistake.to_string()))?;
        warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        let found =
            if mistakes.is_empty() { "no mistakes".to_owned() } else { counted(mistakes.len() as u64, "mistake") };
        let advice = context.advice_for(path);
        starts.iter().try_for_each(|start| context.say(advice.complete(&start.line())))?;
        context.say(format!("{}: {found}", file.display()))?;
    }
    if fits && mistakes.is_empty() { Ok(()) } else { Err(Failure::Differences) }
}

/// Warnings from the embedded store, if there is one; reading it needs no service. If it can't be read, the commands
/// that need it report that.
async fn warnings(context: &Context, pipeline: &Pipeline) -> Vec<String> {
    if context.connections.log_is_connected() || !context.connections.database_file().is_file() {
        return Vec::new();
    }
    let Ok(systems) = context.open(pipeline) else { return Vec::new() };
    let differing = partitions_differ(&systems, pipeline).await.unwrap_or_default();
    differing.iter().map(ToString::to_string).collect()
}

/// Fails with the mistakes that only planning finds. For commands that start functions: none runs while another one can't.
pub(super) async fn check_plans(pipeline: &Pipeline) -> Result<(), Failure> {
    let (_, mistakes) = plans(pipeline).await;
    Diagnostics::of(mistakes).map_or(Ok(()), |mistakes| Err(Failure::Pipeline(mistakes)))
}

/// The plan of a function.
struct Plan {
    name: String,
    from: Vec<String>,
    into: String,
    /// `None` for a function that makes records.
    table: Option<Table>,
    /// Where records come from that are not a topic's.
    origin: &'static str,
}

async fn plans(pipeline: &Pipeline) -> (Vec<Plan>, Vec<Diagnostic>) {
    let (mut plans, mut mistakes) = (Vec::new(), Vec::new());
    for (name, function) in &pipeline.functions {
        let table = match &function.work {
            Work::Make(making) => {
                let events = || Events::new(&pipeline.topics[&function.into.name], making, 0);
                let wrong = making.generate().and_then(|_| events().err());
                wrong.map_or(Ok(None), |wrong| {
                    let message = format!("function `{name}`: {wrong}");
                    Err(Diagnostic { file: pipeline.file.clone(), line: 0, column: 0, message })
                })
            }
            Work::Read(_) => plan_function(pipeline, name).await.map(|plan| Some(plan.planned.table)),
        };
        let from = function.reading().map(|reading| reading.topics().cloned().collect()).unwrap_or_default();
        let into = function.into.to_string();
        let origin = match function.making().map(|making| &making.origin) {
            Some(Origin::Poll(_)) => "polled",
            Some(Origin::Webhook(_)) => "taken over HTTP",
            Some(Origin::Generate(_)) | None => "made up",
        };
        match table {
            Ok(table) => plans.push(Plan { name: name.clone(), from, into, table, origin }),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    (plans, mistakes)
}

impl Plan {
    fn lines(&self) -> Vec<String> {
        let from = if self.from.is_empty() { self.origin.to_owned() } else { self.from.join(", ") };
        let mut lines = vec![format!("{}: {from} → {}", self.name, self.into)];
        let Some(table) = &self.table else {
            lines.push(String::new());
            return lines;
        };
        let mut grid = Grid::new(&["column", "type", "null", "rule"]);
        for column in shown(table) {
            let null = if column.nullable { "null" } else { "not null" };
            grid.row([column.name.clone(), type_name(&column.data_type), null.to_owned(), rule(&column.role)]);
        }
        if table.view.is_some() {
            lines.push(format!("  table {}", table.name));
        }
        lines.extend(grid.lines("  ", false));
        if let Some(view) = &table.view {
            lines.push(format!("  view {}", view.name));
            lines.push(format!("    {}", view.select));
        }
        lines.push(String::new());
        lines
    }

    fn json(&self) -> Value {
        let column = |column: &millstream_core::Column| {
            json!({ "name": column.name, "type": type_name(&column.data_type), "nullable": column.nullable,
                    "rule": rule(&column.role) })
        };
        let table = self.table.as_ref().map(|table| {
            let view = table.view.as_ref().map(|view| {
                let columns = view.columns.iter().map(|(name, of)| json!({ "name": name, "type": type_name(of) }));
                json!({ "name": view.name, "columns": columns.collect::<Vec<_>>(), "select": view.select })
            });
            json!({
                "name": table.name,
                "columns": shown(table).map(column).collect::<Vec<_>>(),
                "keys": table.keys().map(|key| &key.name).collect::<Vec<_>>(),
                "view": view,
            })
        });
        json!({ "name": self.name, "from": self.from, "into": self.into, "table": table })
    }
}

/// The columns without what a row of a topic carries.
fn shown(table: &Table) -> impl Iterator<Item = &millstream_core::Column> {
    table.columns.iter().filter(|column| column.role != Role::Carried)
}

/// How a column of rows with the same key is merged.
fn rule(role: &Role) -> String {
    match role {
        Role::Value | Role::Carried => "appended".to_owned(),
        Role::Entity => "appended; the newest of each is kept beside".to_owned(),
        Role::Newest => "the newest of each is kept".to_owned(),
        Role::Key => "key".to_owned(),
        Role::State(merge) => match merge {
            Merge::Sum => "merged by sum".to_owned(),
            Merge::Min => "merged by min".to_owned(),
            Merge::Max => "merged by max".to_owned(),
            Merge::And => "true if all are".to_owned(),
            Merge::Or => "true if any is".to_owned(),
            Merge::First { .. } => "earliest by event time".to_owned(),
            Merge::Last { .. } => "latest by event time".to_owned(),
            Merge::Mean { count } => format!("mean of `{count}` values"),
            Merge::SquaredDifferences { mean, .. } => format!("squared differences from `{mean}`"),
            Merge::Sketch => "merged by sketch".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests;
