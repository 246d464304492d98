//! Rows by key: what references with `lookup` are asked for.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicUsize, Ordering},
};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{DataType, SchemaRef},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use millstream_core::{Error, Result, quote_identifier};
use scylla::value::CqlValue;

use crate::{
    client::Client,
    kind::{Cell, Kind},
    layout::{Declared, NEWEST, Part, is_of_newest_rows},
    read::PAGE_ROWS,
    selected::Selected,
};

/// How many keys are asked for at once: a statement for each key is answered by the nodes that have it, and one for many keys
/// would all go through one node.
const AT_ONCE: usize = 128;
/// The longest key of Cassandra.
const MAX_KEY_BYTES: usize = 65_535;
/// The most that is held of the answer.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// See [`millstream_core::TableStore::read_by_key`]. In an event store, an entity is asked for its newest row.
pub(crate) async fn read(
    client: &Client,
    name: &str,
    schema: &SchemaRef,
    by: &str,
    keys: &ArrayRef,
) -> Result<Vec<RecordBatch>> {
    let table = table_by(client, name, by).await?;
    let selected = Selected::of(client, &table, schema).await?;
    let cql = format!("{} WHERE {} = ?", selected.cql, quote_identifier(by));
    let column = selected.there.iter().find(|column| column.name == by);
    let cql_type = column.map_or("", |column| column.cql.as_str());
    let kind = match cql_type {
        "tinyint" => Kind::TinyInt,
        "smallint" => Kind::SmallInt,
        "int" => Kind::Int,
        "bigint" => Kind::BigInt,
        "date" => Kind::Date,
        "text" | "varchar" | "ascii" => Kind::Text,
        cql => {
            return Err(Error::stop(format!(
                "{}: its key {by} is a CQL {cql}, and a reference is asked by a text, an integer or a date",
                client.doing(&selected.what)
            )));
        }
    };
    // Of all keys together, as the pages come.
    let bytes = AtomicUsize::new(0);
    let (selected, bytes) = (&selected, &bytes);
    let one = |key: Cell| {
        let cql = &cql;
        async move {
            let (mut rows, key) = (Vec::new(), [key]);
            let take = |page| {
                let page = selected.decode(page)?;
                let more = page.get_array_memory_size();
                if bytes.fetch_add(more, Ordering::Relaxed) + more > MAX_ANSWER_BYTES {
                    return Err(Error::too_large(format!(
                        "more than {} MiB of {name} at once",
                        MAX_ANSWER_BYTES >> 20
                    )));
                }
                rows.push(page);
                Ok(ControlFlow::Continue(()))
            };
            let _all = client.pages(&selected.what, cql, &key, PAGE_ROWS, take).await?;
            Ok::<_, Error>(rows)
        }
    };
    let keys = possible((kind, cql_type), by, keys)?;
    let found: Vec<Vec<RecordBatch>> =
        stream::iter(keys.into_iter().map(one)).buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// The table whose partition key the column is: the named one, or that of its newest rows.
pub(crate) async fn table_by(client: &Client, name: &str, by: &str) -> Result<String> {
    let is_key_of = |columns: &[Declared]| {
        let mut keys = columns.iter().filter(|column| column.part == Part::PartitionKey);
        keys.next().is_some_and(|key| key.name == by) && keys.next().is_none()
    };
    let doing = client.doing(&format!("reading table {name}"));
    let columns = client.columns(name).await?;
    if columns.is_empty() {
        return Err(Error::stop(format!("{doing}: there is no such table")));
    }
    if is_key_of(&columns) {
        return Ok(name.to_owned());
    }
    let newest = format!("{name}{NEWEST}");
    let columns = client.columns(&newest).await?;
    if is_of_newest_rows(&columns) && is_key_of(&columns) {
        return Ok(newest);
    }
    Err(Error::stop(format!(
        "{doing}: its rows can't be found by {by}, which is not its partition key (nor what an event store has the newest rows by): \
         join it by that, or leave `lookup` out"
    )))
}

/// The keys that a row can have: the server refuses others, where the answer is that there is none.
fn possible((kind, cql_type): (Kind, &str), by: &str, keys: &ArrayRef) -> Result<Vec<Cell>> {
    let narrow = match kind {
        Kind::TinyInt => DataType::Int8,
        Kind::SmallInt => DataType::Int16,
        Kind::Int => DataType::Int32,
        Kind::BigInt => DataType::Int64,
        _ => keys.data_type().clone(),
    };
    // A number that is too large becomes null.
    let keys = arrow::compute::cast(keys, &narrow);
    let keys = keys.map_err(|error| Error::stop(format!("the key {by} has another type")).caused_by(error))?;
    let is_possible = |key: &Cell| match key {
        None => false,
        Some(CqlValue::Text(text)) => {
            (1..=MAX_KEY_BYTES).contains(&text.len()) && (cql_type != "ascii" || text.is_ascii())
        }
        Some(_) => true,
    };
    Ok(kind.encode(by, &keys)?.into_iter().filter(is_possible).collect())
}
