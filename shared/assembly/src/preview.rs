//! What a function's statement would give over the log, and what would change in its table. Nothing is written.

mod deployed;
mod range;
mod report;

use std::sync::Arc;

use millstream_core::{Error, Result};
use millstream_pipeline::Pipeline;
use millstream_sql::{Only, WholeColumn};

pub use self::report::{Change, Changes, Preview, PreviewOptions};
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
    reference::load_whole(&systems.references(pipeline, &plan.references)?).await?;
    let reading = pipeline.functions[name].reading().ok_or_else(|| NotRunnable { function: name.to_owned() })?;
    let (source, dead_letters) = (systems.source(), systems.dead_letters(pipeline));
    let query = Query {
        pipeline,
        name,
        plan: &plan,
        reading,
        source: &source,
        dead_letters: &dead_letters,
        only: Only::default(),
    };
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
    if !is.odd.is_empty() {
        preview.notes.push(format!(
            "{} rows of the table have values that are not of their columns' types, because another program has written to it: \
             `millstream audit` names them; here they are taken for missing",
            is.odd.len()
        ));
    }
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
            Unequal::Both(first, second, close) => {
                met += 1;
                changes.different += 1;
                if changes.different <= limit as u64 {
                    let (first, second) = (shown(columns, &first, 0)?, shown(columns, &second, 0)?);
                    let (is, becomes) = first.differing(&second, &close);
                    changes.examples.push(Change::Different { key: first.key, is, becomes });
                }
            }
        }
        Ok(())
    })?;
    changes.same = total - met;
    Ok(changes)
}
