//! The merge rules of [`Merge`], carried out in memory: what every sink's own SQL must agree with.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, Float64Array, PrimitiveArray,
        RecordBatch, UInt32Array,
    },
    compute::{concat_batches, take},
    datatypes::{DataType, Decimal128Type, DecimalType, Float32Type, Float64Type, Int64Type, UInt64Type},
    error::ArrowError,
    row::{RowConverter, SortField},
};

use crate::{Column, Error, Merge, Result, Role, Table};

/// Merges the sketches of one group into one.
pub type MergeSketches<'a> = &'a dyn Fn(&[&[u8]]) -> Result<Vec<u8>>;

/// Merges rows of a table's columns, several per key, into one row per key, in the order in which keys first appear.
/// Null equals null in a key; a null state is ignored.
///
/// # Errors
/// `Poison` when a sum overflows its type, `Stop` when the rows are not of this table.
pub fn merge_rows(table: &Table, rows: &[RecordBatch], sketches: MergeSketches<'_>) -> Result<RecordBatch> {
    let all = concat_batches(&table.schema(), rows).map_err(not_of_table(table))?;
    if all.num_rows() == 0 {
        return Ok(all);
    }
    let groups = Groups::of(table, &all)?;
    let mut columns = Vec::with_capacity(table.columns.len());
    for (column, values) in table.columns.iter().zip(all.columns()) {
        let merged = match &column.role {
            Role::Key => groups.take(values, groups.first.iter().map(|row| Some(*row)))?,
            Role::State(merge) => groups.merge(column, merge, values, &all, sketches)?,
            Role::Value | Role::Entity | Role::Newest | Role::Carried => {
                return Err(Error::stop(format!("internal: table {} does not merge", table.name)));
            }
        };
        columns.push(merged);
    }
    RecordBatch::try_new(table.schema(), columns).map_err(not_of_table(table))
}

fn not_of_table(table: &Table) -> impl Fn(ArrowError) -> Error + '_ {
    |error| Error::stop(format!("internal: rows don't have the columns of table {}", table.name)).caused_by(error)
}

/// Which group each row belongs to.
struct Groups {
    of_row: Vec<u32>,
    /// The first row of each group.
    first: Vec<u32>,
}

impl Groups {
    fn of(table: &Table, all: &RecordBatch) -> Result<Self> {
        let keys: Vec<ArrayRef> = table
            .columns
            .iter()
            .zip(all.columns())
            .filter(|(column, _)| column.role == Role::Key)
            .map(|(_, values)| Arc::clone(values))
            .collect();
        if keys.is_empty() {
            return Ok(Self { of_row: vec![0; all.num_rows()], first: vec![0] });
        }
        let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
        let encoded = RowConverter::new(fields)
            .and_then(|converter| converter.convert_columns(&keys))
            .map_err(not_of_table(table))?;
        let mut known: HashMap<&[u8], u32> = HashMap::with_capacity(all.num_rows());
        let mut groups = Self { of_row: Vec::with_capacity(all.num_rows()), first: Vec::new() };
        for row in 0..encoded.num_rows() {
            let next = groups.first.len() as u32;
            let group = *known.entry(encoded.row(row).data()).or_insert(next);
            if group == next {
                groups.first.push(row as u32);
            }
            groups.of_row.push(group);
        }
        Ok(groups)
    }

    fn take(&self, values: &ArrayRef, rows: impl Iterator<Item = Option<u32>>) -> Result<ArrayRef> {
        take(values, &UInt32Array::from_iter(rows), None)
            .map_err(|error| Error::stop("internal: a merged row is out of range").caused_by(error))
    }

    fn merge(
        &self,
        column: &Column,
        merge: &Merge,
        values: &ArrayRef,
        all: &RecordBatch,
        sketches: MergeSketches<'_>,
    ) -> Result<ArrayRef> {
        match merge {
            Merge::Sum => self.sum(column, values),
            Merge::Min => self.take(values, self.best(values, Ordering::Less)?.into_iter()),
            Merge::Max => self.take(values, self.best(values, Ordering::Greater)?.into_iter()),
            Merge::First { order } => {
                self.take(values, self.best(find_column(all, order)?, Ordering::Less)?.into_iter())
            }
            Merge::Last { order } => {
                self.take(values, self.best(find_column(all, order)?, Ordering::Greater)?.into_iter())
            }
            Merge::And => Ok(self.truth(values.as_boolean(), |old, new| old && new)),
            Merge::Or => Ok(self.truth(values.as_boolean(), |old, new| old || new)),
            Merge::Mean { count } => {
                let moments = self.moments(find_column(all, count)?, values.as_primitive(), None);
                Ok(Arc::new(Float64Array::from_iter(moments.iter().map(|m| (m.count > 0.0).then_some(m.mean)))))
            }
            Merge::SquaredDifferences { count, mean } => {
                let mean = find_column(all, mean)?.as_primitive();
                let moments = self.moments(find_column(all, count)?, mean, Some(values.as_primitive()));
                Ok(Arc::new(Float64Array::from_iter(moments.iter().map(|m| (m.count > 0.0).then_some(m.squared)))))
            }
            Merge::Sketch => self.sketch(values.as_binary(), sketches),
        }
    }

