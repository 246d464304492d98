use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Schema, SchemaRef},
};
use millstream_core::{Result, Table};

use super::{
    encoder::{Encoder, internal},
    floats::{float, is_close},
    report::Difference,
};
use crate::rows::shown;

/// How many times each row is stored, minus how many times it is expected.
///
/// Memory: the bytes of all rows whose count isn't zero yet.
pub(super) struct Balance {
    encoder: Encoder,
    table: Table,
    counts: HashMap<Box<[u8]>, i64>,
}

impl Balance {
    pub(super) fn new(table: &Table) -> Result<Self> {
        let encoder = Encoder::new(table, (0..table.columns.len()).collect())?;
        Ok(Self { encoder, table: table.clone(), counts: HashMap::new() })
    }

    /// Adds rows that are stored (`by` 1) or expected (`by` -1).
    pub(super) fn add(&mut self, batch: &RecordBatch, by: i64) -> Result<()> {
        for row in self.encoder.rows(batch)? {
            match self.counts.entry(row) {
                Entry::Occupied(mut held) => {
                    *held.get_mut() += by;
                    if *held.get() == 0 {
                        held.remove();
                    }
                }
                Entry::Vacant(place) => drop(place.insert(by)),
            }
        }
        Ok(())
    }

    /// Cancels rows that differ only in floats, and by no more than the order of computation explains.
    pub(super) fn cancel_close(&mut self) -> Result<()> {
        let is_float = |at: &usize| self.table.columns[*at].data_type == DataType::Float64;
        let (floats, exact): (Vec<usize>, Vec<usize>) = (0..self.table.columns.len()).partition(is_float);
        if floats.is_empty() || self.counts.is_empty() {
            return Ok(());
        }
        let rest = Encoder::new(&self.table, exact)?;
        let parser = self.encoder.converter.parser();
        let mut stored: HashMap<Box<[u8]>, Vec<Floats>> = HashMap::new();
        let mut wanted = Vec::new();
        for (bytes, times) in &self.counts {
            let columns = self.encoder.converter.convert_rows([parser.parse(bytes)]).map_err(internal)?;
            let row = RecordBatch::try_new(nullable(&self.table), columns).map_err(internal)?;
            let values = floats.iter().map(|at| float(row.column(*at), 0)).collect();
            let key = rest.rows(&row)?.pop().unwrap_or_default();
            match times {
                1 => stored.entry(key).or_default().push((bytes.clone(), values)),
                -1 => wanted.push((key, bytes.clone(), values)),
                // Rows with several copies are reported unchanged.
                _ => {}
            }
        }
        for (key, bytes, values) in wanted {
            let Some(candidates) = stored.get_mut(&key) else { continue };
            let fits = |(_, other): &Floats| {
                values.iter().zip(other).all(|pair| match pair {
                    (Some(a), Some(b)) => is_close(*a, *b, 0.0),
                    (a, b) => a.is_none() && b.is_none(),
                })
            };
            if let Some(at) = candidates.iter().position(fits) {
                self.counts.remove(&candidates.swap_remove(at).0);
                self.counts.remove(&bytes);
            }
        }
        Ok(())
    }

    /// How many stored rows are not expected.
    pub(super) fn surplus(&self) -> u64 {
        self.counts.values().filter(|times| **times > 0).map(|times| times.unsigned_abs()).sum()
    }

    /// The rows that don't balance, in their order.
    pub(super) fn differences(self, mut found: impl FnMut(Difference)) -> Result<()> {
        let sorted: BTreeMap<_, _> = self.counts.into_iter().collect();
        let parser = self.encoder.converter.parser();
        for (bytes, times) in sorted {
            let columns = self.encoder.converter.convert_rows([parser.parse(&bytes)]).map_err(internal)?;
            let row = RecordBatch::try_new(nullable(&self.table), columns).map_err(internal)?;
            let mut text = shown(&self.table, &row, 0)?.all();
            if times.abs() > 1 {
                text += &format!(" ({} times)", times.abs());
            }
            found(if times > 0 { Difference::Unexpected(text) } else { Difference::Missing(text) });
        }
        Ok(())
    }
}

/// A row's bytes, and its floats.
type Floats = (Box<[u8]>, Vec<Option<f64>>);

/// The table's schema with every column nullable: the rows are not known to have no nulls.
fn nullable(table: &Table) -> SchemaRef {
    let schema = table.schema();
    let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}
