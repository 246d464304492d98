//! What a function's statement would give over the log, and what would change in its table. Nothing is written.

mod deployed;
mod range;

use std::sync::Arc;

use arrow::array::RecordBatch;
use millstream_core::{Error, Position, Result};
use millstream_pipeline::Pipeline;
use millstream_sql::WholeColumn;

use self::{
    deployed::{Deployed, shared_columns},
    range::ranges,
};
use crate::{
    AuditProgress, NotRunnable, Systems,
    audit::{
        compare::{Unequal, compare},
        encoder::Encoder,
        input::Input,
        query::Query,
        side::Side,
    },
    plan_function, reference,
    rows::shown,
};

/// What a preview is asked for.
#[derive(Clone, Copy, Debug)]
pub struct PreviewOptions {
    /// Only records whose timestamp is not before this one, in milliseconds since 1970; nothing is compared then.
    pub since_ms: Option<i64>,
    /// How many rows, and how many changes of each kind, are returned.
    pub limit: usize,
}

/// What a statement would give.
#[derive(Debug, Default)]
pub struct Preview {
    /// The function, as `pipeline.function`.
    pub function: String,
    /// Records read from the log.
    pub records: u64,
    /// How many of them would become dead letters.
    pub refused: u64,
    /// The first of these, with the reason.
    pub first_refused: Vec<(Position, String)>,
    /// How many rows there would be.
    pub total_rows: u64,
    /// Some of the rows, each as a batch of one row.
    pub rows: Vec<RecordBatch>,
    /// What would change in the deployed table; `None` where there is none, or only a part of the log was read.
    pub changes: Option<Changes>,
    /// What must be known about it.
    pub notes: Vec<String>,
}

/// The deployed table side by side with what the statement would give.
#[derive(Debug, Default)]
pub struct Changes {
    /// Rows that stay as they are, in the columns that both have.
    pub same: u64,
    /// Rows that there would be in addition, and the first of them.
    pub new: u64,
    /// Rows that would be gone.
    pub gone: u64,
    /// Rows of a group that would have other values.
    pub different: u64,
    /// The first changes of each kind.
    pub examples: Vec<Change>,
    /// Columns that would be added, removed, or have another type, a line each.
    pub columns: Vec<String>,
}

/// A change of one row, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It would be there.
    New(String),
    /// It would be gone.
    Gone(String),
    /// It would have other values.
    Different {
        /// The group.
        key: String,
        /// The values that differ, as they are.
        is: String,
        /// The same, as they would be.
        becomes: String,
    },
}

/// Runs the function's statement over the log as one query, and compares its rows with the table that is deployed. Reads
/// the log and the table, and writes nothing: rights to read are enough.
///
/// The log is read between the fences of the deployed table, so that the rows are of the same records; where there is no
/// table, all that the log has.
///
/// # Errors
/// `Stop` when the statement is wrong; those of the systems.
pub async fn preview(
    systems: &Systems,
    pipeline: &Pipeline,
    name: &str,
    options: PreviewOptions,
    told: &mut (dyn FnMut(AuditProgress) + Send),
) -> Result<Preview> {
    let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
    reference::load_all(&systems.references(pipeline, &plan.references)?).await?;
    let reading = pipeline.functions[name].reading().ok_or_else(|| NotRunnable { function: name.to_owned() })?;
    let (source, dead_letters) = (systems.source(), systems.dead_letters(pipeline));
    let query = Query { pipeline, name, plan: &plan, reading, source: &source, dead_letters: &dead_letters };
    let mut pass = query.pass();
    let whole = query.planned(&pass).await?;
    let columns = whole.columns.clone();
    let mut preview =
        Preview { function: millstream_pipeline::Function::id(&pipeline.name, name), ..Preview::default() };
    let deployed = match options.since_ms {
        Some(_) => None,
        None => Deployed::find(systems, pipeline, name, &mut preview.notes).await?,
    };
    let shared = shared_columns(&columns, deployed.as_ref().map_or(&columns[..], |deployed| &deployed.columns[..]));
    let compared = Arc::new(Encoder::new(shared.now.clone())?);
    let (fences, is) = match &deployed {
        Some(deployed) if shared.now.is_empty() => (deployed.fences().await?, Side::new(&compared)),
        Some(deployed) => deployed.scan(&shared, &compared).await?,
        None => (Vec::new(), Side::new(&compared)),
    };
    let ranges = ranges(pipeline, reading, source.as_ref(), &fences, options.since_ms, &mut preview.notes).await?;
    let encoder = Arc::new(Encoder::new(columns.clone())?);
    let input = Input { ranges, ..Input::default() };
    let (mut rows, _) = query.run(whole, &mut pass, input, &encoder, told).await?;
    preview.take(&pass);
    preview.total_rows = rows.rows;
    preview.rows = rows.some(options.limit)?;
    if deployed.is_some() && shared.now.is_empty() {
        preview.changes = Some(Changes { columns: shared.lines, ..Changes::default() });
        preview.notes.push("no column has its name and type in both, so no rows are compared".to_owned());
    } else if deployed.is_some() {
        preview.changes = Some(changes(is, &mut rows, &shared, &compared, options.limit)?);
    }
    Ok(preview)
}

impl Preview {
    fn take(&mut self, pass: &crate::audit::pass::Pass) {
        let mut seen = pass.seen();
        (self.records, self.refused) = (seen.records, seen.total_lost);
        self.first_refused = std::mem::take(&mut seen.lost);
    }
}

/// Columns that a table has, and those of the same name and type that it would have.
pub(crate) struct Shared {
    /// As they would be.
    now: Vec<WholeColumn>,
    /// Their places among all columns of the statement as it is in the file.
    places_now: Vec<usize>,
    /// What is different about the others.
    lines: Vec<String>,
}

fn changes(is: Side, rows: &mut Side, shared: &Shared, compared: &Arc<Encoder>, limit: usize) -> Result<Changes> {
    let (mut is, mut becomes) = (is, rows.of_columns(&shared.places_now, compared)?);
    let mut changes = Changes { columns: shared.lines.clone(), ..Changes::default() };
    let columns = &shared.now;
    let (mut met, total) = (0, is.rows);
    compare(&mut is, &mut becomes, false, &mut |unequal| {
        match unequal {
            Unequal::First(row, times) => {
                met += times;
                changes.gone += times;
                if changes.gone - times < limit as u64 {
                    changes.examples.push(Change::Gone(shown(columns, &row, 0)?.all()));
                }
            }
            Unequal::Second(row, times) => {
                changes.new += times;
                if changes.new - times < limit as u64 {
                    changes.examples.push(Change::New(shown(columns, &row, 0)?.all()));
                }
            }
            Unequal::Both(first, second) => {
                met += 1;
                changes.different += 1;
                if changes.different <= limit as u64 {
                    let (first, second) = (shown(columns, &first, 0)?, shown(columns, &second, 0)?);
                    let (is, becomes) = first.differing(&second);
                    changes.examples.push(Change::Different { key: first.key, is, becomes });
                }
            }
        }
        Ok(())
    })?;
    changes.same = total - met;
    Ok(changes)
}
