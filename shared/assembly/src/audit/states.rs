//! Compares what readers see with the states that are stored beneath it.

use std::sync::{Arc, Mutex, PoisonError};

use millstream_core::{Result, Sink, Table, TakeRows};

use super::{
    compare::{Unequal, compare as compare_sides},
    encoder::Encoder,
    report::{AuditReport, Difference},
    scan,
    side::Side,
};
use crate::rows::shown;

/// How many times states and public rows are read again if the function has written in between.
const TRIES: usize = 5;

/// Finishes the states and compares them with the rows that readers see. `seen` are those that were read with the fences
/// of the report.
pub(super) async fn compare(
    table: &Table,
    states: &dyn Sink,
    public: &dyn Sink,
    encoder: &Arc<Encoder>,
    seen: Side,
    report: &mut AuditReport,
) -> Result<()> {
    if table.view.is_none() {
        return Ok(());
    }
    let (mut fences, mut seen) = (report.fences.clone(), seen);
    for _ in 0..TRIES {
        let (at, mut finished) = finish(table, states, encoder).await?;
        // Both must be read at one instant; otherwise they may differ only because of that.
        if at.len() == fences.len() && at.iter().all(|fence| fences.contains(fence)) {
            let columns = &encoder.columns;
            compare_sides(&mut seen, &mut finished, false, &mut |unequal| {
                let row = |row| shown(columns, row, 0).map(|line| line.all());
                match &unequal {
                    Unequal::First(first, _) => report.add(Difference::Shown(row(first)?)),
                    Unequal::Second(second, _) => report.add(Difference::Hidden(row(second)?)),
                    Unequal::Both(first, second) => {
                        report.add(Difference::Shown(row(first)?));
                        report.add(Difference::Hidden(row(second)?));
                    }
                }
                Ok(())
            })?;
            return Ok(());
        }
        (fences, seen) = scan(public, encoder, None).await?;
    }
    report.notes.push("the stored states were not compared: the function wrote during every attempt".to_owned());
    Ok(())
}

/// The rows that the stored states give.
async fn finish(table: &Table, states: &dyn Sink, encoder: &Arc<Encoder>) -> Result<(super::Fences, Side)> {
    let side = Arc::new(Mutex::new(Side::new(encoder)));
    let (into, combine) = (Arc::clone(&side), table.combine.clone());
    let take: TakeRows = Arc::new(move |rows| {
        let Some(combine) = &combine else { return Ok(()) };
        // Each row is finished on its own. Nothing is waited for: it is computed in this thread.
        let finish = tokio::task::unconstrained(combine.finish(&rows));
        let (finished, _) = futures::executor::block_on(finish)?;
        into.lock().unwrap_or_else(PoisonError::into_inner).add(&finished)
    });
    let fences = states.scan(take).await?;
    let side = std::mem::replace(&mut *side.lock().unwrap_or_else(PoisonError::into_inner), Side::new(encoder));
    Ok((fences, side))
}
