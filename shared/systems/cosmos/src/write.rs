//! The rows of a write: made ready before the first one is sent, then sent many at a time.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::Int64Type,
};
use millstream_core::{Error, Fence, Result, TopicPartition};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    client::Client,
    layout::{BUCKET, Key, Layout, bucket_of, offset_id},
    pace::{Pace, Part},
    read::Row,
};

/// What a batch may hold: the service takes 100 operations and 2 MB, for which the operations leave room
/// (<https://learn.microsoft.com/azure/cosmos-db/concepts-limits#per-request-limits>).
const MAX_BATCH_ROWS: usize = 100;
const MAX_BATCH_BYTES: usize = 1_500_000;
/// The most bytes of a row as JSON. An item has at most 2 MB, of which the keys and the position need some.
pub(crate) const MAX_ROW_BYTES: usize = 2_000_000;
/// How many times a newest row is looked at again that others keep writing.
const MAX_TRIES: usize = 20;

/// Rows that are ready to be written.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// Each row with its offset and its bytes as JSON.
    rows: Vec<(i64, Row, usize)>,
    /// Which of them is the newest of its entity.
    newest: Vec<(Key, usize)>,
}

impl Ready {
    /// # Errors
    /// `Poison` if a row can't be stored; `Stop` for rows that are not the table's.
    pub(crate) fn new(layout: &Layout, from: &Fence, to: &Fence, batches: &[RecordBatch]) -> Result<Self> {
        let mut ready = Self::default();
        let mut seen = HashSet::new();
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            check(layout, batch)?;
            let first = ready.rows.len();
            for offset in batch.column(layout.offset).as_primitive::<Int64Type>() {
                let offset = offset.filter(|offset| (from.next_offset..to.next_offset).contains(offset));
                let offset = offset.ok_or_else(|| Error::stop("internal: a row is not of the records of its write"))?;
                if !seen.insert(offset) {
                    return Err(Error::poison(
                        "the SELECT gives two rows for one event; put the unnest into a transform before it",
                    ));
                }
                ready.rows.push((offset, Row::new(), 0));
            }
            for ((form, column), values) in layout.forms.iter().zip(&layout.table.columns).zip(batch.columns()) {
                for (row, value) in ready.rows[first..].iter_mut().zip(form.encode(&column.name, values)?) {
                    row.1.insert(column.name.clone(), value);
                }
            }
        }
        for (_, row, bytes) in &mut ready.rows {
            *bytes = serde_json::to_vec(row).map_or(usize::MAX, |json| json.len());
            if *bytes > MAX_ROW_BYTES {
                return Err(Error::poison(format!("a row has {bytes} bytes as JSON; the limit is {MAX_ROW_BYTES}")));
            }
        }
        ready.find_newest(layout);
        Ok(ready)
    }

    fn find_newest(&mut self, layout: &Layout) {
        let mut newest: HashMap<String, (Key, usize)> = HashMap::new();
        for (at, (offset, row, _)) in self.rows.iter().enumerate() {
            let Some(key) = layout.newest_key(row) else { return };
            let held = newest.entry(key.id.clone()).or_insert((key, at));
            if self.rows[held.1].0 < *offset {
                held.1 = at;
            }
        }
        self.newest = newest.into_values().collect();
    }

    /// The rows as items, in parts that one transaction takes, each of one bucket.
    fn batches(&self, partition: &TopicPartition) -> Vec<Items> {
        let mut buckets: BTreeMap<i64, Vec<&(i64, Row, usize)>> = BTreeMap::new();
        for row in &self.rows {
            buckets.entry(row.0.div_euclid(BUCKET)).or_default().push(row);
        }
        let mut batches = Vec::new();
        for (bucket, rows) in buckets {
            let pk = bucket_of(partition, bucket);
            let (mut items, mut held) = (Vec::new(), 0);
            for (offset, row, bytes) in rows {
                if !items.is_empty() && (items.len() == MAX_BATCH_ROWS || held + bytes > MAX_BATCH_BYTES) {
                    batches.push(Items { pk: pk.clone(), items: std::mem::take(&mut items) });
                    held = 0;
                }
                let key = Key::new(pk.clone(), offset_id(*offset));
                let item = json!({"id": key.id, "pk": key.pk, "row": row});
                items.push((key, item));
                held += bytes;
            }
            batches.push(Items { pk, items });
        }
        batches
    }
}

