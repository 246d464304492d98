use std::collections::BTreeMap;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder,
        RecordBatch, UInt64Array, make_comparator,
    },
    compute::{SortOptions, concat_batches, take},
    datatypes::{DataType, Decimal128Type, Float64Type, Int64Type},
    row::{RowConverter, SortField},
};
use async_trait::async_trait;
use millstream_core::{Column, Combine, Error, Merge, Result, Role};
use std::{cmp::Ordering, sync::Arc};

/// A [`Combine`] without DataFusion: merges rows by the roles of the columns, and finishes nothing (the rows are the
/// result). Sums take Int64, Float64 and Decimal128; a sketch is a set of byte values that merges by union.
#[derive(Clone, Debug)]
pub struct TestCombine {
    columns: Vec<Column>,
}

impl TestCombine {
    /// Merges rows that have these columns.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec() }
    }

    fn position(&self, name: &str) -> usize {
        self.columns.iter().position(|column| column.name == name).expect("a merge rule names a column of the table")
    }

    /// The rows of each key, in key order.
    fn groups(&self, rows: &RecordBatch) -> Vec<Vec<usize>> {
        let keys: Vec<_> = (0..self.columns.len()).filter(|at| self.columns[*at].role == Role::Key).collect();
        if keys.is_empty() {
            let all: Vec<_> = (0..rows.num_rows()).collect();
            return if all.is_empty() { Vec::new() } else { vec![all] };
        }
        let fields = keys.iter().map(|at| SortField::new(self.columns[*at].data_type.clone())).collect();
        let converter = RowConverter::new(fields).expect("keys have an order");
        let columns: Vec<_> = keys.iter().map(|at| rows.column(*at).clone()).collect();
        let converted = converter.convert_columns(&columns).expect("rows have the table's columns");
        let mut groups = BTreeMap::<_, Vec<usize>>::new();
        for (index, key) in converted.iter().enumerate() {
            groups.entry(key.owned()).or_default().push(index);
        }
        groups.into_values().collect()
    }

    fn merge(&self, merge: &Merge, column: &ArrayRef, rows: &RecordBatch, groups: &[Vec<usize>]) -> Result<ArrayRef> {
        let named = |name: &str| rows.column(self.position(name));
        Ok(match merge {
            Merge::Sum => return sums(column, groups),
            Merge::Min => chosen(column, column, Ordering::Less, groups),
            Merge::Max => chosen(column, column, Ordering::Greater, groups),
            Merge::First { order } => chosen(column, named(order), Ordering::Less, groups),
            Merge::Last { order } => chosen(column, named(order), Ordering::Greater, groups),
            Merge::And => booleans(column, groups, |old, new| old && new),
            Merge::Or => booleans(column, groups, |old, new| old || new),
            Merge::Mean { count } => floats(groups, |group| Some(moments(group, named(count), column, None)?.1)),
            Merge::SquaredDifferences { count, mean } => {
                floats(groups, |group| Some(moments(group, named(count), named(mean), Some(column))?.2))
            }
            Merge::Sketch => unions(column, groups),
        })
    }
}

#[async_trait]
impl Combine for TestCombine {
    async fn combine(&self, rows: &[RecordBatch]) -> Result<RecordBatch> {
        let schema =
            millstream_core::Table { name: String::new(), columns: self.columns.clone(), combine: None, view: None }
                .schema();
        let rows = concat_batches(&schema, rows).expect("rows have the table's columns");
        let groups = self.groups(&rows);
        let firsts = UInt64Array::from_iter_values(groups.iter().map(|group| group[0] as u64));
        let mut columns = Vec::with_capacity(self.columns.len());
        for (column, values) in self.columns.iter().zip(rows.columns()) {
            columns.push(match &column.role {
                Role::State(merge) => self
                    .merge(merge, values, &rows, &groups)
                    .map_err(|error| error.context(format!("column {}", column.name)))?,
                Role::Key | Role::Value => take(values, &firsts, None).expect("indices are in bounds"),
            });
        }
        Ok(RecordBatch::try_new(schema, columns).expect("a merged column keeps its type"))
    }

    async fn finish(&self, rows: &RecordBatch) -> Result<(RecordBatch, Vec<usize>)> {
        Ok((rows.clone(), (0..rows.num_rows()).collect()))
    }
}

