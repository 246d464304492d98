//! Compares what readers see of a table of states with the stored states.

use arrow::{array::RecordBatch, compute::concat_batches};
use millstream_core::{Column, Combine, Error, Result, Role, Sink, Snapshot, Table};

use super::{
    balance::Balance,
    report::{AuditReport, Difference},
};

/// How many times states and view are read again if the function has written in between.
const TRIES: usize = 5;

/// The view, or the finished table, as a read-only table.
pub(super) fn public(table: &Table) -> Table {
    let column = |(name, data_type): &(String, arrow::datatypes::DataType)| Column {
        name: name.clone(),
        data_type: data_type.clone(),
        nullable: true,
        role: Role::Value,
    };
    let columns = table.view.iter().flat_map(|view| &view.columns).map(column).collect();
    Table { name: table.public_name().to_owned(), columns, combine: None, view: None }
}

/// Finishes the stored states and compares them with what the view shows. `stored` are the states that were read
/// before.
pub(super) async fn compare(
    table: &Table,
    combine: &dyn Combine,
    states: &dyn Sink,
    view: &dyn Sink,
    stored: Snapshot,
    report: &mut AuditReport,
) -> Result<()> {
    let mut stored = stored;
    for _ in 0..TRIES {
        let seen = match view.snapshot().await {
            Ok(seen) => seen,
            Err(error) if error.is_retry() => return Err(error),
            Err(error) => {
                report.notes.push(format!("what readers see could not be compared: {error}"));
                return Ok(());
            }
        };
        // Both must be read at one instant; otherwise they may differ only because of that.
        if same_fences(&seen, &stored) {
            return compare_rows(table, combine, stored.rows, seen.rows, report).await;
        }
        stored = states.snapshot().await?;
    }
    report.notes.push("what readers see was not compared: the function wrote during every attempt".to_owned());
    Ok(())
}

fn same_fences(a: &Snapshot, b: &Snapshot) -> bool {
    a.fences.len() == b.fences.len() && a.fences.iter().all(|fence| b.fences.contains(fence))
}

async fn compare_rows(
    table: &Table,
    combine: &dyn Combine,
    stored: Vec<RecordBatch>,
    seen: Vec<RecordBatch>,
    report: &mut AuditReport,
) -> Result<()> {
    let Some(view) = &table.view else { return Ok(()) };
    // If each row is finished on its own, batches can stay separate.
    let stored = if table.keys().all(|key| view.together.contains(&key.name)) {
        stored
    } else {
        let all = concat_batches(&table.schema(), &stored);
        vec![all.map_err(|error| Error::stop("internal: can't concatenate the states").caused_by(error))?]
    };
    let mut balance = Balance::new(&public(table))?;
    for rows in stored {
        balance.add(&combine.finish(&rows).await?.0, -1)?;
    }
    seen.iter().try_for_each(|rows| balance.add(rows, 1))?;
    balance.cancel_close()?;
    balance.differences(|difference| match difference {
        Difference::Missing(row) => report.add(Difference::Hidden(row)),
        Difference::Unexpected(row) => report.add(Difference::Shown(row)),
        other => report.add(other),
    })
}
