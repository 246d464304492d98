use millstream_assembly::{Change, Changes, Preview, PreviewOptions, preview as ask};
use serde_json::{Value, json};

use super::{
    progress::Progress,
    query::{lines as rows_of, objects::objects},
};
use crate::{
    Failure, PreviewArgs,
    context::{Context, named},
    numbers::{count, counted},
    since::since_ms,
};

/// `millstream preview FUNCTION`: what the statement in the file gives over the log, and what would change in its table.
pub(super) async fn preview(context: &Context, args: &PreviewArgs) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let (name, declared) = named(&pipeline, &args.function)?;
    if declared.reading().is_none() {
        return Err(Failure::Usage(format!("`{name}` reads no topic, so there is nothing to preview")));
    }
    let now_ms = context.clock.now_us() / 1_000;
    let since_ms = args.since.as_deref().map(|since| since_ms(since, now_ms)).transpose()?;
    let systems = context.open(&pipeline)?;
    let mut progress = Progress::new(context, format!("{}.{name}", pipeline.name));
    let options = PreviewOptions { since_ms, limit: args.limit };
    let mut found = ask(&systems, &pipeline, name, options, &mut |at| progress.tell(at.read, at.total)).await?;
    drop(progress);
    found.notes.iter_mut().for_each(|note| *note = context.advice.complete(note));
    if context.json {
        return context.say_json(&document(&found)?);
    }
    lines(&found, &declared.into.to_string(), args.limit)?.iter().try_for_each(|line| context.say(line))
}

/// The summary comes last, where it is looked for.
fn lines(found: &Preview, into: &str, limit: usize) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    if let Some(changes) = &found.changes {
        lines.extend(changes.examples.iter().map(shown));
    } else if let Some(first) = found.rows.first() {
        lines.extend(rows_of(&first.schema(), &found.rows)?);
    }
    for (position, reason) in found.first_refused.iter().take(limit) {
        lines.push(format!("a dead letter: {position}: {reason}"));
    }
    lines.extend(found.notes.iter().map(|note| format!("note: {note}")));
    if let Some(changes) = &found.changes {
        lines.extend(changes.columns.iter().cloned());
        lines.push(summary(changes, into));
    }
    let letters = counted(found.refused, "dead letter");
    lines.push(format!(
        "{}: {} give {} and {letters}; nothing was written",
        found.function,
        counted(found.records, "record"),
        counted(found.total_rows, "row")
    ));
    Ok(lines)
}

fn shown(change: &Change) -> String {
    match change {
        Change::New(row) => format!("+ {row}"),
        Change::Gone(row) => format!("- {row}"),
        Change::Different { key, is, becomes } => format!("~ {key}: {is} becomes {becomes}"),
    }
}

fn summary(changes: &Changes, into: &str) -> String {
    let Changes { same, new, gone, different, .. } = changes;
    if new + gone + different == 0 {
        return format!("{into}: {} and no change", counted(*same, "row"));
    }
    format!(
        "{into}: {} stay, {} new (+), {} gone (-), {} different (~)",
        counted(*same, "row"),
        count(*new),
        count(*gone),
        count(*different)
    )
}

fn document(found: &Preview) -> Result<Value, Failure> {
    let rows = found.rows.iter().map(objects).collect::<Result<Vec<_>, _>>()?.concat();
    let refused = found.first_refused.iter();
    let refused = refused.map(|(position, reason)| json!({ "position": position.to_string(), "reason": reason }));
    let changes = found.changes.as_ref().map(|changes| {
        json!({
            "same": changes.same, "new": changes.new, "gone": changes.gone, "different": changes.different,
            "columns": changes.columns,
            "examples": changes.examples.iter().map(shown).collect::<Vec<_>>(),
        })
    });
    Ok(json!({
        "function": found.function, "records": found.records, "rows": found.total_rows, "dead_letters": found.refused,
        "first_dead_letters": refused.collect::<Vec<_>>(), "some_rows": rows, "changes": changes, "notes": found.notes,
    }))
}
