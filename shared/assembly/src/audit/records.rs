//! Records for which an expression of the statement can't be computed.

use arrow::array::RecordBatch;
use millstream_core::{Error, Position, Result};

use super::{input::Input, query::Query};

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
        let mut at_once = pass.records_at_once();
        while !place.range.is_empty() {
            let before = place.clone();
            place.records = at_once;
            let (rows, offsets) = pass.next(&mut place, false).await?;
            match transform(query, topic, rows).await {
                // As many again are tried step by step: bad records often stand together.
                Ok(_) => at_once = at_once.saturating_mul(2).min(pass.records_at_once()),
                Err(Error::Poison(_) | Error::TooLarge(_)) if offsets.len() > 1 => {
                    place = before;
                    at_once = offsets.len() / 2;
                }
                Err(Error::Poison(cause)) => {
                    refused.extend(offsets.first().map(|offset| (range.0.at(*offset), cause.to_string())));
                }
                Err(error) => return Err(error),
            }
            if refused.len() > MAX_REFUSED {
                return Err(Error::stop(format!(
                    "the statement can't be computed for more than {MAX_REFUSED} records that are no dead letters, so nothing \
                     is compared. The first is {}: {}",
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