/// Items of one logical partition.
#[derive(Debug)]
struct Items {
    pk: String,
    items: Vec<(Key, serde_json::Value)>,
}

impl Part for Items {
    fn split(mut self) -> Vec<Self> {
        if self.items.len() < 2 {
            return vec![self];
        }
        let rest = self.items.split_off(self.items.len() / 2);
        let pk = self.pk.clone();
        vec![self, Self { pk, items: rest }]
    }
}

fn check(layout: &Layout, batch: &RecordBatch) -> Result<()> {
    let fits = batch.num_columns() == layout.table.columns.len()
        && batch.columns().iter().zip(&layout.table.columns).all(|(have, want)| *have.data_type() == want.data_type);
    if !fits {
        return Err(Error::stop("Cosmos: internal: rows with other columns than the table's"));
    }
    for (at, (values, column)) in batch.columns().iter().zip(&layout.table.columns).enumerate() {
        if (!column.nullable || layout.entity == Some(at)) && values.logical_null_count() > 0 {
            return Err(Error::poison(format!("column {} must not be null", column.name)));
        }
    }
    layout.table.check_storable(batch)
}

/// The newest row of an entity as it is stored.
#[derive(Serialize, Deserialize)]
struct Newest {
    #[serde(flatten)]
    key: Key,
    topic: String,
    generation: u32,
    partition: i32,
    /// Which of two rows is newer: its generation, its offset, and its partition, as texts in that order.
    position: String,
    row: Row,
}

fn position(partition: &TopicPartition, generation: u32, offset: i64) -> String {
    format!("{generation:010}:{}:{:010}", offset_id(offset), partition.partition)
}

impl Client {
    /// Writes the rows by their position. Written twice, they are the same.
    pub(crate) async fn write_rows(
        &self,
        pace: &mut Pace,
        layout: &Layout,
        partition: &TopicPartition,
        ready: &Ready,
    ) -> Result<()> {
        let what = format!("writing to table {}", layout.rows());
        let write = |part: Items| {
            let what = &what;
            async move {
                let is_made = self.upsert(what, layout.rows(), &part.pk, &part.items).await;
                (part, is_made)
            }
        };
        pace.run(&self.doing(&what), ready.batches(partition), write).await
    }

    /// Writes the newest row of each entity; one that is older than what is there changes nothing. `generation` is that of the
    /// topic, which a partition of redriven records doesn't tell.
    pub(crate) async fn write_newest(
        &self,
        pace: &mut Pace,
        layout: &Layout,
        partition: &TopicPartition,
        generation: u32,
        ready: &Ready,
    ) -> Result<()> {
        let Some(container) = layout.newest() else { return Ok(()) };
        let write = |number: usize| {
            let (key, at) = &ready.newest[number];
            let (offset, row, _) = &ready.rows[*at];
            let newest = Newest {
                key: key.clone(),
                topic: partition.topic.clone(),
                generation,
                partition: partition.partition,
                position: position(partition, generation, *offset),
                row: row.clone(),
            };
            let container = &container;
            async move { (number, self.write_one_newest(container, &newest).await.map(|()| true)) }
        };
        pace.run(&self.doing("writing the newest rows"), 0..ready.newest.len(), write).await
    }

    async fn write_one_newest(&self, container: &str, newest: &Newest) -> Result<()> {
        let what = format!("writing to table {container}");
        for _ in 0..MAX_TRIES {
            let is_made = match self.read::<Newest>(&what, container, &newest.key).await? {
                None => self.create(&what, container, &newest.key, newest).await?,
                Some((there, _)) if there.position >= newest.position => return Ok(()),
                Some((_, etag)) => self.replace(&what, container, &newest.key, newest, &etag).await?,
            };
            if is_made {
                return Ok(());
            }
        }
        Err(Error::retry(format!("{}: others keep writing the newest row of an entity", self.doing(&what))))
    }
}

#[cfg(test)]
mod tests;
