use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, Float32Type, Float64Type},
};
use millstream_core::{Combine, Error, Fence, Result, TopicPartition, fault};
use rusqlite::{Connection, params_from_iter, types::Value};

use crate::{
    checked_rows::CheckedRows,
    columns,
    connections::{Connections, Work, Writing},
    fences, owner,
    row_reader::RowReader,
    tables::Stored,
};

/// One [`millstream_core::Sink::write`].
pub(crate) struct Change {
    pub(crate) connections: Arc<Connections>,
    pub(crate) states: Arc<Stored>,
    pub(crate) finished: Option<Arc<Stored>>,
    pub(crate) step: FenceStep,
}

/// Where the fence goes, if it is where the caller expects it.
pub(crate) struct FenceStep {
    pub(crate) function: Arc<str>,
    /// The table's name, as its owner is recorded.
    pub(crate) table: Arc<str>,
    /// See [`millstream_core::OwnerRecord::term`].
    pub(crate) term: i64,
    pub(crate) partition: TopicPartition,
    pub(crate) from: i64,
    pub(crate) to: Fence,
    /// The time of the write, as all times in the file.
    pub(crate) now: String,
}

impl FenceStep {
    fn apply(&self, connection: &Connection) -> Work<()> {
        owner::check_term(connection, &self.table, self.term)?;
        fences::advance(connection, &self.function, self.term, &self.partition, self.from, &self.to, &self.now)
    }
}

impl Change {
    /// Inserts the rows.
    pub(crate) async fn append(self, rows: Vec<CheckedRows>) -> Result<()> {
        if let Some(positions) = self.states.positions {
            positions.check(&rows.iter().map(|rows| &**rows).collect::<Vec<_>>())?;
        }
        let writing = Writing::begin(&self.connections).await?;
        let work = move |connection: &Connection| {
            self.step.apply(connection)?;
            let mut insert = connection.prepare(&self.states.insert_sql())?;
            for rows in &rows {
                let columns = encode(rows)?;
                if let Some(positions) = self.states.positions {
                    let place = (&*self.step.function, &self.step.partition);
                    positions.insert(connection, &self.states, place, rows, &columns)?;
                    continue;
                }
                for row in 0..rows.num_rows() {
                    insert.execute(params_from_iter(columns.iter().map(|column| &column[row])))?;
                }
            }
            Ok(())
        };
        commit(writing, work).await
    }

    /// Combines the rows with those of the same keys in the table. Work that needs no lock is done before it is taken.
    pub(crate) async fn merge(self, combine: &Arc<dyn Combine>, rows: Vec<CheckedRows>) -> Result<()> {
        let rows: Vec<_> =
            rows.iter().map(|rows| with_plain_float_keys(rows, &self.states.keys)).collect::<Result<_>>()?;
        let new = CheckedRows::new(&self.states, combine.combine(&rows).await?)?;

        let Self { connections, states, finished, step } = self;
        let writing = Writing::begin(&connections).await?;
        let (table, keys) = (states.clone(), new.clone());
        let find = move |connection: &Connection| {
            step.apply(connection)?;
            Existing::find(connection, &table, &keys)
        };
        let (writing, existing) = writing.step(find).await?;

        let merged = if existing.rows.is_empty() {
            new
        } else {
            let parts = [existing.rows, vec![(*new).clone()]].concat();
            CheckedRows::new(&states, combine.combine(&parts).await?)?
        };
        let shown = match finished {
            Some(table) => {
                let (rows, from) = combine.finish(&merged).await?;
                Some(Shown { rows: CheckedRows::new(&table, rows)?, table, from })
            }
            None => None,
        };
        let work = move |connection: &Connection| {
            let numbers = put_states(connection, &states, &merged, &existing.numbers)?;
            shown.map_or(Ok(()), |shown| shown.put(connection, &numbers))
        };
        commit(writing, work).await
    }
}

async fn commit(writing: Writing, work: impl FnOnce(&Connection) -> Work<()> + Send + 'static) -> Result<()> {
    writing.commit(work, || fault::point("embedded.before_commit")).await?;
    fault::point("embedded.after_commit");
    Ok(())
}

/// The rows of the table that new rows merge with, or are finished together with.
struct Existing {
    rows: Vec<RecordBatch>,
    /// The row number of each key, by [`identity`].
    numbers: HashMap<Vec<u8>, i64>,
}

