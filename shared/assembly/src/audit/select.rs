//! Parts of a side.

use std::sync::Arc;

use arrow::array::RecordBatch;
use millstream_core::Result;

use super::{
    encoder::{Encoder, internal},
    side::{PARTS, Side},
};

impl Side {
    /// The same rows with only the columns at these places.
    pub(crate) fn of_columns(&mut self, places: &[usize], encoder: &Arc<Encoder>) -> Result<Self> {
        let mut side = Self::new(encoder);
        let own = Arc::clone(&self.encoder);
        for part in 0..PARTS {
            self.read(part, &mut |row| {
                let mut projected = encoder.rows(&own.decode(&row)?.project(places).map_err(internal)?)?;
                own.carry_roundings(&row, places, encoder, &mut projected);
                projected.iter().try_for_each(|row| side.push(row))
            })?;
        }
        Ok(side)
    }

    /// Some of the rows, at most `limit`, each as a batch of one row: those of the smallest keys in the first parts.
    pub(crate) fn some(&mut self, limit: usize) -> Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for part in 0..PARTS {
            let mut own = Vec::new();
            self.read(part, &mut |row| {
                own.push(row);
                Ok(())
            })?;
            own.truncate(limit - rows.len());
            rows.extend(own);
            if rows.len() == limit {
                break;
            }
        }
        rows.sort_by(|a, b| (&a.key, &a.exact).cmp(&(&b.key, &b.exact)));
        rows.iter().map(|row| self.encoder.decode(row)).collect()
    }
}
