//! Records for which an expression of the statement can't be computed.

use arrow::array::RecordBatch;
use millstream_core::{Error, Position, Result};

use super::{log_rows::Input, query::Query};

/// How many refused records are looked for. Where there are more, the table can't be compared.
const MAX_REFUSED: usize = 1_000;

/// Finds the records that can be decoded, but for which an expression can't be computed, by running the function's own
/// transform over ever fewer of them.
pub(super) async fn find_refused(query: &Query<'_>, input: &Input) -> Result<Vec<(Position, String)>> {
    let pass = query.pass();
    pass.input.set(input.clone()).map_err(|_| Error::stop("internal: a pass was run twice"))?;
    let mut refused = Vec::new();
    for range in &input.ranges {
        let mut place = pass.place(range);
        let topic = &range.0.topic;
        while !place.range.is_empty() {
            let from = place.range.start;
            let newest_us = place.newest_us;
            let rows = pass.next(&mut place, false).await?;
            match transform(query, topic, rows).await {
                Ok(_) => {}
                // Tried again with half as many; a single one is it.
                Err(Error::Poison(_) | Error::TooLarge(_)) if place.range.start - from > 1 => {
                    let records = (place.range.start - from).unsigned_abs() as usize / 2;
                    (place.range.start, place.newest_us, place.records) = (from, newest_us, records.max(1));
                }
                Err(Error::Poison(cause)) => refused.push((range.0.at(from), cause.to_string())),
                Err(error) => return Err(error),
            }
            if refused.len() > MAX_REFUSED {
                return Err(Error::stop(format!(
                    "more than {MAX_REFUSED} records can't be processed and are no dead letters, the first of them {}: {}",
                    refused[0].0, refused[0].1
                )));
            }
        }
    }
    Ok(refused)
}

async fn transform(query: &Query<'_>, topic: &str, rows: RecordBatch) -> Result<Vec<RecordBatch>> {
    if rows.num_rows() == 0 { Ok(Vec::new()) } else { query.plan.planned.transform.apply(topic, rows).await }
}
