//! Compares the rows of two tables, column by column in Arrow's form. Only differences are turned into text.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, DynComparator, Float64Array, RecordBatch, UInt64Array, make_comparator},
    compute::{SortOptions, cast, take_record_batch, unary},
    datatypes::{DataType, Float32Type, Float64Type, Schema, SchemaRef},
    row::{RowConverter, SortField},
};
use millstream_core::{Error, Merge, Result, Role, Table};

use crate::{Difference, rows::shown};

/// The allowed relative difference of floats: the last digits of sums and means depend on the order of their parts.
const FLOAT_TOLERANCE: f64 = 1e-9;
/// The allowed multiple of the change that another order of the same records makes.
const NOISE_FACTOR: f64 = 4.0;

pub(crate) fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::stop("internal: rows can't be compared").caused_by(error)
}

/// How many rows are kept whose difference the order of records may explain. With more, something else is wrong.
const MAX_DOUBTFUL: usize = 10_000;

/// Are these floats equal, except for the order of their computation? `noise` is the change that another order has
/// made.
fn close(a: f64, b: f64, noise: f64) -> bool {
    let difference = (a - b).abs();
    let within = |bound: f64| difference.is_finite() && bound.is_finite() && difference <= bound;
    a == b
        || (a.is_nan() && b.is_nan())
        || within(FLOAT_TOLERANCE * a.abs().max(b.abs()))
        || within(NOISE_FACTOR * noise)
}

/// Turns -0.0 into 0.0, and every NaN into the same one: stores don't tell them apart.
fn plain_floats(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => Arc::new(unary::<_, _, Float64Type>(column.as_primitive::<Float64Type>(), |value| {
            if value.is_nan() { f64::NAN } else { value + 0.0 }
        })),
        DataType::Float32 => Arc::new(unary::<_, _, Float32Type>(column.as_primitive::<Float32Type>(), |value| {
            if value.is_nan() { f32::NAN } else { value + 0.0 }
        })),
        _ => Arc::clone(column),
    }
}

fn plain_batch(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(plain_floats).collect();
    RecordBatch::try_new(batch.schema(), columns).map_err(internal)
}

/// Encodes rows as bytes that are equal if the rows are equal.
pub(crate) struct Encoder {
    converter: RowConverter,
    columns: Vec<usize>,
}

impl Encoder {
    /// An encoder of these columns of a table.
    pub(crate) fn new(table: &Table, columns: Vec<usize>) -> Result<Self> {
        let fields = columns.iter().map(|at| SortField::new(table.columns[*at].data_type.clone())).collect();
        Ok(Self { converter: RowConverter::new(fields).map_err(internal)?, columns })
    }

    pub(crate) fn rows(&self, batch: &RecordBatch) -> Result<Vec<Box<[u8]>>> {
        if self.columns.is_empty() {
            return Ok(vec![Box::default(); batch.num_rows()]);
        }
        let columns: Vec<_> = self.columns.iter().map(|column| plain_floats(batch.column(*column))).collect();
        let rows = self.converter.convert_columns(&columns).map_err(internal)?;
        Ok(rows.iter().map(|row| row.as_ref().into()).collect())
    }
}

/// How many times each row is stored, minus how many times it is expected.
///
/// Memory: the bytes of all rows whose count isn't zero yet.
pub(crate) struct Balance {
    encoder: Encoder,
    table: Table,
    of: HashMap<Box<[u8]>, i64>,
}

/// A row's bytes, and its floats.
type Floats = (Box<[u8]>, Vec<Option<f64>>);

impl Balance {
    pub(crate) fn new(table: &Table) -> Result<Self> {
        let encoder = Encoder::new(table, (0..table.columns.len()).collect())?;
        Ok(Self { encoder, table: table.clone(), of: HashMap::new() })
    }

    /// Adds rows that are stored (`by` 1) or expected (`by` -1).
    pub(crate) fn add(&mut self, batch: &RecordBatch, by: i64) -> Result<()> {
        self.encoder.rows(batch)?.into_iter().for_each(|row| self.change(row, by));
        Ok(())
    }

