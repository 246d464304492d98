//! The columns of stored and expected rows, side by side.

use arrow::{
    array::{Array, AsArray, DynComparator, Float64Array, RecordBatch, make_comparator},
    compute::SortOptions,
    datatypes::DataType,
};
use millstream_core::{Merge, Result, Role, Table};

use super::{
    encoder::internal,
    floats::{Moments, is_close},
};

/// The result of comparing two rows.
pub(super) enum Verdict {
    Equal,
    /// They differ only in floats that were computed from several records.
    Doubtful,
    Differs,
}

/// The non-key columns of stored and expected rows, side by side.
pub(super) struct Cells {
    exact: Vec<DynComparator>,
    floats: Vec<Floating>,
}

impl Cells {
    pub(super) fn new(table: &Table, stored: &RecordBatch, expected_rows: &RecordBatch) -> Result<Self> {
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

    /// Compares a stored row with an expected one. `noise`: how much the order of the records changes a column.
    pub(super) fn judge(&self, stored: usize, expected: usize, noise: impl Fn(usize) -> f64) -> Verdict {
        if self.exact.iter().any(|column| column(stored, expected).is_ne()) {
            return Verdict::Differs;
        }
        let mut verdict = Verdict::Equal;
        for Floating { at, stored: a, expected: b, moments } in &self.floats {
            let allowed = || moments.as_ref().map_or(0.0, |moments| moments.rounding(expected)).max(noise(*at));
            match (a.is_valid(stored), b.is_valid(expected)) {
                (true, true) if is_close(a.value(stored), b.value(expected), allowed()) => {}
                (true, true) => verdict = Verdict::Doubtful,
                (false, false) => {}
                _ => return Verdict::Differs,
            }
        }
        verdict
    }
}

/// A column of floats that were computed from several records.
struct Floating {
    at: usize,
    stored: Float64Array,
    expected: Float64Array,
    moments: Option<Moments>,
}
