use std::ops::Range;

use arrow::datatypes::Field;
use millstream_codec::{JsonDecoder, JsonOptions, Keys};
use millstream_core::{BatchBuilder, Decode as _, Error, Result, TopicPartition};
use millstream_pipeline::Topic;

/// How many values are decoded at once, and how many bytes of them.
pub(crate) const PORTION_VALUES: usize = 1_000;
pub(crate) const PORTION_BYTES: usize = 1 << 20;

/// Says which JSON texts fit a topic, and reads what their records are made of.
pub(crate) struct Judge {
    decoder: JsonDecoder,
    /// The index of each wanted field among the decoder's columns, and what writes its values.
    wanted: Vec<(usize, Keys)>,
    has_event_time: bool,
}

/// What was read of a text that fits.
#[derive(Debug)]
pub(crate) struct Fit {
    /// The values of the wanted fields in their order, as record keys are written.
    pub texts: Vec<Option<Vec<u8>>>,
    /// The event time in milliseconds since 1970, if it was asked for.
    pub time_ms: Option<i64>,
}

impl Judge {
    /// For the values of `topic`. `wanted` are fields whose values are needed. `columns` are those that are checked; none for
    /// all. `event_time` is the field that holds it, if that is needed.
    ///
    /// # Errors
    /// `Stop` when a wanted field is not one of the topic's.
    pub(crate) fn new(
        topic: &Topic,
        wanted: &[&str],
        columns: Option<Vec<String>>,
        event_time: Option<String>,
    ) -> Result<Self> {
        let has_event_time = event_time.is_some();
        let decoder = JsonDecoder::new(JsonOptions {
            schema: topic.schema.clone(),
            columns,
            event_time,
            tombstones: Default::default(),
        })?;
        let output = decoder.output_schema();
        let find = |name: &&str| {
            let keys = Keys::new(field_of(topic, name)?)?;
            let at = output.index_of(name);
            Ok((at.map_err(|error| Error::stop("internal: a field is not read").caused_by(error))?, keys))
        };
        let wanted = wanted.iter().map(find).collect::<Result<_>>()?;
        Ok(Self { decoder, wanted, has_event_time })
    }

    /// What was read of each value, or why it doesn't fit, without any of its text.
    ///
    /// # Errors
    /// Those of the decoder.
    pub(crate) fn judge<T: AsRef<[u8]>>(&self, values: &[T]) -> Result<Vec<Result<Fit, String>>> {
        let mut judged = Vec::with_capacity(values.len());
        for portion in portions(values) {
            self.judge_portion(&values[portion], &mut judged)?;
        }
        Ok(judged)
    }

    fn judge_portion<T: AsRef<[u8]>>(&self, values: &[T], judged: &mut Vec<Result<Fit, String>>) -> Result<()> {
        // The decoder takes batches of a log; the position means nothing here.
        let mut batch = BatchBuilder::new(TopicPartition::new("value", 1, 0));
        for (at, value) in values.iter().enumerate() {
            batch.push(at as i64, 0, None, Some(value.as_ref()), []);
        }
        let decoded = self.decoder.decode(&batch.finish_read(0, values.len() as i64))?;
        let column = |(at, keys): &(usize, Keys)| Ok(keys.texts(decoded.rows.column(*at))?.into_iter());
        let mut columns = self.wanted.iter().map(column).collect::<Result<Vec<_>>>()?;
        let mut bad = decoded.bad.iter().peekable();
        let mut times = decoded.event_time.values().iter();
        judged.extend((0..values.len()).map(|at| {
            if let Some(bad) = bad.next_if(|bad| bad.index == at) {
                return Err(bad.reason.clone());
            }
            let time_us = times.next().filter(|_| self.has_event_time);
            let texts = columns.iter_mut().map(|texts| texts.next().flatten()).collect();
            Ok(Fit { texts, time_ms: time_us.map(|us| us.div_euclid(1_000)) })
        }));
        Ok(())
    }
}

/// The field of a topic.
fn field_of<'a>(topic: &'a Topic, name: &str) -> Result<&'a Field> {
    topic.schema.field_with_name(name).map_err(|_| {
        let names: Vec<_> = topic.schema.fields().iter().map(|field| field.name().as_str()).collect();
        Error::stop(format!("the key `{name}` is not a field of the topic; it has {}", names.join(", ")))
    })
}

/// The values cut into portions that are decoded at once; each has at least one value.
fn portions<T: AsRef<[u8]>>(values: &[T]) -> Vec<Range<usize>> {
    let (mut portions, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, value) in values.iter().enumerate() {
        if at > start && (at - start >= PORTION_VALUES || bytes >= PORTION_BYTES) {
            portions.push(start..at);
            (start, bytes) = (at, 0);
        }
        bytes += value.as_ref().len();
    }
    if start < values.len() {
        portions.push(start..values.len());
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_are_whole_and_bounded() {
        let large = vec![b'x'; PORTION_BYTES];
        let values: Vec<&[u8]> = vec![b"a", &large, b"b", b"c"];
        assert_eq!(portions(&values), [0..2, 2..4]);
        assert_eq!(portions(&[b"a"; 2_500]), [0..1_000, 1_000..2_000, 2_000..2_500]);
        assert_eq!(portions::<&[u8]>(&[]), [] as [Range<usize>; 0]);
    }
}
