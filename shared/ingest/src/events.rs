use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::SchemaRef,
};
use millstream_codec::{JsonEncoder, Keys};
use millstream_core::{Encode as _, Error, NewRecord, Result};
use millstream_pipeline::{Generator, Making, Topic};

use crate::maker::{Key, Maker};

/// The most walks that one field may have: one for each value of the key, about 100 bytes each.
const MAX_WALKS: i128 = 1_000_000;

/// Makes records of a topic from its `generate:` description. Only the time and the seed come from outside: the same seed
/// makes the same values, whatever portions they are asked for in.
#[derive(Debug)]
pub struct Events {
    schema: SchemaRef,
    makers: Vec<Maker>,
    encoder: JsonEncoder,
    /// The index of the key's field, and how its values are written.
    key: Option<(usize, Keys)>,
    per_turn: usize,
}

impl Events {
    /// The events that a function makes for `topic`.
    ///
    /// # Errors
    /// `Stop` when the function has no `generate`, or when a `walk` would have more than a million walks because its key takes too many values.
    pub fn new(topic: &Topic, making: &Making, seed: u64) -> Result<Self> {
        let generate = making.generate().ok_or_else(|| Error::stop("the function makes no records up"))?;
        let generator = |name: &str| generate.fields.iter().find(|(field, _)| field == name).map(|(_, made)| made);
        let mut makers = Vec::new();
        for (at, field) in topic.schema.fields().iter().enumerate() {
            let in_turn = generate.for_each.as_ref() == Some(field.name());
            // Every field has random numbers of its own, so that its values don't depend on the portions asked for.
            let seed = seed.wrapping_add((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            makers.push(Maker::new(field.clone(), generator(field.name()), in_turn, seed)?);
        }
        let key = making.key.as_ref().map(|name| {
            let at = topic.schema.index_of(name);
            let at = at.map_err(|_| Error::stop(format!("the key `{name}` is not a field of the topic")))?;
            Ok::<_, Error>((at, Keys::new(topic.schema.field(at))?))
        });
        let walks = generate.fields.iter().find(|(_, made)| matches!(made, Generator::Walk { .. }));
        if let (Some((walk, _)), Some(key)) = (walks, &making.key) {
            check_walks(walk, key, generator(key))?;
        }
        let per_turn = match generate.for_each.as_deref().and_then(generator) {
            Some(Generator::OneOf(values)) => values.len(),
            _ => 1,
        };
        let encoder = JsonEncoder::new(topic.schema.clone())?;
        Ok(Self { schema: topic.schema.clone(), makers, encoder, key: key.transpose()?, per_turn })
    }

    /// How many records a turn has: with `for_each` one for each of its values, else 1.
    pub fn records_per_turn(&self) -> usize {
        self.per_turn
    }

    /// The records of the next `turns`, all made at `now_us` (microseconds since 1970), which is their timestamp too.
    ///
    /// # Errors
    /// `Stop` when a `sequence` has used up the numbers of its type; `Poison` for a time beyond the year 9999.
    pub fn next(&mut self, turns: usize, now_us: i64) -> Result<Vec<NewRecord>> {
        let rows = turns * self.per_turn;
        let (columns, keys) = self.columns(rows, now_us)?;
        let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(|error| {
            Error::stop("internal: generated columns don't fit the topic's schema").caused_by(error)
        })?;
        let mut keys = keys.into_iter();
        let record = |value| NewRecord {
            key: keys.next().flatten(),
            value: Some(value),
            timestamp_ms: Some(now_us.div_euclid(1_000)),
            ..NewRecord::default()
        };
        Ok(self.encoder.encode(&rows)?.into_iter().map(record).collect())
    }

    /// The columns and the records' keys. The key's column is made first, because walks need it.
    fn columns(&mut self, rows: usize, now_us: i64) -> Result<(Vec<ArrayRef>, Vec<Key>)> {
        let mut made = None;
        let mut texts = Vec::new();
        if let Some((at, keys)) = &self.key {
            let column = self.makers[*at].column(rows, now_us, &[])?;
            texts = keys.texts(&column)?;
            made = Some((*at, column));
        }
        let column = |(at, maker): (usize, &mut Maker)| match &made {
            Some((key, column)) if *key == at => Ok(column.clone()),
            _ => maker.column(rows, now_us, &texts),
        };
        let columns = self.makers.iter_mut().enumerate().map(column).collect::<Result<_>>()?;
        Ok((columns, texts))
    }
}

/// A walk keeps its value for every value of the key, so there must be a limit to those.
fn check_walks(walk: &str, key: &str, made: Option<&Generator>) -> Result<()> {
    let values = match made {
        Some(Generator::Integer { min, max }) => i128::from(*max) - i128::from(*min) + 1,
        Some(Generator::Decimal { min, max, .. }) => max.saturating_sub(*min).saturating_add(1),
        Some(Generator::Now | Generator::Sequence) => i128::MAX,
        // A list in the file, one text, null; or the walk is the key itself, which is one walk.
        _ => 1,
    };
    if values > MAX_WALKS {
        return Err(Error::stop(format!(
            "`{walk}` has one walk for each value of the key `{key}`, which takes more than {MAX_WALKS} \
             values; make `{key}` by `one_of`, or choose another key"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
