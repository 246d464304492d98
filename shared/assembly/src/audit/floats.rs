//! How much floats that several records make up may differ.

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type},
};
use millstream_core::{Merge, Role, Table};

/// The allowed relative difference of floats: the last digits of sums and means depend on the order of their parts.
const FLOAT_TOLERANCE: f64 = 1e-9;

/// The allowed multiple of the change that another order of the same records makes.
const NOISE_FACTOR: f64 = 4.0;

/// Are these floats equal, except for the order of their computation? `noise` is the change that another order has
/// made.
pub(super) fn is_close(a: f64, b: f64, noise: f64) -> bool {
    let difference = (a - b).abs();
    let within = |bound: f64| difference.is_finite() && bound.is_finite() && difference <= bound;
    a == b
        || (a.is_nan() && b.is_nan())
        || within(FLOAT_TOLERANCE * a.abs().max(b.abs()))
        || within(NOISE_FACTOR * noise)
}

/// The states of a mean or of squared differences: their rounding depends on the size of the values, however near to
/// zero the result is.
pub(super) struct Moments {
    count: ArrayRef,
    mean: Float64Array,
    squared: Float64Array,
    is_mean: bool,
}

impl Moments {
    /// The states of the mean or the squared differences in column `at`.
    pub(super) fn of(table: &Table, at: usize, rows: &RecordBatch) -> Option<Self> {
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
        let find = |name: &str| table.columns.iter().position(|column| column.name == name);
        let count = cast(rows.column(find(count)?), &DataType::Float64).ok()?;
        Some(Self { count, mean: floats(find(name)?)?, squared: floats(squared)?, is_mean })
    }

    /// About how much rounding may have changed the result of `row` ([`NOISE_FACTOR`] times as much is allowed).
    ///
    /// A mean is rounded with each of the n values, in proportion to the largest one (at most |mean| + √m2), and never
    /// by more than 1e-9 of their usual size r = |mean| + √(m2 / n). The squared values are differences d from the
    /// mean: if each is off by e = √n · ε · r, the sum of their squares is off by at most 2 · e · √(n · m2) + n · e².
    pub(super) fn rounding(&self, row: usize) -> f64 {
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

/// The value of a column of doubles; `None` for a null.
pub(super) fn float(column: &ArrayRef, row: usize) -> Option<f64> {
    let column = column.as_primitive_opt::<Float64Type>()?;
    column.is_valid(row).then(|| column.value(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinities_are_close_to_themselves_only() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        for (a, b) in [(inf, inf), (-inf, -inf), (nan, nan), (0.0, -0.0), (1.0, 1.0 + 1e-12)] {
            assert!(is_close(a, b, 0.0), "{a} {b}");
        }
        for (a, b) in [(inf, 1.0), (inf, -inf), (nan, 1.0), (f64::MAX, -f64::MAX), (1.0, 1.1)] {
            for noise in [0.0, inf, nan] {
                assert!(!is_close(a, b, noise) && !is_close(b, a, noise), "{a} {b} {noise}");
            }
        }
    }
}
