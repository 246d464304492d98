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
pub(crate) struct Balance {
    encoder: Encoder,
    table: Table,
    counts: HashMap<Box<[u8]>, i64>,
}

impl Balance {
    pub(crate) fn new(table: &Table) -> Result<Self> {
        let encoder = Encoder::new(table, (0..table.columns.len()).collect())?;
        Ok(Self { encoder, table: table.clone(), counts: HashMap::new() })
    }

    /// Adds rows that are stored (`by` 1) or expected (`by` -1).
    pub(crate) fn add(&mut self, batch: &RecordBatch, by: i64) -> Result<()> {
        self.encoder.rows(batch)?.into_iter().for_each(|row| self.change(row, by));
        Ok(())
    }

    fn change(&mut self, row: Box<[u8]>, by: i64) {
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

    /// Cancels rows that differ only in floats, and by no more than the order of computation explains.
    pub(crate) fn cancel_close(&mut self) -> Result<()> {
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
            let values: Vec<_> = floats.iter().map(|at| float(row.column(*at), 0)).collect();
            let key = rest.rows(&row)?.pop().unwrap_or_default();
            for _ in 0..times.unsigned_abs() {
                if *times > 0 {
                    stored.entry(key.clone()).or_default().push((bytes.clone(), values.clone()));
                } else {
                    wanted.push((key.clone(), bytes.clone(), values.clone()));
                }
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
                self.change(candidates.swap_remove(at).0, -1);
                self.change(bytes, 1);
            }
        }
        Ok(())
    }

    /// How many stored rows are not expected.
    pub(super) fn surplus(&self) -> u64 {
        self.counts.values().filter(|times| **times > 0).map(|times| times.unsigned_abs()).sum()
    }

    /// The rows that don't balance, in their order: each as a batch of one row, with its count.
    pub(crate) fn rest(self) -> Result<Vec<(RecordBatch, i64)>> {
        let sorted: BTreeMap<_, _> = self.counts.into_iter().collect();
        let parser = self.encoder.converter.parser();
        let row = |(bytes, times): (Box<[u8]>, i64)| -> Result<_> {
            let columns = self.encoder.converter.convert_rows([parser.parse(&bytes)]).map_err(internal)?;
            Ok((RecordBatch::try_new(nullable(&self.table), columns).map_err(internal)?, times))
        };
        sorted.into_iter().map(row).collect()
    }

    /// The same rows as differences.
    pub(super) fn differences(self, mut found: impl FnMut(Difference)) -> Result<()> {
        let table = self.table.clone();
        for (row, times) in self.rest()? {
            let mut text = shown(&table, &row, 0)?.all();
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
