use millstream_assembly::AuditReport;
use millstream_pipeline::Uses;
use serde_json::json;

use crate::{
    Failure,
    context::{Context, named},
    numbers::{count, counted},
};

/// `millstream audit FUNCTION`: the promise, checked on one's own data.
pub(super) async fn audit(context: &Context, function: &str) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let (name, declared) = named(&pipeline, function)?;
    if declared.uses == Uses::Ingest {
        return Err(Failure::Usage(format!("`{name}` reads no topic: there is nothing to compare its records with")));
    }
    let systems = context.open(&pipeline)?;
    let report = millstream_assembly::audit(&systems, &pipeline, name).await?;
    match context.json {
        true => context.say_json(&json(&report))?,
        false => lines(&report).iter().try_for_each(|line| context.say(line))?,
    }
    if report.is_clean() { Ok(()) } else { Err(Failure::Differences) }
}

fn lines(report: &AuditReport) -> Vec<String> {
    let mut lines: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
    let more = report.total_differences.saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("… and {} more", count(more)));
    }
    let (records, rows) = (counted(report.records, "record"), counted(report.rows, "row"));
    let letters = counted(report.dead_letters, "dead letter");
    let found = match report.total_differences {
        0 => "no difference".to_owned(),
        total => counted(total, "difference"),
    };
    lines.push(format!("{}: {records} of the log, {rows} in the sink, {letters}: {found}", report.function));
    lines
}

fn json(report: &AuditReport) -> serde_json::Value {
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
