use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{
        Array as _, ArrayRef, BooleanArray, Decimal128Array, Int32Array, Int64Array, StringArray,
        TimestampMicrosecondArray, UInt32Array, new_null_array,
    },
    compute::take,
    datatypes::{DataType, FieldRef},
};
use millstream_core::{Error, Result};
use millstream_pipeline::Generator;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value as Json;

/// The key of a record, if it has one.
pub(crate) type Key = Option<Vec<u8>>;

/// Makes the column of one field, a portion at a time.
#[derive(Debug)]
pub(crate) struct Maker {
    field: FieldRef,
    how: How,
    rng: StdRng,
}

#[derive(Debug)]
enum How {
    Null,
    /// One of these, at random.
    OneOf(ArrayRef),
    /// Each of these, in turn.
    Each(ArrayRef),
    /// Uniform over integers.
    Integer {
        min: i64,
        max: i64,
    },
    /// Uniform over the units of a decimal's scale.
    Decimal {
        min: i128,
        max: i128,
    },
    Walk {
        start: i128,
        step: i128,
        min: i128,
        max: i128,
        at: HashMap<Vec<u8>, i128>,
    },
    Now,
    Sequence {
        made: i64,
    },
}

impl Maker {
    /// For a field made by `generator`; without one it is null. `in_turn` is for the field of `for_each`.
    pub(crate) fn new(field: FieldRef, generator: Option<&Generator>, in_turn: bool, seed: u64) -> Result<Self> {
        let how = match generator {
            None => How::Null,
            Some(Generator::OneOf(values)) if in_turn => How::Each(choices(values, &field)?),
            Some(Generator::OneOf(values)) => How::OneOf(choices(values, &field)?),
            Some(Generator::Text(text)) => How::Each(choices(&[Json::from(text.as_str())], &field)?),
            Some(Generator::Integer { min, max }) => How::Integer { min: *min, max: *max },
            Some(Generator::Decimal { min, max, .. }) => How::Decimal { min: *min, max: *max },
            Some(Generator::Walk { start, step, min, .. }) => {
                let max = match field.data_type() {
                    DataType::Decimal128(precision, _) => 10_i128.pow(u32::from(*precision)) - 1,
                    _ => i128::from(i64::MAX),
                };
                How::Walk { start: *start, step: *step, min: *min, max, at: HashMap::new() }
            }
            Some(Generator::Now) => How::Now,
            Some(Generator::Sequence) => How::Sequence { made: 0 },
        };
        Ok(Self { field, how, rng: StdRng::seed_from_u64(seed) })
    }

    /// For tests: goes to the end of a sequence.
    #[cfg(test)]
    pub(crate) fn skip_to(&mut self, number: i64) {
        self.how = How::Sequence { made: number };
    }

    /// The next `rows` values. `keys` are the keys of the same rows; empty when records have no key.
    pub(crate) fn column(&mut self, rows: usize, now_us: i64, keys: &[Key]) -> Result<ArrayRef> {
        let (rng, data_type) = (&mut self.rng, self.field.data_type());
        let misfit =
            |error| Error::stop(format!("internal: `{}` can't be generated", self.field.name())).caused_by(error);
        let decimals =
            |units: Vec<i128>| Arc::new(Decimal128Array::from(units).with_data_type(data_type.clone())) as ArrayRef;
        Ok(match &mut self.how {
            How::Null => new_null_array(data_type, rows),
            How::OneOf(values) => {
                let picks: UInt32Array = (0..rows).map(|_| Some(rng.random_range(0..values.len() as u32))).collect();
                take(values, &picks, None).map_err(misfit)?
            }
            // A portion is a whole number of turns, so every portion begins with the first value.
            How::Each(values) => {
                let picks: UInt32Array = (0..values.len() as u32).cycle().take(rows).map(Some).collect();
                take(values, &picks, None).map_err(misfit)?
            }
            How::Integer { min, max } => integers((0..rows).map(|_| rng.random_range(*min..=*max)), &self.field)?,
            How::Decimal { min, max } => decimals((0..rows).map(|_| uniform(rng, *min, *max)).collect()),
            How::Walk { start, step, min, max, at } => {
                let mut next = |row: usize| {
                    let key = keys.get(row).and_then(Option::as_deref).unwrap_or_default();
                    match at.get_mut(key) {
                        Some(value) => {
                            let change = uniform(rng, -*step, *step);
                            *value = value.saturating_add(change).clamp(*min, *max);
                            *value
                        }
                        None => *at.entry(key.to_vec()).or_insert(*start),
                    }
                };
                decimals((0..rows).map(&mut next).collect())
            }
            How::Now => {
                let times = TimestampMicrosecondArray::from_value(now_us, rows).with_data_type(data_type.clone());
                Arc::new(times)
            }
            How::Sequence { made } => {
                let first = *made + 1;
                *made += rows as i64;
                integers(first..=*made, &self.field)?
            }
        })
    }
}

/// Uniform in `min..=max`. Nearly all decimals fit into 64 bits, for which this is several times as fast.
fn uniform(rng: &mut StdRng, min: i128, max: i128) -> i128 {
    match (i64::try_from(min), i64::try_from(max)) {
        (Ok(min), Ok(max)) => rng.random_range(min..=max).into(),
        _ => rng.random_range(min..=max),
    }
}

fn integers(values: impl Iterator<Item = i64>, field: &FieldRef) -> Result<ArrayRef> {
    if field.data_type() == &DataType::Int64 {
        return Ok(Arc::new(Int64Array::from_iter_values(values)));
    }
    let narrow = values.map(i32::try_from).collect::<Result<Vec<_>, _>>().map_err(|_| {
        let name = field.name();
        Error::stop(format!("`{name}` has no numbers left: an int ends at {}; make `{name}` a bigint", i32::MAX))
    })?;
    Ok(Arc::new(Int32Array::from(narrow)))
}

/// The values of `one_of`, as the field's type has them.
fn choices(values: &[Json], field: &FieldRef) -> Result<ArrayRef> {
    let array: Option<ArrayRef> = match field.data_type() {
        DataType::Utf8 => values
            .iter()
            .map(Json::as_str)
            .collect::<Option<Vec<_>>>()
            .map(|texts| Arc::new(StringArray::from(texts)) as _),
        DataType::Boolean => values
            .iter()
            .map(Json::as_bool)
            .collect::<Option<Vec<_>>>()
            .map(|bools| Arc::new(BooleanArray::from(bools)) as _),
        DataType::Int32 | DataType::Int64 => {
            let numbers = values.iter().map(Json::as_i64).collect::<Option<Vec<_>>>();
            numbers.map(|numbers| integers(numbers.into_iter(), field)).transpose()?
        }
        _ => None,
    };
    array
        .filter(|values| !values.is_empty())
        .ok_or_else(|| Error::stop(format!("internal: `{}` can't be made of the values given for it", field.name())))
}
