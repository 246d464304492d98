//! Rows of a table with values that are not of their columns' types: another program has written them.

use std::collections::BTreeMap;

use millstream_core::{OddRow, Result};
use millstream_sql::{Precision, WholeColumn};

use super::{report::Difference, side::Side};
use crate::rows::{Line, shown_with};

/// The rows that can't be read, by their keys.
#[derive(Default)]
pub(super) struct OddRows {
    by_key: BTreeMap<String, Vec<Line>>,
    /// Rows whose key can't be read, and those of tables without keys.
    others: Vec<Line>,
}

impl OddRows {
    /// Those of a side.
    pub(super) fn of(columns: &[WholeColumn], side: &Side) -> Result<Self> {
        let mut rows = Self::default();
        for OddRow { row, unreadable } in &side.odd {
            let line = shown_with(columns, row, 0, unreadable)?;
            let is_key = |(at, _): &(usize, String)| columns[*at].precision == Precision::Key;
            if line.key.is_empty() || unreadable.iter().any(is_key) {
                rows.others.push(line);
            } else {
                rows.by_key.entry(line.key.clone()).or_default().push(line);
            }
        }
        Ok(rows)
    }

    /// The difference of a row that the log gives, if the sink's row of its key can't be read.
    pub(super) fn meet(&mut self, expected: &Line) -> Option<Difference> {
        let own = self.by_key.get_mut(&expected.key)?.pop()?;
        let (stored, expected_values) = own.differing(expected, &[]);
        Some(Difference::Differs { key: own.key, stored, expected: expected_values })
    }

    /// Is there one of this key?
    pub(super) fn has(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// The others.
    pub(super) fn rest(self) -> impl Iterator<Item = Difference> {
        let lines = self.by_key.into_values().flatten().chain(self.others);
        lines.map(|line| Difference::Unexpected(line.all()))
    }
}