    fn sum(&self, column: &Column, values: &ArrayRef) -> Result<ArrayRef> {
        let overflow =
            || Error::poison(format!("column {}: the sum does not fit its type {}", column.name, column.data_type));
        Ok(match &column.data_type {
            DataType::Int64 => Arc::new(self.fold::<Int64Type>(values, |a, b| a.checked_add(b)).ok_or_else(overflow)?),
            DataType::UInt64 => {
                Arc::new(self.fold::<UInt64Type>(values, |a, b| a.checked_add(b)).ok_or_else(overflow)?)
            }
            DataType::Float64 => Arc::new(self.fold::<Float64Type>(values, |a, b| Some(a + b)).ok_or_else(overflow)?),
            DataType::Float32 => Arc::new(self.fold::<Float32Type>(values, |a, b| Some(a + b)).ok_or_else(overflow)?),
            DataType::Decimal128(precision, scale) => {
                let sums = self.fold::<Decimal128Type>(values, |a, b| a.checked_add(b)).ok_or_else(overflow)?;
                // Judged at the end, so that the order of positive and negative parts does not matter.
                let fits = |sum: i128| Decimal128Type::is_valid_decimal_precision(sum, *precision);
                if !sums.iter().flatten().all(fits) {
                    return Err(overflow());
                }
                let sums = sums
                    .with_precision_and_scale(*precision, *scale)
                    .map_err(|error| Error::stop("internal: decimal type").caused_by(error))?;
                Arc::new(sums)
            }
            other => {
                return Err(Error::stop(format!("internal: column {} of type {other} can't be summed", column.name)));
            }
        })
    }

    fn fold<T: ArrowPrimitiveType>(
        &self,
        values: &ArrayRef,
        add: impl Fn(T::Native, T::Native) -> Option<T::Native>,
    ) -> Option<PrimitiveArray<T>> {
        let mut sums: Vec<Option<T::Native>> = vec![None; self.first.len()];
        for (value, group) in values.as_primitive::<T>().iter().zip(&self.of_row) {
            let sum = &mut sums[*group as usize];
            *sum = match (*sum, value) {
                (Some(a), Some(b)) => Some(add(a, b)?),
                (a, b) => a.or(b),
            };
        }
        Some(PrimitiveArray::from_iter(sums))
    }

    /// The row of each group whose value stands first in the given direction; none where all are null.
    fn best(&self, values: &ArrayRef, wanted: Ordering) -> Result<Vec<Option<u32>>> {
        let encoded = RowConverter::new(vec![SortField::new(values.data_type().clone())])
            .and_then(|converter| converter.convert_columns(&[Arc::clone(values)]))
            .map_err(|error| Error::stop("internal: a state can't be compared").caused_by(error))?;
        let mut best: Vec<Option<u32>> = vec![None; self.first.len()];
        for (row, group) in self.of_row.iter().enumerate().filter(|(row, _)| values.is_valid(*row)) {
            let best = &mut best[*group as usize];
            if best.is_none_or(|held| encoded.row(row).cmp(&encoded.row(held as usize)) == wanted) {
                *best = Some(row as u32);
            }
        }
        Ok(best)
    }

    fn truth(&self, values: &BooleanArray, merge: impl Fn(bool, bool) -> bool) -> ArrayRef {
        let mut truths: Vec<Option<bool>> = vec![None; self.first.len()];
        for (value, group) in values.iter().zip(&self.of_row) {
            let truth = &mut truths[*group as usize];
            *truth = match (*truth, value) {
                (Some(old), Some(new)) => Some(merge(old, new)),
                (old, new) => old.or(new),
            };
        }
        Arc::new(BooleanArray::from(truths))
    }

    fn moments(&self, counts: &ArrayRef, means: &Float64Array, squared: Option<&Float64Array>) -> Vec<Moments> {
        let counts = counts.as_primitive::<Int64Type>();
        let mut merged = vec![Moments::default(); self.first.len()];
        for (row, group) in self.of_row.iter().enumerate() {
            if counts.is_valid(row) && counts.value(row) > 0 && means.is_valid(row) {
                let squared = squared.map_or(0.0, |squared| squared.value(row));
                merged[*group as usize].add(Moments {
                    count: counts.value(row) as f64,
                    mean: means.value(row),
                    squared,
                });
            }
        }
        merged
    }

    fn sketch(&self, values: &BinaryArray, sketches: MergeSketches<'_>) -> Result<ArrayRef> {
        let mut of_group: Vec<Vec<&[u8]>> = vec![Vec::new(); self.first.len()];
        for (value, group) in values.iter().zip(&self.of_row) {
            of_group[*group as usize].extend(value);
        }
        let merged = of_group.iter().map(|group| if group.is_empty() { Ok(None) } else { sketches(group).map(Some) });
        Ok(Arc::new(BinaryArray::from_iter(merged.collect::<Result<Vec<_>>>()?)))
    }
}

fn find_column<'a>(all: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    all.column_by_name(name).ok_or_else(|| Error::stop(format!("internal: there is no state column {name}")))
}

/// Count, mean and squared differences, merged pairwise (Chan, Golub & LeVeque 1979).
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squared: f64,
}

impl Moments {
    fn add(&mut self, other: Self) {
        if self.count == 0.0 {
            *self = other;
            return;
        }
        let count = self.count + other.count;
        let delta = other.mean - self.mean;
        // Where the square of a difference would overflow or come to nothing, in every store alike.
        let between = match delta.abs() {
            near if near < 1e-140 => 0.0,
            far if far > 1e140 => f64::INFINITY,
            _ => delta * delta * self.count * other.count / count,
        };
        self.squared += other.squared + between;
        self.mean += delta * other.count / count;
        self.count = count;
    }
}

/// For tables without sketches.
///
/// # Errors
/// `Stop`, always: nothing should call it.
pub fn no_sketches(_: &[&[u8]]) -> Result<Vec<u8>> {
    Err(Error::stop("internal: this table has no sketches"))
}
