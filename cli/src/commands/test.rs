use std::path::Path;

use console::style;
use millstream_assembly::FixtureReport;
use millstream_core::{Error, NewRecord, Result};
use millstream_ingest::Look;
use millstream_pipeline::Topic;
use serde_json::{Value, json};

use crate::{Failure, context::Context, numbers::counted};

/// `millstream test`: the pipeline's own tests, without any service.
pub(super) async fn test(context: &Context, path: Option<&Path>) -> Result<(), Failure> {
    let pipeline = context.load(path)?;
    let reports = millstream_assembly::run_fixtures(&pipeline, &read_given).await?;
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

/// The records of a fixture. A JSON line that doesn't fit the topic becomes a record too, without key and time, since
/// other producers may send such records; the test tells what must happen to it. A CSV line must fit.
pub(super) fn read_given(file: &Path, topic: &Topic, key: Option<&str>) -> Result<Vec<NewRecord>> {
    let records = millstream_ingest::from_file(file, topic, key, Look::KeyAndTime)?;
    if file.extension().is_some_and(|ending| ending == "csv") {
        return records.collect();
    }
    let text =
        std::fs::read(file).map_err(|error| Error::stop(format!("can't read {}", file.display())).caused_by(error))?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let record = |(line, record): (&[u8], Result<NewRecord>)| match record {
        Err(Error::Poison(_)) => {
            let value = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
            Ok(NewRecord { value: Some(value), ..NewRecord::default() })
        }
        record => record,
    };
    lines.zip(records).map(record).collect()
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
