//! The audit of exactly-once: compares what the sink holds with the result of one pass over the log.

pub(crate) mod balance;
mod by_key;
mod cells;
mod encoder;
mod floats;
mod pass;
mod report;
mod scope;
mod shown_rows;
mod states;

use std::sync::Arc;

use arrow::array::RecordBatch;
use millstream_core::{Combine, Error, Result, Snapshot, Table};
use millstream_pipeline::{Function as Declared, Pipeline};

use self::{
    balance::Balance,
    by_key::Doubtful,
    pass::{Expected, LogReader},
    scope::{check_topics, inseparable_error, known_fences, note_references, note_unfenced},
};
use crate::{NotRunnable, Systems, letters::Letters, plan_function, reference};

pub use report::{AuditProgress, AuditReport, Difference};

/// Reads the log once, from where the function began up to its fences, computes what the sink should hold, and compares
/// row by row. Then it compares what readers see with the stored states. The function may run meanwhile: fences and
/// rows are read at one instant.
///
/// Floats computed from several records are equal if they differ by at most 1e-9 of the larger one. If they differ by
/// more, the log is read again in another order: the change shows how far such a value depends on the order, and four
/// times the change is allowed. Means and squared differences (of stddev and var) may also differ by the rounding of
/// values of their size. References are joined as they are now.
///
/// Memory: the sink's rows and the expected ones, with their keys; the states that are not merged yet, up to 200,000
/// rows or 64 MiB, or half of the merged ones; and an eighth for the merging itself. For an append-only table: the
/// sink's rows twice.
///
/// # Errors
/// `Stop` if the log no longer has all records that went into the sink, or is a different log; the errors of the
/// systems.
pub async fn audit(systems: &Systems, pipeline: &Pipeline, name: &str) -> Result<AuditReport> {
    audit_telling(systems, pipeline, name, &mut |_| ()).await
}

/// Like [`audit`], and reports its progress.
///
/// # Errors
/// The errors of [`audit`].
pub async fn audit_telling(
    systems: &Systems,
    pipeline: &Pipeline,
    name: &str,
    told: &mut (dyn FnMut(AuditProgress) + Send),
) -> Result<AuditReport> {
    let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
    reference::load_all(&systems.references(pipeline, &plan.references)?).await?;
    let declared = &pipeline.functions[name];
    let reading = declared.reading().ok_or_else(|| NotRunnable { function: name.to_owned() })?;
    let id = Declared::id(&pipeline.name, name);
    let table = plan.planned.table.clone();
    let sink = systems.sink(&id, &declared.into, table.clone())?;
    sink.prepare(false).await?;
    let mut stored = sink.snapshot().await?;
    // Letters are read after the fences: a letter is durable before its fence moves.
    let letters = Letters::of(systems.dead_letters(pipeline).as_ref(), &id).await?;

    let source = systems.source();
    let mut report = AuditReport { function: id.clone(), fences: stored.fences.clone(), ..AuditReport::default() };
    report.rows = stored.rows.iter().map(|rows| rows.num_rows() as u64).sum();
    report.notes.extend(note_references(pipeline, declared));
    report.notes.extend(note_unfenced(pipeline, reading, source.as_ref(), &stored.fences).await?);
    let (fences, gone) = known_fences(pipeline, reading, &stored.fences);
    check_topics(source.as_ref(), &id, &fences).await?;
    let log = LogReader { plan: &plan, reading, letters: &letters, log: source.as_ref(), fences: &fences };
    match &table.combine {
        None => {
            let rows = std::mem::take(&mut stored.rows);
            appended(&log, &table, rows, &gone, &mut report, told).await
        }
        Some(combine) => {
            if !gone.is_empty() {
                return Err(inseparable_error(&table, &gone));
            }
            merged(&log, &table, combine, &stored, &mut report, told).await?;
            if table.view.is_some() {
                let public = systems.sink(&id, &declared.into, shown_rows::public(&table))?;
                shown_rows::compare(&table, combine.as_ref(), sink.as_ref(), public.as_ref(), stored, &mut report)
                    .await?;
            }
            Ok(())
        }
    }?;
    Ok(report)
}

async fn appended(
    log: &LogReader<'_>,
    table: &Table,
    stored: Vec<RecordBatch>,
    gone: &[String],
    report: &mut AuditReport,
    told: &mut (dyn FnMut(AuditProgress) + Send),
) -> Result<()> {
    let mut balance = Balance::new(table)?;
    stored.into_iter().try_for_each(|rows| balance.add(&rows, 1))?;
    let mut expected = Expected::Appended(balance);
    log.read(&mut expected, false, report, told).await?;
    let Expected::Appended(balance) = expected else { return Ok(()) };
    if !gone.is_empty() {
        report.notes.push(format!(
            "the sink also holds data from {}. Rows don't show where they came from, so the audit only checked that no \
             row of the log is missing; {} more rows could not be compared",
            gone.join(", "),
            balance.surplus()
        ));
    }
    balance.differences(|difference| {
        if gone.is_empty() || matches!(difference, Difference::Missing(_)) {
            report.add(difference);
        }
    })
}

async fn merged(
    log: &LogReader<'_>,
    table: &Table,
    combine: &Arc<dyn Combine>,
    stored: &Snapshot,
    report: &mut AuditReport,
    told: &mut (dyn FnMut(AuditProgress) + Send),
) -> Result<()> {
    let mut expected = log.table(table, combine, false, report, told).await?;
    let mut doubtful = Doubtful::default();
    for rows in &stored.rows {
        expected.meet(rows, |difference| report.add(difference), &mut doubtful)?;
    }
    expected.find_missing(|difference| report.add(difference))?;
    if !doubtful.is_empty() {
        // The first pass has already reported the records that can't be processed.
        let again = log.table(table, combine, true, &mut AuditReport::default(), told).await?;
        expected.judge(&doubtful, &again, |difference| report.add(difference))?;
    }
    Ok(())
}