fn sums(column: &ArrayRef, groups: &[Vec<usize>]) -> Result<ArrayRef> {
    let overflow = || Error::poison("a sum overflows its type");
    match column.data_type() {
        DataType::Int64 => {
            let mut sums = Int64Builder::new();
            let states = column.as_primitive::<Int64Type>();
            for group in groups {
                let mut total = None;
                for state in group.iter().filter(|row| states.is_valid(**row)).map(|row| states.value(*row)) {
                    total = Some(total.unwrap_or(0i64).checked_add(state).ok_or_else(overflow)?);
                }
                sums.append_option(total);
            }
            Ok(Arc::new(sums.finish()))
        }
        DataType::Decimal128(precision, scale) => {
            let mut sums = Decimal128Builder::new()
                .with_precision_and_scale(*precision, *scale)
                .expect("the column has this type already");
            let limit = 10i128.pow(u32::from(*precision));
            let states = column.as_primitive::<Decimal128Type>();
            for group in groups {
                let mut total = None;
                for state in group.iter().filter(|row| states.is_valid(**row)).map(|row| states.value(*row)) {
                    let sum = total.unwrap_or(0i128).checked_add(state).ok_or_else(overflow)?;
                    total = Some(sum);
                }
                if total.is_some_and(|total: i128| total.abs() >= limit) {
                    return Err(overflow());
                }
                sums.append_option(total);
            }
            Ok(Arc::new(sums.finish()))
        }
        DataType::Float64 => {
            let states = column.as_primitive::<Float64Type>();
            Ok(floats(groups, |group| {
                group.iter().filter(|row| states.is_valid(**row)).map(|row| states.value(*row)).reduce(|a, b| a + b)
            }))
        }
        other => panic!("TestCombine sums Int64, Float64 and Decimal128, not {other}"),
    }
}

/// Per group the value of the row whose `order` is the smallest (`Less`) or largest; a row without order is no state.
fn chosen(column: &ArrayRef, order: &ArrayRef, wanted: Ordering, groups: &[Vec<usize>]) -> ArrayRef {
    let compare =
        make_comparator(order.as_ref(), order.as_ref(), SortOptions::default()).expect("states have an order");
    let winners = groups.iter().map(|group| {
        let states = group.iter().copied().filter(|row| order.is_valid(*row));
        states.reduce(|best, row| if compare(row, best) == wanted { row } else { best }).map(|row| row as u64)
    });
    take(column, &winners.collect::<UInt64Array>(), None).expect("indices are in bounds")
}

fn booleans(column: &ArrayRef, groups: &[Vec<usize>], merge: fn(bool, bool) -> bool) -> ArrayRef {
    let states = column.as_boolean();
    let mut merged = BooleanBuilder::new();
    for group in groups {
        let valid = group.iter().filter(|row| states.is_valid(**row)).map(|row| states.value(*row));
        merged.append_option(valid.reduce(merge));
    }
    Arc::new(merged.finish())
}

fn floats(groups: &[Vec<usize>], merge: impl Fn(&[usize]) -> Option<f64>) -> ArrayRef {
    let mut merged = Float64Builder::new();
    for group in groups {
        merged.append_option(merge(group));
    }
    Arc::new(merged.finish())
}

/// Count, mean and squared differences of a group (Chan, Golub & LeVeque 1979, for any number of parts).
fn moments(group: &[usize], count: &ArrayRef, mean: &ArrayRef, squares: Option<&ArrayRef>) -> Option<(f64, f64, f64)> {
    let counts = count.as_primitive::<Int64Type>();
    let means = mean.as_primitive::<Float64Type>();
    let squares = squares.map(|squares| squares.as_primitive::<Float64Type>());
    let parts: Vec<_> = group
        .iter()
        .filter(|row| counts.is_valid(**row) && counts.value(**row) > 0 && means.is_valid(**row))
        .map(|row| (counts.value(*row) as f64, means.value(*row), squares.map_or(0.0, |squares| squares.value(*row))))
        .collect();
    let count: f64 = parts.iter().map(|part| part.0).sum();
    if parts.is_empty() {
        return None;
    }
    let mean = parts.iter().map(|(count, mean, _)| count * mean).sum::<f64>() / count;
    let squares = parts.iter().map(|(count, part, squares)| squares + count * (part - mean).powi(2)).sum();
    Some((count, mean, squares))
}

fn unions(column: &ArrayRef, groups: &[Vec<usize>]) -> ArrayRef {
    let sketches = column.as_binary::<i32>();
    let mut merged = BinaryBuilder::new();
    for group in groups {
        let valid: Vec<_> = group.iter().filter(|row| sketches.is_valid(**row)).collect();
        let union = valid.iter().flat_map(|row| sketches.value(**row)).copied();
        let union: Vec<u8> = std::collections::BTreeSet::from_iter(union).into_iter().collect();
        merged.append_option((!valid.is_empty()).then_some(union));
    }
    Arc::new(merged.finish())
}