impl Existing {
    fn find(connection: &Connection, table: &Stored, rows: &CheckedRows) -> Work<Self> {
        let wanted = encode(
            &rows
                .project(&table.together)
                .map_err(|error| Error::stop("internal: the keys are not among the columns").caused_by(error))?,
        )?;
        let mut select = connection.prepare(&table.select_together_sql())?;
        let mut found = RowReader::new(table.schema.clone());
        let (mut numbers, mut asked) = (HashMap::new(), HashSet::new());
        for row in 0..rows.num_rows() {
            let key = || wanted.iter().map(|column| &column[row]);
            if !asked.insert(identity(key())) {
                continue;
            }
            let mut matches = select.query(params_from_iter(key()))?;
            while let Some(matching) = matches.next()? {
                found.push(matching, 1)?;
                let keys = table.keys.iter().map(|key| matching.get(key + 1));
                let keys = keys.collect::<rusqlite::Result<Vec<Value>>>()?;
                numbers.insert(identity(keys.iter()), matching.get(0)?);
            }
        }
        Ok(Self { rows: found.finish()?, numbers })
    }
}

/// Updates the rows that exist and inserts the others; returns each row's number.
fn put_states(
    connection: &Connection,
    table: &Stored,
    rows: &CheckedRows,
    numbers: &HashMap<Vec<u8>, i64>,
) -> Work<Vec<i64>> {
    let columns = encode(rows)?;
    let mut insert = connection.prepare(&table.insert_sql())?;
    let mut update = table.update_sql().map(|sql| connection.prepare(&sql)).transpose()?;
    let values: Vec<_> = (0..columns.len()).filter(|column| !table.keys.contains(column)).collect();
    let mut put = |row: usize| -> Work<i64> {
        let key = identity(table.keys.iter().map(|key| &columns[*key][row]));
        let Some(number) = numbers.get(&key) else {
            insert.execute(params_from_iter(columns.iter().map(|column| &column[row])))?;
            return Ok(connection.last_insert_rowid());
        };
        if let Some(update) = &mut update {
            let number = Value::Integer(*number);
            let values = values.iter().map(|column| &columns[*column][row]).chain([&number]);
            update.execute(params_from_iter(values))?;
        }
        Ok(*number)
    };
    (0..rows.num_rows()).map(&mut put).collect()
}

/// The finished rows of the keys at hand.
pub(crate) struct Shown {
    pub(crate) table: Arc<Stored>,
    pub(crate) rows: CheckedRows,
    /// Which state row each one came from.
    pub(crate) from: Vec<usize>,
}

impl Shown {
    /// Writes these rows for readers, and deletes those that a `having` now leaves out. `numbers` are the state rows'.
    pub(crate) fn put(&self, connection: &Connection, numbers: &[i64]) -> Work<()> {
        let columns = encode(&self.rows)?;
        let mut left_out = vec![true; numbers.len()];
        let mut replace = connection.prepare(&self.table.replace_sql())?;
        for (row, from) in self.from.iter().enumerate() {
            left_out[*from] = false;
            let number = Value::Integer(numbers[*from]);
            let values = std::iter::once(&number).chain(columns.iter().map(|column| &column[row]));
            replace.execute(params_from_iter(values))?;
        }
        let mut delete = connection.prepare(&self.table.delete_sql())?;
        for number in numbers.iter().zip(&left_out).filter_map(|(number, left_out)| left_out.then_some(number)) {
            delete.execute([number])?;
        }
        Ok(())
    }
}

fn encode(rows: &RecordBatch) -> Result<Vec<Vec<Value>>> {
    let encode_column = |(column, field): (_, &Arc<arrow::datatypes::Field>)| {
        columns::encode(column).map_err(|error| error.context(format!("column `{}`", field.name())))
    };
    rows.columns().iter().zip(rows.schema_ref().fields()).map(encode_column).collect()
}

/// The rows with float keys that SQLite and [`Combine`] distinguish in the same way: SQLite has no `-0.0` and only one NaN.
fn with_plain_float_keys(rows: &RecordBatch, keys: &[usize]) -> Result<RecordBatch> {
    let mut columns = rows.columns().to_vec();
    for key in keys {
        let column = &columns[*key];
        columns[*key] = match column.data_type() {
            DataType::Float32 => {
                let plain = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
                Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(plain))
            }
            DataType::Float64 => {
                let plain = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
                Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(plain))
            }
            _ => continue,
        };
    }
    // Without keys there may be no columns to count rows by, and nothing to change.
    if keys.is_empty() {
        return Ok(rows.clone());
    }
    let broken = |error| Error::stop("internal: plain float keys do not fit their columns").caused_by(error);
    RecordBatch::try_new(rows.schema(), columns).map_err(broken)
}

/// The keys of a row as bytes: equal keys, and only those, give equal bytes. Null equals null.
fn identity<'a>(keys: impl Iterator<Item = &'a Value>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for key in keys {
        let (kind, value): (u8, &[u8]) = match key {
            Value::Null => (0, &[]),
            Value::Integer(value) => (1, &value.to_le_bytes()),
            Value::Real(value) => (2, &value.to_le_bytes()),
            Value::Text(value) => (3, value.as_bytes()),
            Value::Blob(value) => (4, value),
        };
        bytes.push(kind);
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}
