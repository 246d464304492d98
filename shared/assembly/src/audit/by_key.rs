use std::collections::HashMap;

use arrow::{
    array::{RecordBatch, UInt64Array},
    compute::take_record_batch,
};
use millstream_core::{Result, Table};

use super::{
    cells::{Cells, Verdict},
    encoder::{Encoder, internal, key_columns, plain_batch},
    floats::float,
    report::Difference,
};
use crate::rows::shown;

/// How many rows are held whose difference the order of records may explain. Where there are more, something else is wrong.
const MAX_DOUBTFUL: usize = 10_000;

/// The expected rows of a merging table, by key.
pub(super) struct ByKey {
    table: Table,
    encoder: Encoder,
    batches: Vec<RecordBatch>,
    /// The batch and the row of each key.
    at: HashMap<Box<[u8]>, (usize, usize)>,
    /// How many times each expected row was found, by batch.
    met: Vec<Vec<u32>>,
}

impl ByKey {
    /// From batches that hold each key once.
    pub(super) fn new(table: &Table, batches: Vec<RecordBatch>) -> Result<Self> {
        let encoder = Encoder::new(table, key_columns(table))?;
        let (mut at, mut met, mut plain) = (HashMap::new(), Vec::new(), Vec::new());
        for (number, rows) in batches.into_iter().enumerate() {
            at.extend(encoder.rows(&rows)?.into_iter().enumerate().map(|(row, key)| (key, (number, row))));
            met.push(vec![0; rows.num_rows()]);
            plain.push(plain_batch(&rows)?);
        }
        Ok(Self { table: table.clone(), encoder, batches: plain, at, met })
    }

    /// Compares stored rows with the expected ones.
    pub(super) fn meet(
        &mut self,
        stored: &RecordBatch,
        mut found: impl FnMut(Difference),
        doubtful: &mut Doubtful,
    ) -> Result<()> {
        let stored = plain_batch(stored)?;
        let (mut keys, mut rows) = (Vec::new(), Vec::new());
        let cells = self.batches.iter().map(|expected| Cells::new(&self.table, &stored, expected));
        let cells = cells.collect::<Result<Vec<_>>>()?;
        for (row, key) in self.encoder.rows(&stored)?.into_iter().enumerate() {
            let Some((batch, expected)) = self.at.get(&key).copied() else {
                found(Difference::Unexpected(shown(&self.table, &stored, row)?.all()));
                continue;
            };
            self.met[batch][expected] += 1;
            match self.met[batch][expected] {
                1 => {}
                2 => {
                    let key = shown(&self.table, &stored, row)?.key;
                    found(Difference::Unexpected(format!("a second row of {key}")));
                    continue;
                }
                _ => continue,
            }
            match cells[batch].judge(row, expected, |_| 0.0) {
                Verdict::Equal => {}
                Verdict::Doubtful if doubtful.rows < MAX_DOUBTFUL => {
                    doubtful.rows += 1;
                    keys.push(key);
                    rows.push(row as u64);
                }
                Verdict::Doubtful | Verdict::Differs => {
                    found(self.differs(&stored, row, &self.batches[batch], expected)?);
                }
            }
        }
        if !rows.is_empty() {
            // A slice would keep the whole batch in memory.
            let rows = take_record_batch(&stored, &UInt64Array::from(rows)).map_err(internal)?;
            doubtful.batches.push((keys, rows));
        }
        Ok(())
    }

    /// Reports the expected rows that were not met.
    pub(super) fn find_missing(&self, mut found: impl FnMut(Difference)) -> Result<()> {
        for (batch, met) in self.batches.iter().zip(&self.met) {
            for row in met.iter().enumerate().filter(|(_, met)| **met == 0).map(|(row, _)| row) {
                found(Difference::Missing(shown(&self.table, batch, row)?.all()));
            }
        }
        Ok(())
    }

