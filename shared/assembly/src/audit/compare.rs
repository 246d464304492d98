//! Compares two sides, part by part.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use millstream_core::Result;

use super::{
    encoder::{Encoded, Number},
    floats::is_close,
    side::{PARTS, Side},
};

/// How many rows are kept whose difference the order of records may explain. Where there are more, something else is wrong.
const MAX_DOUBTFUL: usize = 10_000;

/// Rows that are not on both sides, each as a batch of one row.
pub(crate) enum Unequal {
    /// On the first side only, so many times.
    First(RecordBatch, u64),
    /// On the second side only, so many times.
    Second(RecordBatch, u64),
    /// Rows of one key that differ, once on each side.
    Both(RecordBatch, RecordBatch),
}

/// Two rows that differ only in numbers that may be rounded.
pub(crate) struct Doubtful {
    pub(super) first: Encoded,
    pub(super) second: Encoded,
}

/// Compares the sides and gives what is unequal to `found`. Returns the rows that only another order of the records can
/// decide; without `doubts` they are unequal.
///
/// # Errors
/// Those of `found`, and `Stop` when a temporary file can't be read.
pub(crate) fn compare(
    first: &mut Side,
    second: &mut Side,
    doubts: bool,
    found: &mut dyn FnMut(Unequal) -> Result<()>,
) -> Result<Vec<Doubtful>> {
    let mut doubtful = Vec::new();
    for part in 0..PARTS {
        let mut groups = Groups::default();
        first.read(part, &mut |row| {
            groups.add_first(row);
            Ok(())
        })?;
        second.read(part, &mut |row| {
            groups.meet(row);
            Ok(())
        })?;
        groups.finish(first, doubts, &mut doubtful, found)?;
    }
    Ok(doubtful)
}

/// The rows of a part by their keys.
#[derive(Default)]
struct Groups {
    of: HashMap<Box<[u8]>, Group>,
}

/// Rows of one key that have not met their equals.
#[derive(Default)]
struct Group {
    first: Vec<(Value, u64)>,
    second: Vec<(Value, u64)>,
}

/// A row without its key.
#[derive(PartialEq)]
struct Value {
    exact: Box<[u8]>,
    numbers: Vec<Number>,
}

impl Groups {
    fn add_first(&mut self, Encoded { key, exact, numbers }: Encoded) {
        add(&mut self.of.entry(key).or_default().first, Value { exact, numbers });
    }

    fn meet(&mut self, Encoded { key, exact, numbers }: Encoded) {
        let value = Value { exact, numbers };
        let group = self.of.entry(key).or_default();
        let equal = |(other, _): &(Value, u64)| {
            other.exact == value.exact && other.numbers.iter().zip(&value.numbers).all(|(a, b)| are_close(a, b, 0.0))
        };
        match group.first.iter().position(equal) {
            None => add(&mut group.second, value),
            Some(at) if group.first[at].1 > 1 => group.first[at].1 -= 1,
            Some(at) => drop(group.first.swap_remove(at)),
        }
    }

    fn finish(
        self,
        side: &Side,
        doubts: bool,
        doubtful: &mut Vec<Doubtful>,
        found: &mut dyn FnMut(Unequal) -> Result<()>,
    ) -> Result<()> {
        for (key, Group { mut first, mut second }) in self.of {
            let row = |value: Value| Encoded { key: key.clone(), exact: value.exact, numbers: value.numbers };
            let is_single = |rows: &[(Value, u64)]| rows.len() == 1 && rows[0].1 == 1;
            if is_single(&first)
                && is_single(&second)
                && let (Some((a, _)), Some((b, _))) = (first.pop(), second.pop())
            {
                let is_doubtful = doubts && a.exact == b.exact && doubtful.len() < MAX_DOUBTFUL;
                let (first, second) = (row(a), row(b));
                if is_doubtful {
                    doubtful.push(Doubtful { first, second });
                } else {
                    found(side.unequal(&first, &second)?)?;
                }
                continue;
            }
            for (value, times) in first {
                found(Unequal::First(side.encoder.decode(&row(value))?, times))?;
            }
            for (value, times) in second {
                found(Unequal::Second(side.encoder.decode(&row(value))?, times))?;
            }
        }
        Ok(())
    }
}

impl Side {
    /// Two rows that differ: of one key, if the table has keys.
    pub(super) fn unequal(&self, first: &Encoded, second: &Encoded) -> Result<Unequal> {
        Ok(Unequal::Both(self.encoder.decode(first)?, self.encoder.decode(second)?))
    }
}

fn add(rows: &mut Vec<(Value, u64)>, value: Value) {
    match rows.iter_mut().find(|(other, _)| *other == value) {
        Some((_, times)) => *times += 1,
        None => rows.push((value, 1)),
    }
}

/// Are these numbers equal, except for the order of their computation? `noise` is the change that another order has made.
pub(super) fn are_close(a: &Number, b: &Number, noise: f64) -> bool {
    match (a.value, b.value) {
        (Some(x), Some(y)) => is_close(x, y, noise, a.rounding.max(b.rounding)),
        (None, None) => true,
        _ => false,
    }
}
