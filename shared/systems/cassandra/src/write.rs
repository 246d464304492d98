//! The rows of a write: made ready before the first one is sent, then sent many at a time.

use std::collections::{HashMap, HashSet};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::Int64Type,
    row::{OwnedRow, RowConverter, SortField},
};
use futures::{StreamExt, TryStreamExt, stream};
use millstream_core::{Error, Fence, Result, TopicPartition, quote_identifier};
use scylla::value::CqlValue;

use crate::{
    Profile,
    client::Client,
    kind::Cell,
    layout::{BUCKET, Declared, Layout, POSITION, bucket_of, insert},
    statement::Does,
};

/// How many statements of one write are under way at once.
const AT_ONCE: usize = 128;

/// Rows that are ready to be written.
#[derive(Default)]
pub(crate) struct Ready {
    /// The values of each row, by the table's columns.
    rows: Vec<(i64, Vec<Cell>)>,
    /// Which of them is the newest of its entity.
    newest: Vec<usize>,
}

impl Ready {
    /// # Errors
    /// `Poison` if a row can't be stored; `Stop` for rows that are not the table's.
    pub(crate) fn new(
        layout: &Layout,
        from: &Fence,
        to: &Fence,
        batches: &[RecordBatch],
        profile: Profile,
    ) -> Result<Self> {
        let mut ready = Self::default();
        let mut seen = HashSet::new();
        let mut newest: HashMap<OwnedRow, usize> = HashMap::new();
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            check(layout, batch)?;
            let first = ready.rows.len();
            let offsets = batch.column(layout.offset).as_primitive::<Int64Type>();
            for offset in offsets.iter() {
                let offset = offset.filter(|offset| (from.next_offset..to.next_offset).contains(offset));
                let offset = offset.ok_or_else(|| Error::stop("internal: a row is not of the records of its write"))?;
                if !seen.insert(offset) {
                    return Err(Error::poison(
                        "the SELECT gives two rows for one event; put the unnest into a transform before it",
                    ));
                }
                ready.rows.push((offset, Vec::with_capacity(layout.kinds.len())));
            }
            for ((kind, column), values) in layout.kinds.iter().zip(&layout.table.columns).zip(batch.columns()) {
                for (row, cell) in ready.rows[first..].iter_mut().zip(kind.encode(&column.name, values)?) {
                    row.1.push(cell);
                }
            }
            if let Some(entity) = layout.entity {
                let column = batch.column(entity);
                let internal = |error| Error::stop("internal: an entity can't be compared").caused_by(error);
                let converter =
                    RowConverter::new(vec![SortField::new(column.data_type().clone())]).map_err(internal)?;
                let keys = converter.convert_columns(std::slice::from_ref(column)).map_err(internal)?;
                for (at, key) in (first..).zip(&keys) {
                    let held = newest.entry(key.owned()).or_insert(at);
                    if ready.rows[*held].0 < ready.rows[at].0 {
                        *held = at;
                    }
                }
            }
        }
        for (_, cells) in &ready.rows {
            check_sizes(layout, cells, profile)?;
        }
        ready.newest = newest.into_values().collect();
        Ok(ready)
    }
}

fn check(layout: &Layout, batch: &RecordBatch) -> Result<()> {
    let fits = batch.num_columns() == layout.table.columns.len()
        && batch.columns().iter().zip(&layout.table.columns).all(|(have, want)| *have.data_type() == want.data_type);
    if !fits {
        return Err(Error::stop("Cassandra: internal: rows with other columns than the table's"));
    }
    for (at, (values, column)) in batch.columns().iter().zip(&layout.table.columns).enumerate() {
        if (!column.nullable || layout.entity == Some(at)) && values.logical_null_count() > 0 {
            return Err(Error::poison(format!("column {} must not be null", column.name)));
        }
    }
    layout.table.check_storable(batch)
}

fn check_sizes(layout: &Layout, cells: &[Cell], profile: Profile) -> Result<()> {
    let (max_bytes, max_key_bytes) = (profile.max_row_bytes(), profile.max_key_bytes());
    let bytes: usize = cells.iter().map(size).sum();
    if bytes > max_bytes {
        return Err(Error::poison(format!("a row has {bytes} bytes; the limit is {max_bytes}")));
    }
    let Some(entity) = layout.entity else { return Ok(()) };
    match (size(&cells[entity]), &layout.table.columns[entity].name) {
        (0, name) => Err(Error::poison(format!("column {name} is empty, and can't be a key"))),
        (bytes, name) if bytes > max_key_bytes => {
            Err(Error::poison(format!("column {name} has {bytes} bytes; a key has at most {max_key_bytes}")))
        }
        _ => Ok(()),
    }
}

/// Some bytes for what has a fixed size: only long values matter.
fn size(cell: &Cell) -> usize {
    match cell {
        None => 0,
        Some(CqlValue::Text(text)) => text.len(),
        Some(CqlValue::Blob(bytes)) => bytes.len(),
        Some(_) => 8,
    }
}

