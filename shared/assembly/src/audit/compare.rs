//! Compares two sides, part by part.

use std::{cmp::Ordering, collections::HashMap};

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
    /// Rows of one key that differ, once on each side; in the columns at these places by no more than rounding.
    Both(RecordBatch, RecordBatch, Vec<usize>),
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

/// Rows of one key.
#[derive(Default)]
struct Group {
    /// Those that have not met their equals.
    first: Vec<Value>,
    second: Vec<Value>,
    /// How many there are on each side.
    rows: (u64, u64),
}

impl Group {
    /// Have all rows met their equals?
    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.second.is_empty()
    }
}

/// A row without its key.
#[derive(PartialEq)]
struct Value {
    exact: Box<[u8]>,
    numbers: Vec<Number>,
    times: u64,
}

impl Value {
    fn is_like(&self, other: &Self) -> bool {
        self.exact == other.exact && self.numbers == other.numbers
    }

    fn is_close_to(&self, other: &Self) -> bool {
        self.exact == other.exact && self.numbers.iter().zip(&other.numbers).all(|(a, b)| are_close(a, b, 0.0))
    }

    /// By what must be equal, then by the numbers.
    fn order(&self, other: &Self) -> Ordering {
        let numbers = self.numbers.iter().zip(&other.numbers);
        let by_number = |(a, b): (&Number, &Number)| match (a.value, b.value) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        };
        self.exact
            .cmp(&other.exact)
            .then_with(|| numbers.map(by_number).find(|order| order.is_ne()).unwrap_or(Ordering::Equal))
    }
}

impl Groups {
    fn add_first(&mut self, Encoded { key, exact, numbers }: Encoded) {
        let group = self.of.entry(key).or_default();
        group.rows.0 += 1;
        add(&mut group.first, Value { exact, numbers, times: 1 });
    }

    fn meet(&mut self, Encoded { key, exact, numbers }: Encoded) {
        let value = Value { exact, numbers, times: 1 };
        let group = self.of.entry(key).or_default();
        group.rows.1 += 1;
        // Most keys have one row on each side; several rows wait until all are known.
        match group.first.as_mut_slice() {
            [own] if group.rows.0 == 1 && group.rows.1 == 1 && own.is_close_to(&value) => group.first.clear(),
            [own] if own.is_like(&value) && own.times > 1 => own.times -= 1,
            [own] if own.is_like(&value) => group.first.clear(),
            _ => add(&mut group.second, value),
        }
    }

    fn finish(
        self,
        side: &Side,
        doubts: bool,
        doubtful: &mut Vec<Doubtful>,
        found: &mut dyn FnMut(Unequal) -> Result<()>,
    ) -> Result<()> {
        // Differences come in the same order each time.
        let mut left: Vec<_> = self.of.into_iter().filter(|(_, group)| !group.is_empty()).collect();
        left.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (key, Group { first, second, rows }) in left {
            let (mut first, mut second) = pair(first, second);
            let row = |value: Value| Encoded { key: key.clone(), exact: value.exact, numbers: value.numbers };
            let is_single = |rows: &[Value]| rows.len() == 1 && rows[0].times == 1;
            if is_single(&first)
                && is_single(&second)
                && let (Some(a), Some(b)) = (first.pop(), second.pop())
            {
                // A row can be found again only if its key names it alone.
                let is_doubtful = doubts && rows == (1, 1) && a.exact == b.exact && doubtful.len() < MAX_DOUBTFUL;
                let (first, second) = (row(a), row(b));
                if is_doubtful {
                    doubtful.push(Doubtful { first, second });
                } else {
                    found(side.unequal(&first, &second)?)?;
                }
                continue;
            }
            for value in first {
                let times = value.times;
                found(Unequal::First(side.encoder.decode(&row(value))?, times))?;
            }
            for value in second {
                let times = value.times;
                found(Unequal::Second(side.encoder.decode(&row(value))?, times))?;
            }
        }
        Ok(())
    }
}

/// Takes away the rows of one key that are equal: first those that are exactly equal, then neighbours that are close.
fn pair(first: Vec<Value>, second: Vec<Value>) -> (Vec<Value>, Vec<Value>) {
    if first.is_empty() || second.is_empty() {
        return (first, second);
    }
    let (first, second) = walk(first, second, Value::is_like);
    walk(first, second, Value::is_close_to)
}

/// Walks both sides in their order and takes away neighbours that are equal.
fn walk(
    mut first: Vec<Value>,
    mut second: Vec<Value>,
    equal: impl Fn(&Value, &Value) -> bool,
) -> (Vec<Value>, Vec<Value>) {
    first.sort_by(Value::order);
    second.sort_by(Value::order);
    let (mut first, mut second) = (first.into_iter().peekable(), second.into_iter().peekable());
    let (mut left, mut right) = (Vec::new(), Vec::new());
    while let (Some(a), Some(b)) = (first.peek_mut(), second.peek_mut()) {
        if equal(a, b) {
            let times = a.times.min(b.times);
            (a.times, b.times) = (a.times - times, b.times - times);
            drop(first.next_if(|a| a.times == 0));
            drop(second.next_if(|b| b.times == 0));
        } else if a.order(b).is_lt() {
            left.extend(first.next());
        } else {
            right.extend(second.next());
        }
    }
    left.extend(first);
    right.extend(second);
    (left, right)
}

impl Side {
    /// Two rows that differ: of one key, if the table has keys.
    pub(super) fn unequal(&self, first: &Encoded, second: &Encoded) -> Result<Unequal> {
        let numbers = self.encoder.rounded.iter().zip(first.numbers.iter().zip(&second.numbers));
        let close = numbers.filter(|(_, (a, b))| are_close(a, b, 0.0)).map(|(at, _)| *at).collect();
        Ok(Unequal::Both(self.encoder.decode(first)?, self.encoder.decode(second)?, close))
    }
}

/// Rows that are like the one before them are counted.
fn add(rows: &mut Vec<Value>, value: Value) {
    match rows.last_mut() {
        Some(last) if last.is_like(&value) => last.times += 1,
        _ => rows.push(value),
    }
}

/// Are these numbers equal, except for the order of their computation? `noise` is the change that another order has made.
pub(super) fn are_close(a: &Number, b: &Number, noise: f64) -> bool {
    match (a.value, b.value) {
        (Some(x), Some(y)) => {
            let rounding = a.rounding.zip(b.rounding).map(|(a, b)| a.max(b));
            is_close(x, y, noise, rounding.or(a.rounding).or(b.rounding))
        }
        (None, None) => true,
        _ => false,
    }
}
