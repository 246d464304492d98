use millstream_core::{Clock, Decoded, Limits, Result};

use super::Rebuild;
use crate::{decode::decode, plan_function, reference, systems::timeliness};

/// How many records are read for a measurement, and how long it may take.
const MEASURED_RECORDS: u64 = 50_000;
const MEASURED_US: i64 = 2_000_000;

impl Rebuild {
    /// How many records a second are read and computed here, measured on the first ones; `None` when there are none. Writes
    /// nothing, so a rebuild takes somewhat longer.
    ///
    /// # Errors
    /// Those of the log, of the references and of the statement.
    pub async fn measure(&self, clock: &dyn Clock) -> Result<Option<f64>> {
        let plan = plan_function(&self.pipeline, &self.name).await;
        let plan = plan.map_err(|wrong| millstream_core::Error::stop(wrong.to_string()))?;
        reference::load_all(&self.systems.references(&self.pipeline, &plan.references)?).await?;
        let Some(reading) = self.pipeline.functions[&self.name].reading() else { return Ok(None) };
        let (log, began_us) = (self.systems.source(), clock.now_us());
        let (mut records, mut took_us) = (0, 0);
        for range in &self.ranges {
            let (mut next, end) = (range.read().start, range.read().end);
            while next < end && records < MEASURED_RECORDS && took_us < MEASURED_US {
                let limits = Limits { max_wait_ms: 0, ..reading.batch };
                let batch = log.read(&range.partition, next..end, limits).await?;
                next = batch.range().end;
                records += batch.len() as u64;
                if let Some(decoder) = plan.decoders.get(&range.partition.topic) {
                    let (Decoded { rows, .. }, _) =
                        timeliness(reading).split(decode(decoder.as_ref(), &batch)?, &batch, None)?;
                    if rows.num_rows() > 0 {
                        // A record that is refused costs no less.
                        let _ = plan.planned.transform.apply(&range.partition.topic, rows).await;
                    }
                }
                took_us = clock.now_us() - began_us;
            }
        }
        Ok((records > 0).then(|| records as f64 * 1e6 / took_us.max(1) as f64))
    }
}
