//! Rows of a table by key: what references with `lookup` are asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, Date32Array, RecordBatch, StringArray},
    datatypes::{DataType, Date32Type, SchemaRef},
};
use millstream_core::{Column, Error, Result, Role, quote_identifier};

use crate::{
    connect::Pool,
    decode::{as_found, not_at_fault, read, select_checked},
    encode::{FIRST_DAY, Parameter},
    types::Kind,
};

/// The most that is held of the answer to one question.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// What the asked keys are called in the statement: no column of a table is likely to have this name.
const KEY: &str = "millstream_asked.millstream_key";

/// The statements that ask for rows by key. To know them, the catalog is asked once.
#[derive(Debug, Default)]
pub(crate) struct ByKey {
    statements: Mutex<HashMap<String, Arc<Statement>>>,
}

#[derive(Debug)]
struct Statement {
    sql: String,
    /// The columns that it gives.
    schema: SchemaRef,
    /// Are the keys texts that are compared with a `uuid`?
    of_uuids: bool,
}

impl ByKey {
    /// See [`millstream_core::TableStore::read_by_key`].
    pub(crate) async fn read(
        &self,
        pool: &Pool,
        name: &str,
        schema: &SchemaRef,
        by: &str,
        keys: &ArrayRef,
    ) -> Result<Vec<RecordBatch>> {
        let at = format!("{name} {by} {schema:?}");
        let statements = || self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        let known = statements().get(&at).cloned();
        let statement = match known {
            Some(known) => known,
            None => {
                let statement = Arc::new(prepare(pool, name, schema, by).await?);
                statements().insert(at.clone(), Arc::clone(&statement));
                statement
            }
        };
        let answer = ask(pool, name, (by, keys), &statement).await;
        if matches!(answer, Err(Error::Stop(_))) {
            // The table may have changed meanwhile.
            statements().remove(&at);
        }
        answer
    }
}

async fn prepare(pool: &Pool, name: &str, schema: &SchemaRef, by: &str) -> Result<Statement> {
    let what = format!("reading table {name}");
    let (select, have) = select_checked(pool, &what, name, schema).await?;
    let found = as_found(schema, &have);
    let is = have.iter().find(|column| column.name == by).map_or("", |column| column.sql_type.as_str());
    let field = schema.field_with_name(by);
    let field = field.map_err(|error| Error::stop(format!("internal: {by}")).caused_by(error))?;
    let kind = Kind::of(field.data_type()).ok_or_else(|| {
        Error::stop(format!("{}: column {by} is {}, which is no key", pool.doing(&what), field.data_type()))
    })?;
    let column = format!("{}.{}", quote_identifier(name), quote_identifier(by));
    // Where the column stands alone on its side, an index over it is used.
    let (of_uuids, condition) = match (kind, is) {
        (Kind::Text, "uuid") => (true, format!("{column} = {KEY}::uuid")),
        // A collation may take different texts for equal ones.
        (Kind::Text, is) if is == "text" || is.starts_with("character varying") => {
            (false, format!("{column} = {KEY} AND {column} COLLATE \"C\" = {KEY} COLLATE \"C\""))
        }
        // Blanks at the end count for nothing there, and in the join they do.
        (Kind::Text, is) if is.starts_with("character(") => {
            let key = format!("{KEY} COLLATE \"C\"");
            (false, format!("{column} = {KEY}::bpchar AND {column}::text COLLATE \"C\" = {key}"))
        }
        (Kind::Text, _) => (false, format!("{column}::text COLLATE \"C\" = {KEY} COLLATE \"C\"")),
        (Kind::Date, "date") => (false, format!("{column} = {KEY}")),
        (Kind::SmallInt | Kind::Integer | Kind::BigInt | Kind::Numeric { .. }, is)
            if matches!(is, "smallint" | "integer" | "bigint") || is.starts_with("numeric") =>
        {
            (false, format!("{column} = {KEY}"))
        }
        _ => {
            return Err(Error::stop(format!(
                "{}: column {by} is a {is}, and it is asked for a {}: as a key, it must have the type that is declared for it",
                pool.doing(&what),
                kind.base()
            )));
        }
    };
    let (alias, key) = KEY.split_once('.').unwrap_or((KEY, KEY));
    Ok(Statement { sql: format!("{select} JOIN unnest($1) AS {alias}({key}) ON {condition}"), schema: found, of_uuids })
}

async fn ask(
    pool: &Pool,
    name: &str,
    (by, keys): (&str, &ArrayRef),
    statement: &Statement,
) -> Result<Vec<RecordBatch>> {
    let what = format!("reading rows of table {name}");
    let keys = possible(keys, statement.of_uuids);
    let keys = if *keys.data_type() == DataType::Date32 { known_days(&keys) } else { keys };
    let column =
        Column { name: by.to_owned(), data_type: keys.data_type().clone(), nullable: false, role: Role::Value };
    let parameter = Parameter::new(&column, &keys)?;
    let client = pool.client(&what).await?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let mut take = |batch: RecordBatch| {
        bytes += batch.get_array_memory_size();
        rows.push(batch);
        if bytes > MAX_ANSWER_BYTES {
            return Err(Error::too_large(format!("more than {} MiB of {name} at once", MAX_ANSWER_BYTES >> 20)));
        }
        Ok(())
    };
    let schema = &statement.schema;
    let done = read(pool, &what, &**client, (&statement.sql, Some(&parameter)), schema, &mut take).await;
    let rows = done.map(|()| rows).map_err(not_at_fault);
    // After an error rows may still be under way: such a connection is not used again.
    if rows.is_err() {
        drop(deadpool_postgres::Object::take(client));
    }
    rows
}

/// The keys that a row can have: PostgreSQL refuses to compare others, where the answer is that there is none.
fn possible(keys: &ArrayRef, of_uuids: bool) -> ArrayRef {
    if *keys.data_type() != DataType::Utf8 {
        return Arc::clone(keys);
    }
    let possible = |text: &&str| !text.contains('\0') && (!of_uuids || is_uuid(text));
    Arc::new(StringArray::from_iter_values(keys.as_string::<i32>().iter().flatten().filter(possible)))
}

/// The days that PostgreSQL knows: it has no row of another.
fn known_days(keys: &ArrayRef) -> ArrayRef {
    let days = keys.as_primitive::<Date32Type>().values().iter().copied();
    Arc::new(Date32Array::from_iter_values(days.filter(|day| *day >= FIRST_DAY)))
}

/// Is it a UUID as PostgreSQL writes one? The join compares it with that text, so no other spelling can match.
fn is_uuid(text: &str) -> bool {
    let dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let fits = |(at, letter): (usize, u8)| match letter {
        b'-' => dash(at),
        b'0'..=b'9' | b'a'..=b'f' => !dash(at),
        _ => false,
    };
    text.len() == 36 && text.bytes().enumerate().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_a_row_can_have_are_asked_for() {
        let uuid = "0f8fad5b-d9cb-469f-a165-70867728950e";
        let keys: ArrayRef =
            Arc::new(StringArray::from(vec!["a", "b\0", uuid, &uuid.to_uppercase(), &uuid.replace('-', "")]));
        assert_eq!(possible(&keys, false).len(), 4);
        assert_eq!(possible(&keys, true).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), [uuid]);
    }
}
