use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema},
};
use async_trait::async_trait;
use millstream_core::{Bad, Batch, Column, Decode, Decoded, Error, Merge, Result, Role, Table, Transform, meta};

use crate::TestCombine;

/// Decodes a value as the text it is, into the columns `text` and [`meta::OFFSET`]. A value that begins with `bad`, is
/// not UTF-8 or is missing can't be decoded. Event time is Kafka's timestamp, unless the text ends in `@` and a number
/// of microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainDecode;

impl PlainDecode {
    fn text(value: Option<&[u8]>) -> Result<&str, String> {
        let value = value.ok_or("there is no value")?;
        let text = std::str::from_utf8(value).map_err(|error| format!("the value is not UTF-8: {error}"))?;
        if text.starts_with("bad") { Err("the value begins with bad".into()) } else { Ok(text) }
    }
}

impl Decode for PlainDecode {
    fn decode(&self, batch: &Batch) -> Result<Decoded> {
        let (mut texts, mut offsets, mut times, mut indexes, mut bad) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (index, value) in batch.values().iter().enumerate() {
            match Self::text(value) {
                Ok(text) => {
                    let declared = text.rsplit_once('@').and_then(|(_, us)| us.parse().ok());
                    times.push(declared.unwrap_or(batch.timestamps_ms().value(index) * 1_000));
                    texts.push(text);
                    offsets.push(batch.offsets().value(index));
                    indexes.push(index);
                }
                Err(reason) => bad.push(Bad { index, reason }),
            }
        }
        let schema = Schema::new(vec![
            Field::new("text", DataType::Utf8, false),
            Field::new(meta::OFFSET, DataType::Int64, false),
        ]);
        let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(texts)), Arc::new(Int64Array::from(offsets))];
        let rows = RecordBatch::try_new(Arc::new(schema), columns).expect("columns of one length");
        let event_time = TimestampMicrosecondArray::from(times).with_timezone("UTC");
        Ok(Decoded { rows, index: indexes, event_time, bad })
    }
}

/// Turns the rows of [`PlainDecode`] into those of a table. A text that begins with `poison` makes it fail with `Poison`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainTransform {
    /// One row per record: `text` and `_offset`.
    Append,
    /// How often each text comes: `text` is the key, `count` the state.
    Count,
}

impl PlainTransform {
    /// The table that the rows go to.
    pub fn table(self, name: &str) -> Table {
        let column = |name: &str, data_type, role| Column { name: name.into(), data_type, nullable: false, role };
        let (columns, merges) = match self {
            Self::Append => (
                vec![column("text", DataType::Utf8, Role::Value), column(meta::OFFSET, DataType::Int64, Role::Value)],
                false,
            ),
            Self::Count => (
                vec![
                    column("text", DataType::Utf8, Role::Key),
                    column("count", DataType::Int64, Role::State(Merge::Sum)),
                ],
                true,
            ),
        };
        let combine = merges.then(|| Arc::new(TestCombine::new(&columns)) as Arc<_>);
        Table { name: name.into(), columns, combine, view: None }
    }
}

#[async_trait]
impl Transform for PlainTransform {
    async fn apply(&self, _topic: &str, rows: RecordBatch) -> Result<Vec<RecordBatch>> {
        let texts = rows.column(0).as_string::<i32>();
        if texts.iter().flatten().any(|text| text.starts_with("poison")) {
            return Err(Error::poison("a text begins with poison"));
        }
        let table = self.table("");
        let columns: Vec<ArrayRef> = match self {
            Self::Append => rows.columns().to_vec(),
            Self::Count => {
                let mut counts = HashMap::<&str, i64>::new();
                for text in texts.iter().flatten() {
                    *counts.entry(text).or_default() += 1;
                }
                let (texts, counts): (Vec<_>, Vec<_>) = counts.into_iter().unzip();
                vec![Arc::new(StringArray::from(texts)), Arc::new(Int64Array::from(counts))]
            }
        };
        Ok(vec![crate::rows::rows(&table, columns)])
    }
}