    fn change(&mut self, row: Box<[u8]>, by: i64) {
        match self.of.entry(row) {
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
        if floats.is_empty() || self.of.is_empty() {
            return Ok(());
        }
        let rest = Encoder::new(&self.table, exact)?;
        let parser = self.encoder.converter.parser();
        let mut stored: HashMap<Box<[u8]>, Vec<Floats>> = HashMap::new();
        let mut wanted = Vec::new();
        for (bytes, times) in &self.of {
            let columns = self.encoder.converter.convert_rows([parser.parse(bytes)]).map_err(internal)?;
            let row = RecordBatch::try_new(nullable(&self.table), columns).map_err(internal)?;
            let values: Vec<_> = floats.iter().map(|at| float(row.column(*at), 0)).collect();
            let key = rest.rows(&row)?.pop().unwrap_or_default();
            for _ in 0..times.unsigned_abs() {
                match *times > 0 {
                    true => stored.entry(key.clone()).or_default().push((bytes.clone(), values.clone())),
                    false => wanted.push((key.clone(), bytes.clone(), values.clone())),
                }
            }
        }
        for (key, bytes, values) in wanted {
            let Some(candidates) = stored.get_mut(&key) else { continue };
            let fits = |(_, other): &Floats| {
                values.iter().zip(other).all(|pair| match pair {
                    (Some(a), Some(b)) => close(*a, *b, 0.0),
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
    pub(crate) fn surplus(&self) -> u64 {
        self.of.values().filter(|times| **times > 0).map(|times| times.unsigned_abs()).sum()
    }

    /// The rows whose count isn't zero, in the order of the rows: each as a batch of one row, with its count.
    pub(crate) fn rest(self) -> Result<Vec<(RecordBatch, i64)>> {
        let sorted: BTreeMap<_, _> = self.of.into_iter().collect();
        let parser = self.encoder.converter.parser();
        let row = |(bytes, times): (Box<[u8]>, i64)| -> Result<_> {
            let columns = self.encoder.converter.convert_rows([parser.parse(&bytes)]).map_err(internal)?;
            Ok((RecordBatch::try_new(nullable(&self.table), columns).map_err(internal)?, times))
        };
        sorted.into_iter().map(row).collect()
    }

    /// The same rows as differences.
    pub(crate) fn differences(self, mut found: impl FnMut(Difference)) -> Result<()> {
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

/// The table's schema with all columns nullable.
fn nullable(table: &Table) -> SchemaRef {
    let schema = table.schema();
    let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

/// The indexes of the key columns.
pub(crate) fn key_columns(table: &Table) -> Vec<usize> {
    (0..table.columns.len()).filter(|at| table.columns[*at].role == Role::Key).collect()
}

/// The expected rows of a merging table, by key.
pub(crate) struct ByKey {
    table: Table,
    encoder: Encoder,
    batches: Vec<RecordBatch>,
    /// The batch and the row of each key.
    at: HashMap<Box<[u8]>, (usize, usize)>,
    /// How many times each expected row was found, by batch.
    met: Vec<Vec<u32>>,
}

/// Rows that differ only in floats, but by more than the tolerance: the order of the records may be the reason.
#[derive(Default)]
pub(crate) struct Doubtful {
    /// For each batch with such rows: their keys, and the rows.
    batches: Vec<(Vec<Box<[u8]>>, RecordBatch)>,
    rows: usize,
}

impl Doubtful {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

/// The result of comparing two rows.
enum Verdict {
    Equal,
    /// They differ only in floats that were computed from several records.
    Doubtful,
    Differs,
}

impl ByKey {
    /// From batches that hold each key once.
    pub(crate) fn new(table: &Table, batches: Vec<RecordBatch>) -> Result<Self> {
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
    pub(crate) fn meet(
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
            match cells[batch].verdict(row, expected, |_| 0.0) {
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

    /// The expected rows that were not found.
    pub(crate) fn missing(&self, mut found: impl FnMut(Difference)) -> Result<()> {
        for (batch, met) in self.batches.iter().zip(&self.met) {
            for row in met.iter().enumerate().filter(|(_, met)| **met == 0).map(|(row, _)| row) {
                found(Difference::Missing(shown(&self.table, batch, row)?.all()));
            }
        }
        Ok(())
    }

    /// Judges doubtful rows by `again`, the result of the log in another order.
    pub(crate) fn judge(&self, doubtful: &Doubtful, again: &Self, mut found: impl FnMut(Difference)) -> Result<()> {
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
                if !matches!(cells[at].verdict(row, expected, noise), Verdict::Equal) {
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

/// The non-key columns of stored and expected rows, side by side.
struct Cells {
    exact: Vec<DynComparator>,
    floats: Vec<Floating>,
}

/// A column of floats that were computed from several records.
struct Floating {
    at: usize,
    stored: Float64Array,
    expected: Float64Array,
    moments: Option<Moments>,
}

impl Cells {
    fn new(table: &Table, stored: &RecordBatch, expected_rows: &RecordBatch) -> Result<Self> {
        let mut cells = Self { exact: Vec::new(), floats: Vec::new() };
        for (at, column) in table.columns.iter().enumerate().filter(|(_, column)| column.role != Role::Key) {
            let (stored, expected) = (stored.column(at), expected_rows.column(at));
            let computed =
                matches!(column.role, Role::State(Merge::Sum | Merge::Mean { .. } | Merge::SquaredDifferences { .. }));
            if computed && column.data_type == DataType::Float64 {
                cells.floats.push(Floating {
                    at,
                    stored: stored.as_primitive().clone(),
                    expected: expected.as_primitive().clone(),
                    moments: Moments::of(table, at, expected_rows),
                });
            } else {
                cells.exact.push(make_comparator(stored, expected, SortOptions::default()).map_err(internal)?);
            }
        }
        Ok(cells)
    }

    fn verdict(&self, stored: usize, expected: usize, noise: impl Fn(usize) -> f64) -> Verdict {
        if self.exact.iter().any(|column| column(stored, expected).is_ne()) {
            return Verdict::Differs;
        }
        let mut verdict = Verdict::Equal;
        for Floating { at, stored: a, expected: b, moments } in &self.floats {
            let noise = || moments.as_ref().map_or(0.0, |moments| moments.rounding(expected)).max(noise(*at));
            match (a.is_valid(stored), b.is_valid(expected)) {
                (true, true) if close(a.value(stored), b.value(expected), noise()) => {}
                (true, true) => verdict = Verdict::Doubtful,
                (false, false) => {}
                _ => return Verdict::Differs,
            }
        }
        verdict
    }
}

/// The states of a mean or of squared differences: their rounding depends on the size of the values, however near to
/// zero the result is.
struct Moments {
    count: ArrayRef,
    mean: Float64Array,
    squared: Float64Array,
    is_mean: bool,
}

impl Moments {
    /// The states of the mean or the squared differences in column `at`.
    fn of(table: &Table, at: usize, rows: &RecordBatch) -> Option<Self> {
        let (is_mean, name) = match &table.columns[at].role {
            Role::State(Merge::Mean { .. }) => (true, &table.columns[at].name),
            Role::State(Merge::SquaredDifferences { mean, .. }) => (false, mean),
            _ => return None,
        };
        let squared = table.columns.iter().position(
            |column| matches!(&column.role, Role::State(Merge::SquaredDifferences { mean, .. }) if mean == name),
        )?;
        let Role::State(Merge::SquaredDifferences { count, .. }) = &table.columns[squared].role else { return None };
        let floats = |at: usize| rows.column(at).as_primitive_opt::<Float64Type>().cloned();
        let named = |name: &str| table.columns.iter().position(|column| column.name == name);
        let count = cast(rows.column(named(count)?), &DataType::Float64).ok()?;
        Some(Self { count, mean: floats(named(name)?)?, squared: floats(squared)?, is_mean })
    }

    /// About how much rounding may have changed the result of `row` ([`NOISE_FACTOR`] times as much is allowed).
    ///
    /// A mean is rounded with each of the n values, in proportion to the largest one (at most |mean| + √m2), and never
    /// by more than 1e-9 of their usual size r = |mean| + √(m2 / n). The squared values are differences d from the
    /// mean: if each is off by e = √n · ε · r, the sum of their squares is off by at most 2 · e · √(n · m2) + n · e².
    fn rounding(&self, row: usize) -> f64 {
        let Some(n) = float(&self.count, row).filter(|n| *n > 0.0) else { return 0.0 };
        let (mean, squared) = (self.mean.value(row).abs(), self.squared.value(row).max(0.0));
        let usual = mean + (squared / n).sqrt();
        let rounding = if self.is_mean {
            (n * f64::EPSILON * (mean + squared.sqrt())).min(FLOAT_TOLERANCE * usual)
        } else {
            let off = n.sqrt() * f64::EPSILON * usual;
            2.0 * off * (n * squared).sqrt() + n * off * off
        };
        if rounding.is_finite() { rounding } else { 0.0 }
    }
}

fn float(column: &ArrayRef, row: usize) -> Option<f64> {
    let column = column.as_primitive_opt::<Float64Type>()?;
    column.is_valid(row).then(|| column.value(row))
}

#[cfg(test)]
mod tests {
    use millstream_core::Column;

    use super::*;

    #[test]
    fn infinities_are_close_to_themselves_only() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        for (a, b) in [(inf, inf), (-inf, -inf), (nan, nan), (0.0, -0.0), (1.0, 1.0 + 1e-12)] {
            assert!(close(a, b, 0.0), "{a} {b}");
        }
        for (a, b) in [(inf, 1.0), (inf, -inf), (nan, 1.0), (f64::MAX, -f64::MAX), (1.0, 1.1)] {
            for noise in [0.0, inf, nan] {
                assert!(!close(a, b, noise) && !close(b, a, noise), "{a} {b} {noise}");
            }
        }
    }

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
