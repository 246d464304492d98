//! Compares what readers see with the states that are stored beneath it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use millstream_core::{Column, Error, OddRow, Result, Role, Sink, Table, TakeOddRow, TakeRows};
use millstream_sql::{Precision, WholeColumn};

use super::{
    compare::{Unequal, compare as compare_sides},
    encoder::{Encoder, internal},
    odd::OddRows,
    report::{AuditReport, Difference},
    scan,
    side::Side,
};
use crate::rows::{shown, shown_with};

/// How many states that can't be read are reported.
const MAX_BROKEN: usize = 10_000;

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
        let (at, mut finished, broken) = finish(table, states, encoder).await?;
        // Both must be read at one instant; otherwise they may differ only because of that.
        if at.len() == fences.len() && at.iter().all(|fence| fences.contains(fence)) {
            let columns = &encoder.columns;
            // What can't be read on one side is missing there, and is told of already.
            let unreadable = OddRows::of(columns, &seen)?;
            let broken_keys: BTreeSet<String> = broken.iter().filter_map(|state| state.key.clone()).collect();
            broken.into_iter().for_each(|state| report.add(Difference::BrokenState(state.line)));
            compare_sides(&mut seen, &mut finished, false, &mut |unequal| {
                let line = |row| shown(columns, row, 0);
                report.add(match &unequal {
                    Unequal::First(first, _) if broken_keys.contains(&line(first)?.key) => return Ok(()),
                    Unequal::Second(second, _) if unreadable.has(&line(second)?.key) => return Ok(()),
                    Unequal::First(first, _) => Difference::Shown(line(first)?.all()),
                    Unequal::Second(second, _) => Difference::Hidden(line(second)?.all()),
                    Unequal::Both(first, second, close) => {
                        let first = line(first)?;
                        let (seen, given) = first.differing(&line(second)?, close);
                        Difference::Unfinished { key: first.key, seen, given }
                    }
                });
                Ok(())
            })?;
            return Ok(());
        }
        (fences, seen) = scan(public, encoder, None).await?;
    }
    report.notes.push("the stored states were not compared: the function wrote during every attempt".to_owned());
    Ok(())
}

/// The rows that the stored states give, and the states that can't be read.
async fn finish(
    table: &Table,
    states: &dyn Sink,
    encoder: &Arc<Encoder>,
) -> Result<(super::Fences, Side, Vec<Broken>)> {
    let side = Arc::new(Mutex::new(Side::new(encoder)));
    let (into, combine) = (Arc::clone(&side), table.combine.clone());
    let take: TakeRows = Arc::new(move |rows| {
        let Some(combine) = &combine else { return Ok(()) };
        // Each row is finished on its own. Nothing is waited for: it is computed in this thread.
        let finish = tokio::task::unconstrained(combine.finish(&rows));
        let (finished, _) = futures::executor::block_on(finish)?;
        into.lock().unwrap_or_else(PoisonError::into_inner).add(&finished)
    });
    let broken = Arc::new(Mutex::new(Vec::new()));
    let (found, columns, seen_by) = (Arc::clone(&broken), state_columns(table), encoder.columns.clone());
    let odd: TakeOddRow = Arc::new(move |OddRow { row, unreadable }| {
        let line = shown_with(&columns, &row, 0, &unreadable)?.all();
        let key = key_of(&seen_by, &columns, &OddRow { row, unreadable })?;
        let mut broken = found.lock().unwrap_or_else(PoisonError::into_inner);
        broken.push(Broken { key, line });
        match broken.len() {
            0..=MAX_BROKEN => Ok(()),
            _ => Err(Error::stop(format!(
                "more than {MAX_BROKEN} stored states have values that are not of their columns' types: another program has \
                 written to them. Fill the table anew (`millstream rebuild`)"
            ))),
        }
    });
    let fences = states.scan_with_odd(take, odd).await?;
    let side = std::mem::replace(&mut *side.lock().unwrap_or_else(PoisonError::into_inner), Side::new(encoder));
    let broken = std::mem::take(&mut *broken.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((fences, side, broken))
}

/// A state that can't be read.
struct Broken {
    /// The key of its row as readers see it, if that can be read.
    key: Option<String>,
    line: String,
}

/// The key of a state's row, as the rows show it that readers see in the columns `seen_by`.
fn key_of(seen_by: &[WholeColumn], columns: &[WholeColumn], odd: &OddRow) -> Result<Option<String>> {
    let keys: Vec<_> = seen_by.iter().filter(|column| column.precision == Precision::Key).cloned().collect();
    let place = |key: &WholeColumn| {
        let at = columns.iter().position(|own| own.name == key.name && own.precision == Precision::Key)?;
        odd.unreadable.iter().all(|(place, _)| *place != at).then_some(at)
    };
    let Some(places) = keys.iter().map(place).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let row = odd.row.project(&places).map_err(internal)?;
    Ok(Some(shown(&keys, &row, 0)?.key))
}

fn state_columns(table: &Table) -> Vec<WholeColumn> {
    let column = |column: &Column| WholeColumn {
        name: column.name.clone(),
        data_type: column.data_type.clone(),
        precision: if column.role == Role::Key { Precision::Key } else { Precision::Exact },
        rounding: None,
    };
    table.columns.iter().map(column).collect()
}