    /// Judges doubtful rows by `again`, the result of the log in another order.
    pub(super) fn judge(&self, doubtful: &Doubtful, again: &Self, mut found: impl FnMut(Difference)) -> Result<()> {
        for (keys, stored) in &doubtful.batches {
            let cells = self.batches.iter().map(|expected| Cells::new(&self.table, stored, expected));
            let cells = cells.collect::<Result<Vec<_>>>()?;
            for (row, key) in keys.iter().enumerate() {
                // Both passes give the same keys, so no key should be missing here.
                let Some((at, expected)) = self.at.get(key).copied() else { continue };
                let batch = &self.batches[at];
                let other = again.at.get(key).copied();
                let noise = |column: usize| {
                    let here = float(batch.column(column), expected);
                    let there = other.and_then(|(batch, row)| float(again.batches[batch].column(column), row));
                    here.zip(there).map_or(0.0, |(here, there)| (here - there).abs())
                };
                if !matches!(cells[at].judge(row, expected, noise), Verdict::Equal) {
                    found(self.differs(stored, row, batch, expected)?);
                }
            }
        }
        Ok(())
    }

    fn differs(&self, stored: &RecordBatch, row: usize, batch: &RecordBatch, expected: usize) -> Result<Difference> {
        let (stored, expected) = (shown(&self.table, stored, row)?, shown(&self.table, batch, expected)?);
        let (stored_values, expected_values) = stored.differing(&expected);
        Ok(Difference::Differs { key: stored.key, stored: stored_values, expected: expected_values })
    }
}

/// Rows that differ only in floats, but by more than the tolerance: the order of the records may be the reason.
#[derive(Default)]
pub(super) struct Doubtful {
    /// For each batch with such rows: their keys, and the rows.
    batches: Vec<(Vec<Box<[u8]>>, RecordBatch)>,
    rows: usize,
}

impl Doubtful {
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, Float64Array},
        datatypes::DataType,
    };
    use millstream_core::{Column, Merge, Role};

    use super::*;

    /// If a whole table is wrong, its differences are reported at once and not kept for a second pass.
    #[test]
    fn doubtful_rows_are_bounded() {
        let column = |name: &str, data_type, role| Column { name: name.into(), data_type, nullable: false, role };
        let table = Table {
            name: "t".into(),
            columns: vec![
                column("k", DataType::Int64, Role::Key),
                column("sum", DataType::Float64, Role::State(Merge::Sum)),
            ],
            combine: None,
            view: None,
        };
        let rows = |add: f64| {
            let keys = 0..(MAX_DOUBTFUL + 500) as i64;
            let sums = Float64Array::from_iter_values(keys.clone().map(|key| key as f64 + add));
            let keys: ArrayRef = Arc::new(arrow::array::Int64Array::from_iter_values(keys));
            RecordBatch::try_new(table.schema(), vec![keys, Arc::new(sums)]).unwrap()
        };
        let (mut expected, mut doubtful, mut found) =
            (ByKey::new(&table, vec![rows(1.0)]).unwrap(), Doubtful::default(), 0);
        for part in [rows(1.5).slice(0, 7_000), rows(1.5).slice(7_000, MAX_DOUBTFUL + 500 - 7_000)] {
            expected.meet(&part, |_| found += 1, &mut doubtful).unwrap();
        }
        assert_eq!((found, doubtful.rows, doubtful.batches.len()), (500, MAX_DOUBTFUL, 2));
        let mut judged = 0;
        expected.judge(&doubtful, &ByKey::new(&table, vec![rows(1.0)]).unwrap(), |_| judged += 1).unwrap();
        assert_eq!(judged, MAX_DOUBTFUL);
        let mut excused = 0;
        expected.judge(&doubtful, &ByKey::new(&table, vec![rows(1.5)]).unwrap(), |_| excused += 1).unwrap();
        assert_eq!(excused, 0, "another order changes as much");
    }
}
