//! Rows by key: what references with `lookup` are asked for.

use std::sync::{Mutex, PoisonError};

use arrow::{
    array::{Array as _, ArrayRef, RecordBatch},
    datatypes::{DataType, SchemaRef},
};
use millstream_core::{Error, Result, type_name};

use crate::{
    client::Client,
    form::Form,
    layout::{NEWEST, entity_key},
    pace::Pace,
    read::{Item, PAGE_ROWS, Row},
    schema::Declared,
    selected::Selected,
};

/// The most that is held of the answer, as JSON.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// See [`millstream_core::TableStore::read_by_key`]: an entity is asked for its newest row.
pub(crate) async fn read(
    client: &Client,
    name: &str,
    schema: &SchemaRef,
    by: &str,
    keys: &ArrayRef,
) -> Result<Vec<RecordBatch>> {
    let what = format!("reading table {name}");
    let doing = client.doing(&what);
    let (container, columns) = newest_by(client, name, schema, by).await?;
    let selected = Selected::of(&doing, schema)?;
    let form = form_of_key(keys.data_type(), &columns, by);
    let form = form.ok_or_else(|| {
        let (asked, there) = (type_name(keys.data_type()), type_of(&columns, by));
        Error::stop(format!(
            "{doing}: its key {by} is a {there}, and is asked by a {asked}: a reference is asked by a string, an integer or a date, \
             which the key must be too"
        ))
    })?;
    let keys: Vec<_> = form.encode(by, keys)?.iter().map(entity_key).collect();
    let found = Mutex::new(Found::default());
    let ask = |number: usize| {
        let (what, container, selected, key, found) = (&what, &container, &selected, &keys[number], &found);
        async move {
            let answer = client.read::<Item>(what, container, key).await;
            let taken = answer.and_then(|item| {
                let Some((Item { mut row }, _)) = item else { return Ok(true) };
                row.retain(|column, _| selected.names().any(|name| name == column));
                found.lock().unwrap_or_else(PoisonError::into_inner).push(row, what).map(|()| true)
            });
            (number, taken)
        }
    };
    Pace::new().run(&doing, 0..keys.len(), ask).await?;
    let mut rows = found.into_inner().unwrap_or_else(PoisonError::into_inner).rows;
    let mut batches = Vec::new();
    while !rows.is_empty() {
        let rest = rows.split_off(rows.len().min(PAGE_ROWS));
        batches.push(selected.decode(std::mem::replace(&mut rows, rest))?);
    }
    Ok(batches)
}

/// The container of the newest rows of each value of the column `by`, and its columns.
///
/// # Errors
/// `Stop` if there is none, or a column of `schema` is missing.
pub(crate) async fn newest_by(
    client: &Client,
    name: &str,
    schema: &SchemaRef,
    by: &str,
) -> Result<(String, Vec<Declared>)> {
    let doing = client.doing(&format!("reading table {name}"));
    let there = client.list_containers().await?;
    if !there.contains_key(name) {
        return Err(Error::stop(format!("{doing}: there is no such container")));
    }
    let newest = if name.ends_with(NEWEST) { name.to_owned() } else { format!("{name}{NEWEST}") };
    let columns = if there.contains_key(&newest) { client.columns(&newest).await? } else { None };
    let columns = columns.filter(|columns| columns.iter().any(|column| column.entity && column.name == by));
    let columns = columns.ok_or_else(|| {
        Error::stop(format!(
            "{doing}: its rows can't be found by {by}, which is not what an event store has the newest rows by: join it by that, or \
             leave `lookup` out"
        ))
    })?;
    let is_there = |name: &str| columns.iter().any(|column| column.name == *name);
    match schema.fields().iter().find(|field| !is_there(field.name())) {
        Some(field) => Err(Error::stop(format!("{doing}: it has no column {}", field.name()))),
        None => Ok((newest, columns)),
    }
}

/// How a key is written, if that is how the entity is written.
fn form_of_key(asked: &DataType, columns: &[Declared], by: &str) -> Option<Form> {
    let there = type_of(columns, by);
    let is_integer = ["tinyint", "smallint", "int", "bigint"].contains(&there.trim_end_matches(" unsigned"));
    let form = Form::of(asked)?;
    let is_alike = match form {
        Form::Integer => is_integer,
        Form::Text => there == "string",
        Form::Calendar => there == "date" && *asked == DataType::Date32,
        _ => false,
    };
    is_alike.then_some(form)
}

fn type_of<'a>(columns: &'a [Declared], by: &str) -> &'a str {
    columns.iter().find(|column| column.name == by).map_or("", |column| &column.data_type)
}

/// Rows in memory, up to a bound.
#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    bytes: usize,
}

impl Found {
    fn push(&mut self, row: Row, what: &str) -> Result<()> {
        self.bytes += serde_json::to_vec(&row).map_or(usize::MAX, |json| json.len());
        if self.bytes > MAX_ANSWER_BYTES {
            return Err(Error::too_large(format!("{what}: more than {} MiB at once", MAX_ANSWER_BYTES >> 20)));
        }
        self.rows.push(row);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bounded() {
        let row: Row = serde_json::from_value(serde_json::json!({"text": "x".repeat(1 << 20)})).unwrap();
        let mut found = Found::default();
        let mut pushed = (0..70).map(|_| found.push(row.clone(), "x"));
        assert_eq!(pushed.by_ref().take_while(Result::is_ok).count(), 63, "and what is around the texts");
        assert!(matches!(pushed.next(), Some(Err(Error::TooLarge(_)))));
    }
}