/// Where a row stands among all rows of its entity, as a number that rises: by generation, then offset. The partition only
/// keeps two rows of one offset apart, of which no one can say which is newer.
///
/// # Errors
/// `Stop` beyond generation 8,191, offset 1,099,511,627,775 or partition 1,023.
pub(crate) fn position(partition: &TopicPartition, generation: u32, offset: i64) -> Result<i64> {
    let number = i64::from(partition.partition);
    if generation >= 1 << 13 || !(0..1 << 40).contains(&offset) || !(0..1 << 10).contains(&number) {
        return Err(Error::stop(format!(
            "Cassandra: {partition} at offset {offset} is beyond what a table with an entity can order: generations up to \
             8191, partitions up to 1023, offsets up to 2^40"
        )));
    }
    Ok(i64::from(generation) << 50 | offset << 10 | number)
}

impl Client {
    /// Writes the rows by their position. Written twice, they are the same.
    pub(crate) async fn write_rows(&self, layout: &Layout, partition: &TopicPartition, ready: &Ready) -> Result<()> {
        let (columns, what) = (layout.rows_columns(), format!("writing to table {}", layout.rows()));
        let cql = insert(&self.table(layout.rows()), &columns, "");
        let write = |(offset, cells): &(i64, Vec<Cell>)| {
            let mut values = bucket_of(partition, offset / BUCKET).to_vec();
            values.push(cells[layout.offset].clone());
            values.extend(without(cells, layout.offset));
            let (cql, what) = (&cql, &what);
            async move { self.run(what, Does::Write, cql, &values).await.map(|_| ()) }
        };
        stream::iter(ready.rows.iter().map(write)).buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    /// Writes the newest row of each entity; one that is older than what is there changes nothing. `generation` is that of the
    /// topic, which a partition of redriven records doesn't tell. `surplus` are the columns that a previous plan has filled: a row
    /// is replaced as a whole.
    pub(crate) async fn write_newest(
        &self,
        layout: &Layout,
        (partition, generation): (&TopicPartition, u32),
        ready: &Ready,
        surplus: &[Declared],
    ) -> Result<()> {
        let Some(entity) = layout.entity else { return Ok(()) };
        let newest = layout.newest();
        let row = |at: &usize| {
            let (offset, cells) = &ready.rows[*at];
            let position = position(partition, generation, *offset)?;
            let mut values = vec![cells[entity].clone()];
            values.extend(bucket_of(partition, 0).into_iter().take(3));
            values[2] = Some(CqlValue::BigInt(generation.into()));
            values.push(Some(CqlValue::BigInt(position)));
            values.extend(without(cells, entity));
            values.extend(surplus.iter().map(|_| None));
            Ok((position, values))
        };
        let rows = ready.newest.iter().map(row).collect::<Result<Vec<_>>>()?;
        let statements = Newest::new(self, &newest, layout.newest_columns().iter().chain(surplus));
        let write = |(position, values)| {
            let statements = &statements;
            async move { self.write_one_newest(statements, position, values).await }
        };
        stream::iter(rows.into_iter().map(write)).buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    async fn write_one_newest(&self, statements: &Newest, position: i64, mut values: Vec<Cell>) -> Result<()> {
        let what = &statements.what;
        let position = Some(CqlValue::BigInt(position));
        if self.profile().takes_writetimes() {
            values.push(position);
            return self.run(what, Does::Write, &statements.insert, &values).await.map(|_| ());
        }
        if self.swap(what, &statements.create, &values).await? {
            return Ok(());
        }
        values.rotate_left(1); // The entity, which is what the row is found by, comes last.
        values.push(position);
        self.swap(what, &statements.raise, &values).await.map(|_| ())
    }
}

/// The statements that write a newest row.
struct Newest {
    what: String,
    insert: String,
    create: String,
    raise: String,
}

impl Newest {
    fn new<'a>(client: &Client, newest: &str, columns: impl Iterator<Item = &'a Declared>) -> Self {
        let (table, columns) = (client.table(newest), columns.cloned().collect::<Vec<_>>());
        let names: Vec<_> = columns.iter().map(|column| quote_identifier(&column.name)).collect();
        let sets: Vec<_> = names.iter().skip(1).map(|name| format!("{name} = ?")).collect();
        let entity = names.first().map_or("", String::as_str);
        Self {
            what: format!("writing to table {newest}"),
            insert: insert(&table, &columns, " USING TIMESTAMP ?"),
            create: insert(&table, &columns, " IF NOT EXISTS"),
            raise: format!("UPDATE {table} SET {} WHERE {entity} = ? IF \"{POSITION}\" < ?", sets.join(", ")),
        }
    }
}

fn without(cells: &[Cell], place: usize) -> impl Iterator<Item = Cell> + '_ {
    cells.iter().enumerate().filter(move |(at, _)| *at != place).map(|(_, cell)| cell.clone())
}

#[cfg(test)]
mod tests;
