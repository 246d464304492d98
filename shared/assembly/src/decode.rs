use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::{
    array::{RecordBatch, TimestampMicrosecondArray},
    datatypes::Schema,
};
use millstream_core::{Bad, Batch, Decode, Decoded, Error, Result};

/// Decodes in the same way as a function: if the decoder panics over a record, a function makes it a dead letter, so it
/// is a bad record here.
///
/// # Errors
/// The decoder's errors; `TooLarge` after a panic over several records, so that the caller finds the single one.
pub(crate) fn decode(decoder: &dyn Decode, batch: &Batch) -> Result<Decoded> {
    match catch_unwind(AssertUnwindSafe(|| decoder.decode(batch))) {
        Ok(decoded) => decoded,
        Err(_) if batch.len() > 1 => Err(Error::too_large("the decoder panicked over one of several records")),
        Err(_) => Ok(without_rows(vec![Bad {
            index: 0,
            reason: "the decoder panicked over this record: a bug in millstream".to_owned(),
        }])),
    }
}

fn without_rows(bad: Vec<Bad>) -> Decoded {
    let event_time = TimestampMicrosecondArray::from(Vec::<i64>::new()).with_timezone("UTC");
    Decoded { rows: RecordBatch::new_empty(Arc::new(Schema::empty())), index: Vec::new(), event_time, bad }
}

#[cfg(test)]
mod tests {
    use millstream_core::{BatchBuilder, TopicPartition};

    use super::*;

    struct Panics;

    impl Decode for Panics {
        fn decode(&self, batch: &Batch) -> Result<Decoded> {
            assert!(batch.values().iter().flatten().all(|value| value != b"odd"), "a defect");
            Ok(without_rows(vec![]))
        }
    }

    fn batch(values: &[&str]) -> Batch {
        let mut builder = BatchBuilder::new(TopicPartition::new("t", 1, 0));
        (0..).zip(values).for_each(|(offset, value)| builder.push(offset, 5, None, Some(value.as_bytes()), []));
        builder.finish_read(0, values.len() as i64)
    }

    #[test]
    fn a_panic_is_a_bad_record_once_it_is_found() {
        assert!(matches!(decode(&Panics, &batch(&["a", "odd"])), Err(Error::TooLarge(_))));
        let decoded = decode(&Panics, &batch(&["odd"])).unwrap();
        assert_eq!((decoded.rows.num_rows(), decoded.bad.len(), decoded.bad[0].index), (0, 1, 0));
        assert!(decode(&Panics, &batch(&["a", "b"])).unwrap().bad.is_empty());
    }
}
