use millstream_assembly::{AuditOptions, AuditReport, AuditSample, Systems, audit_part};
use millstream_pipeline::{Function, Pipeline};
use serde_json::{Value, json};

use super::progress::Progress;
use crate::{
    AuditArgs, Failure,
    context::{Context, named},
    numbers::{count, counted},
    running,
    since::since_ms,
};

/// `millstream audit [FUNCTION]`: checks exactly-once on the user's own data.
pub(super) async fn audit(context: &Context, args: &AuditArgs) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let (function, options) = (args.function.as_deref(), options(context, args)?);
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
        match one(context, &systems, &pipeline, name, options).await {
            Ok(mut report) => {
                report.notes.iter_mut().for_each(|note| *note = context.advice.complete(note));
                differences += report.total_differences;
                if context.json {
                    documents.push(json(&report));
                } else {
                    lines(&report).iter().try_for_each(|line| context.say(line))?;
                }
            }
            // If one of several can't be audited, the others are still reported.
            Err(error) if function.is_none() && !error.is_retry() => {
                let id = Function::id(&pipeline.name, name);
                documents.push(
                    json!({ "function": id, "clean": false, "error": context.advice.complete(&error.to_string()) }),
                );
                if !context.json {
                    context.say(format!("{id}: not audited: {}", context.advice.complete(&error.to_string())))?;
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

fn options(context: &Context, args: &AuditArgs) -> Result<AuditOptions, Failure> {
    let now_us = context.clock.now_us();
    let since_ms = args.since.as_deref().map(|since| since_ms(since, now_us / 1_000)).transpose()?;
    // Each audit takes other keys, unless it repeats one. A short number is easily typed again.
    let seed = args.seed.unwrap_or(now_us.unsigned_abs() % 1_000_000);
    let sample = args.sample.map(|share| AuditSample { share, seed });
    Ok(AuditOptions { since_ms, sample, limit: args.limit })
}

/// Audits one function and reports its progress.
async fn one(
    context: &Context,
    systems: &Systems,
    pipeline: &Pipeline,
    name: &str,
    options: AuditOptions,
) -> millstream_core::Result<AuditReport> {
    let mut progress = Progress::new(context, Function::id(&pipeline.name, name));
    audit_part(systems, pipeline, name, options, &mut |at| progress.tell(at.read, at.total)).await
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
    let rows = match report.compared == report.rows {
        true => counted(report.rows, "row"),
        false => format!("{} of {}", count(report.compared), counted(report.rows, "row")),
    };
    let records = counted(report.records, "record");
    let letters = counted(report.dead_letters, "dead letter");
    let found = found(report.total_differences);
    lines.push(format!("{}: {records} of the log, {rows} in the sink, {letters}: {found}", report.function));
    lines
}

fn json(report: &AuditReport) -> Value {
    let fences = report.fences.iter().map(|(partition, fence)| {
        let read = report.ranges.iter().find(|(read, _)| read == partition).map(|(_, range)| range.start);
        let from = read.unwrap_or(fence.start_offset);
        json!({ "partition": partition.to_string(), "from": from, "to": fence.next_offset })
    });
    json!({
        "function": report.function,
        "clean": report.is_clean(),
        "records": report.records,
        "rows": report.rows,
        "compared_rows": report.compared,
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
        let mut report = AuditReport {
            function: "bank.flow".into(),
            records: 1_000,
            rows: 1,
            compared: 1,
            ..AuditReport::default()
        };
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
