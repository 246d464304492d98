use std::time::Duration;

use millstream_assembly::{AuditProgress, AuditReport, Systems, audit_telling};
use millstream_core::Clock;
use millstream_pipeline::{Function, Pipeline};
use serde_json::{Value, json};

use super::produce::bar;
use crate::{
    Failure,
    context::{Context, named},
    numbers::{count, counted},
    running,
};

/// How often a line reports the progress if there is no terminal.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(5);

/// `millstream audit [FUNCTION]`: checks exactly-once on the user's own data.
pub(super) async fn audit(context: &Context, function: Option<&str>) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let names = match function {
        None => running::names(&pipeline).1,
        Some(function) => {
            let (name, declared) = named(&pipeline, function)?;
            if declared.reading().is_none() {
                let message = format!("`{name}` reads no topic, so there is nothing to audit");
                return Err(Failure::Usage(message));
            }
            vec![name]
        }
    };
    let systems = context.open(&pipeline)?;
    let (mut documents, mut differences, mut failed, mut failures) = (Vec::new(), 0, None, 0_u64);
    for name in &names {
        match one(context, &systems, &pipeline, name).await {
            Ok(report) => {
                differences += report.total_differences;
                match context.json {
                    true => documents.push(json(&report)),
                    false => lines(&report).iter().try_for_each(|line| context.say(line))?,
                }
            }
            // If one of several can't be audited, the others are still reported.
            Err(error) if function.is_none() && !error.is_retry() => {
                let id = Function::id(&pipeline.name, name);
                documents.push(json!({ "function": id, "clean": false, "error": error.to_string() }));
                if !context.json {
                    context.say(format!("{id}: not audited: {error}"))?;
                }
                failures += 1;
                failed = failed.or(Some(error.context(id)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    match (context.json, function) {
        (true, None) => context.say_json(&Value::Array(documents))?,
        (true, Some(_)) => documents.iter().try_for_each(|document| context.say_json(document))?,
        (false, None) => {
            let functions = counted(names.len() as u64 - failures, "function");
            let not = if failures == 0 { String::new() } else { format!(", {} not audited", count(failures)) };
            context.say(format!("{functions} audited: {}{not}", found(differences)))?;
        }
        (false, Some(_)) => {}
    }
    match failed {
        _ if differences > 0 => Err(Failure::Differences),
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Audits one function and reports its progress: with a bar on a terminal, otherwise with a line every few seconds.
async fn one(
    context: &Context,
    systems: &Systems,
    pipeline: &Pipeline,
    name: &str,
) -> millstream_core::Result<AuditReport> {
    let id = Function::id(&pipeline.name, name);
    let shown = bar(Some(0), &format!("{id}: {{bar:30}} {{human_pos}} of {{human_len}} records, {{eta}} left"), false);
    let mut telling = Telling { id, clock: context.clock.as_ref(), told_us: None };
    let mut tell = |progress: AuditProgress| {
        shown.set_length(progress.total);
        shown.set_position(progress.read);
        if shown.is_hidden() {
            telling.tell(progress);
        }
    };
    let report = audit_telling(systems, pipeline, name, &mut tell).await;
    shown.finish_and_clear();
    report
}

/// Prints a progress line every few seconds, and a last one.
struct Telling<'a> {
    id: String,
    clock: &'a dyn Clock,
    told_us: Option<i64>,
}

impl Telling<'_> {
    fn tell(&mut self, progress: AuditProgress) {
        let now_us = self.clock.now_us();
        let told_us = *self.told_us.get_or_insert(now_us);
        if now_us - told_us >= TELL_EVERY.as_micros() as i64 || progress.read == progress.total {
            self.told_us = Some(now_us);
            eprintln!("{}: {} of {}", self.id, count(progress.read), counted(progress.total, "record"));
        }
    }
}

fn found(differences: u64) -> String {
    if differences == 0 { "no difference".to_owned() } else { counted(differences, "difference") }
}

fn lines(report: &AuditReport) -> Vec<String> {
    let mut lines: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
    let more = report.total_differences.saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("… and {} more", count(more)));
    }
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    let (records, rows) = (counted(report.records, "record"), counted(report.rows, "row"));
    let letters = counted(report.dead_letters, "dead letter");
    let found = found(report.total_differences);
    lines.push(format!("{}: {records} of the log, {rows} in the sink, {letters}: {found}", report.function));
    lines
}

fn json(report: &AuditReport) -> Value {
    let fences = report.fences.iter().map(|(partition, fence)| {
        json!({ "partition": partition.to_string(), "from": fence.start_offset, "to": fence.next_offset })
    });
    json!({
        "function": report.function,
        "clean": report.is_clean(),
        "records": report.records,
        "rows": report.rows,
        "dead_letters": report.dead_letters,
        "total_differences": report.total_differences,
        "differences": report.differences.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "notes": report.notes,
        "fences": fences.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use millstream_assembly::Difference;

    use super::*;

    #[test]
    fn differences_come_first_and_all_are_counted() {
        let mut report =
            AuditReport { function: "bank.flow".into(), records: 1_000, rows: 1, ..AuditReport::default() };
        assert_eq!(
            lines(&report),
            ["bank.flow: 1,000 records of the log, 1 row in the sink, 0 dead letters: no difference"]
        );
        report.differences = vec![Difference::Missing("Oslo, 1".into())];
        report.total_differences = 1_500;
        let lines = lines(&report);
        assert_eq!(lines[..2], ["missing in the sink: Oslo, 1", "… and 1,499 more"]);
        assert!(lines[2].ends_with(": 1,500 differences"), "{lines:?}");
        assert_eq!(json(&report)["clean"], false);
    }
}
