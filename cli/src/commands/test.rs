use std::path::Path;

use console::style;
use millstream_assembly::FixtureReport;
use serde_json::{Value, json};

use crate::{Failure, context::Context, numbers::counted};

/// `millstream test`: the pipeline's own tests, without any service.
pub(super) async fn test(context: &Context, path: Option<&Path>) -> Result<(), Failure> {
    let pipeline = context.load(path)?;
    let reports = millstream_assembly::run_fixtures(&pipeline).await?;
    if context.json {
        context.say_json(&Value::Array(reports.iter().map(json).collect()))?;
    } else {
        reports.iter().flat_map(lines).try_for_each(|line| context.say(line))?;
    }
    let failed = reports.iter().filter(|report| !report.differences.is_empty()).count();
    if !context.json {
        let passed = reports.len() - failed;
        context.say(format!("{}, {passed} passed, {failed} failed", counted(reports.len() as u64, "test")))?;
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Differences) }
}

fn lines(report: &FixtureReport) -> Vec<String> {
    let mark = if report.differences.is_empty() { style("ok").green() } else { style("FAILED").red().bold() };
    let mut lines = vec![format!("{mark}  {}", report.name)];
    lines.extend(report.differences.iter().map(|difference| format!("    {difference}")));
    lines
}

fn json(report: &FixtureReport) -> Value {
    json!({ "name": report.name, "passed": report.differences.is_empty(), "differences": report.differences })
}
