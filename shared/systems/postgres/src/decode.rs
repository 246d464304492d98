//! Rows of PostgreSQL as Arrow columns, from the binary format.

use std::{error::Error as StdError, pin::pin, sync::Arc};

use arrow::{
    array::{
        Array as _, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
        Int16Array, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
        new_null_array,
    },
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use arrow_json::ReaderBuilder;
use futures::TryStreamExt;
use millstream_core::{Error, OddRow, Result, quote_identifier};
use tokio_postgres::{
    GenericClient, Row,
    types::{FromSql, Type},
};

use crate::{
    catalog::Present,
    connect::Pool,
    encode::{EPOCH_DAYS, EPOCH_US, Parameter, cast, retyped},
    error,
    limits::QUERY_LIMIT,
    numeric,
    types::Kind,
};

/// Rows per record batch that is built.
const CHUNK_ROWS: usize = 8_192;

/// Reads all rows of a table or view as `schema` says: what references are loaded from.
///
/// Columns are found by name. A column of another type is converted if PostgreSQL can and nothing is lost; a `timestamp`
/// without a zone is read as UTC.
///
/// # Errors
/// `Stop` when the table or a column is missing, or a value does not fit its type. `Retry` as for every call.
pub async fn read_table(pool: &Pool, name: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let what = format!("reading table {name}");
    let (sql, have) = select_checked(pool, &what, name, schema).await?;
    let schema = &as_found(schema, &have);
    let client = pool.client(&what).await?;
    let mut rows = Vec::new();
    let mut take = |batch| {
        rows.push(batch);
        Ok(())
    };
    let done = read(pool, &what, &**client, (&sql, None), schema, &mut take).await;
    let rows = done.map(|()| rows).map_err(not_at_fault);
    // After an error rows may still be under way: such a connection is not used again.
    if rows.is_err() {
        drop(deadpool_postgres::Object::take(client));
    }
    rows
}

/// The statement of [`select`] for a table or view that has the columns of `schema`, and all columns that it has.
pub(crate) async fn select_checked(
    pool: &Pool,
    what: &str,
    name: &str,
    schema: &SchemaRef,
) -> Result<(String, Vec<Present>)> {
    let have = crate::schema::columns(pool, name).await?;
    if have.is_empty() {
        return Err(Error::stop(format!("{}: there is no such table or view", pool.doing(what))));
    }
    let missing: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .filter(|name| !have.iter().any(|column| column.name == *name))
        .collect();
    if !missing.is_empty() {
        return Err(Error::stop(format!("{}: it has no column {}", pool.doing(what), missing.join(", "))));
    }
    let zoneless =
        |name: &str| have.iter().any(|column| column.name == name && column.sql_type.ends_with("without time zone"));
    let sql = select(name, &as_found(schema, &have), zoneless)?;
    Ok((sql, have))
}

/// The schema in which a table is read: where PostgreSQL's cast to the declared type would round or cut, the column comes as it
/// is, and whoever asked for the declared type finds out whether it fits.
pub(crate) fn as_found(schema: &SchemaRef, have: &[Present]) -> SchemaRef {
    let found = |field: &Arc<Field>| {
        let is = have.iter().find(|column| column.name == *field.name()).map_or("", |column| column.sql_type.as_str());
        let declared = Kind::of(field.data_type());
        let exact = match declared {
            Some(Kind::SmallInt | Kind::Integer | Kind::BigInt) => match Kind::parse(is) {
                Some(kind @ (Kind::Numeric { .. } | Kind::Real | Kind::Double)) => Some(kind.carrier()),
                _ if is == "numeric" => Some(DataType::Decimal128(38, 9)),
                _ => None,
            },
            Some(Kind::Date) if is.starts_with("timestamp") => Some(Kind::Timestamp.carrier()),
            _ => None,
        };
        exact.map_or_else(|| Arc::clone(field), |exact| Arc::new(field.as_ref().clone().with_data_type(exact)))
    };
    Arc::new(Schema::new(schema.fields().iter().map(found).collect::<Vec<_>>()))
}

/// What PostgreSQL says of a value of a table that is only read: no record is at fault.
pub(crate) fn not_at_fault(error: Error) -> Error {
    match error {
        Error::Poison(cause) => Error::stop(cause.to_string()),
        other => other,
    }
}

/// The statement that reads the columns of `schema`, each in the type that [`read`] expects.
pub(crate) fn select(table: &str, schema: &SchemaRef, zoneless: impl Fn(&str) -> bool) -> Result<String> {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let kind = kind(field)?;
        let name = quote_identifier(field.name());
        let zone = if kind == Kind::Timestamp && zoneless(field.name()) { " AT TIME ZONE 'UTC'" } else { "" };
        columns.push(format!("({name}{zone})::{}", kind.base()));
    }
    Ok(format!("SELECT {} FROM {}", columns.join(", "), quote_identifier(table)))
}

/// Runs a statement of [`select`], with keys for its parameter if it has one, and gives its rows to `take`. Every wait for more rows has the limit of a statement.
pub(crate) async fn read(
    pool: &Pool,
    what: &str,
    client: &impl GenericClient,
    (sql, keys): (&str, Option<&Parameter>),
    schema: &SchemaRef,
    take: &mut (dyn FnMut(RecordBatch) -> Result<()> + Send),
) -> Result<()> {
    read_with_odd(pool, what, client, (sql, keys), schema, take, None).await
}

/// What takes rows that can't be read, if they are no error.
pub(crate) type Odd<'a> = Option<&'a mut (dyn FnMut(OddRow) -> Result<()> + Send)>;

/// The same; rows with values that don't fit are given to `odd`.
pub(crate) async fn read_with_odd(
    pool: &Pool,
    what: &str,
    client: &impl GenericClient,
    (sql, keys): (&str, Option<&Parameter>),
    schema: &SchemaRef,
    take: &mut (dyn FnMut(RecordBatch) -> Result<()> + Send),
    mut odd: Odd<'_>,
) -> Result<()> {
    let failed = |error: tokio_postgres::Error| error::of_postgres(pool.doing(what), &error);
    let slow = |_| Error::retry(format!("{}: no rows within {} s", pool.doing(what), QUERY_LIMIT.as_secs()));
    let keys = keys.map(|keys| (keys, keys.sql_type()));
    let start = tokio::time::timeout(QUERY_LIMIT, client.query_typed_raw(sql, keys)).await;
    let mut rows = pin!(start.map_err(slow)?.map_err(failed)?);
    let (mut chunk, mut rows_before) = (Vec::with_capacity(CHUNK_ROWS), 0);
    loop {
        let next = tokio::time::timeout(QUERY_LIMIT, rows.try_next()).await.map_err(slow)?.map_err(failed)?;
        let done = next.is_none();
        chunk.extend(next);
        if chunk.len() == CHUNK_ROWS || (done && !chunk.is_empty()) {
            match (batch(&chunk, schema, rows_before), &mut odd) {
                (Ok(rows), _) => take(rows)?,
                (Err(Error::Stop(_)), Some(odd)) => apart(&chunk, schema, take, *odd)?,
                (Err(error), _) => return Err(error.context(pool.doing(what))),
            }
            rows_before += chunk.len();
            chunk.clear();
        }
        if done {
            return Ok(());
        }
    }
}

/// Rows as one record batch; column `n` of the rows is field `n` of the schema, in its kind's base type. `rows_before`
/// rows were read before these: errors number the rows.
///
/// # Errors
/// `Stop` when a value does not fit the field's type.
pub(crate) fn batch(rows: &[Row], schema: &SchemaRef, rows_before: usize) -> Result<RecordBatch> {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (index, field) in schema.fields().iter().enumerate() {
        let raw: Result<Vec<Option<&[u8]>>, _> =
            rows.iter().map(|row| row.try_get::<_, Option<Raw>>(index).map(|value| value.map(|raw| raw.0))).collect();
        let raw = raw.map_err(|error| Error::stop(format!("column {}", field.name())).caused_by(error))?;
        let kind = kind(field)?;
        columns.push(column(&raw, field, kind).ok_or_else(|| misfit(&raw, field, kind, rows_before))?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| Error::stop("a column that must not be null has a null").caused_by(error))
}

/// Gives rows one by one: those that fit to `take`, the others to `odd`.
fn apart(
    rows: &[Row],
    schema: &SchemaRef,
    take: &mut (dyn FnMut(RecordBatch) -> Result<()> + Send),
    odd: &mut (dyn FnMut(OddRow) -> Result<()> + Send),
) -> Result<()> {
    let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let nullable = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
    for row in rows {
        if let Ok(fits) = batch(std::slice::from_ref(row), schema, 0) {
            take(fits)?;
            continue;
        }
        let (mut cells, mut unreadable) = (Vec::new(), Vec::new());
        for (index, field) in schema.fields().iter().enumerate() {
            let raw = row.try_get::<_, Option<Raw>>(index).ok().flatten().map(|raw| raw.0);
            let kind = kind(field)?;
            let cell = column(&[raw], field, kind);
            if cell.as_ref().is_none_or(|cell| cell.is_null(0) && !field.is_nullable()) {
                let what =
                    match raw {
                        None => "NULL".to_owned(),
                        Some(raw) if matches!(kind, Kind::Timestamp | Kind::Date) && is_infinite(raw) => {
                            if raw[0] < 0x80 { "infinity".to_owned() } else { "-infinity".to_owned() }
                        }
                        Some(_) => format!("a value that doesn't fit {kind}"),
                    };
                unreadable.push((index, what));
            }
            cells.push(cell.unwrap_or_else(|| new_null_array(field.data_type(), 1)));
        }
        let row = RecordBatch::try_new(Arc::clone(&nullable), cells);
        let row = row.map_err(|error| Error::stop("internal: a row can't be shown").caused_by(error))?;
        odd(OddRow { row, unreadable })?;
    }
    Ok(())
}

/// The error for a column whose values don't all fit its type: it names the first row that doesn't.
fn misfit(raw: &[Option<&[u8]>], field: &Field, kind: Kind, rows_before: usize) -> Error {
    let row = (0..raw.len()).find(|row| column(&raw[*row..=*row], field, kind).is_none());
    let at = row.map_or_else(String::new, |row| format!("row {} of ", rows_before + row + 1));
    let infinite =
        matches!(kind, Kind::Timestamp | Kind::Date) && row.and_then(|row| raw[row]).is_some_and(is_infinite);
    let what = match infinite {
        true => {
            "`infinity` and `-infinity` can't be used: store NULL or a date within the years 1 to 9999 instead, or \
                 read a view that does so"
                .to_owned()
        }
        false => format!("the value doesn't fit {kind}: change it, or declare a type that holds it"),
    };
    Error::stop(format!("{at}column {}: {what}", field.name()))
}

/// Is it `infinity` or `-infinity`, of a `date` or a time? PostgreSQL uses the largest and the smallest number for them.
fn is_infinite(bytes: &[u8]) -> bool {
    let day = fixed(bytes).map(i32::from_be_bytes).is_some_and(|day| day == i32::MAX || day == i32::MIN);
    day || fixed(bytes).map(i64::from_be_bytes).is_some_and(|us| us == i64::MAX || us == i64::MIN)
}

fn kind(field: &Field) -> Result<Kind> {
    Kind::of(field.data_type()).ok_or_else(|| {
        Error::stop(format!("column {} is {}, which PostgreSQL can't hold", field.name(), field.data_type()))
    })
}

/// A column of the field's exact type; none when a value does not fit.
fn column(raw: &[Option<&[u8]>], field: &Field, kind: Kind) -> Option<ArrayRef> {
    let values: ArrayRef = match kind {
        Kind::Json => return json(raw, field),
        Kind::Text => Arc::new(StringArray::from_iter(all(raw, |bytes| std::str::from_utf8(bytes).ok())?)),
        Kind::Bytes => Arc::new(BinaryArray::from_iter(raw.iter().copied())),
        Kind::Boolean => Arc::new(BooleanArray::from_iter(all(raw, |bytes| Some(fixed::<1>(bytes)? == [1]))?)),
        Kind::SmallInt => Arc::new(Int16Array::from_iter(all(raw, |bytes| fixed(bytes).map(i16::from_be_bytes))?)),
        Kind::Integer => Arc::new(Int32Array::from_iter(all(raw, |bytes| fixed(bytes).map(i32::from_be_bytes))?)),
        Kind::BigInt => Arc::new(Int64Array::from_iter(all(raw, |bytes| fixed(bytes).map(i64::from_be_bytes))?)),
        Kind::Real => Arc::new(Float32Array::from_iter(all(raw, |bytes| fixed(bytes).map(f32::from_be_bytes))?)),
        Kind::Double => Arc::new(Float64Array::from_iter(all(raw, |bytes| fixed(bytes).map(f64::from_be_bytes))?)),
        Kind::Numeric { precision, scale } => {
            let values = Decimal128Array::from_iter(all(raw, |bytes| numeric::read(bytes, u32::from(scale)))?);
            let values = values.with_precision_and_scale(precision, scale as i8).ok()?;
            values.validate_decimal_precision(precision).ok()?;
            Arc::new(values)
        }
        Kind::Timestamp => {
            let us = |bytes: &[u8]| match is_infinite(bytes) {
                true => None,
                false => fixed(bytes).map(i64::from_be_bytes)?.checked_add(EPOCH_US),
            };
            return time(Arc::new(TimestampMicrosecondArray::from_iter(all(raw, us)?)), field.data_type());
        }
        Kind::Date => {
            let day = |bytes: &[u8]| match is_infinite(bytes) {
                true => None,
                false => fixed(bytes).map(i32::from_be_bytes)?.checked_add(EPOCH_DAYS),
            };
            Arc::new(Date32Array::from_iter(all(raw, day)?))
        }
    };
    cast(&values, field.data_type()).ok()
}

/// Reads each value that is there; none when one can't be read.
fn all<'a, T>(raw: &[Option<&'a [u8]>], read: impl Fn(&'a [u8]) -> Option<T>) -> Option<Vec<Option<T>>> {
    raw.iter().map(|value| value.map_or(Some(None), |bytes| read(bytes).map(Some))).collect()
}

fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

/// Microseconds in the unit of `data_type`, under its label of a zone.
fn time(us: ArrayRef, data_type: &DataType) -> Option<ArrayRef> {
    let DataType::Timestamp(unit, _) = data_type else { return None };
    Some(retyped(&cast(&us, &DataType::Timestamp(*unit, None)).ok()?, data_type.clone()))
}

fn json(raw: &[Option<&[u8]>], field: &Field) -> Option<ArrayRef> {
    // Null is allowed here in any case; the schema decides in the end.
    let nullable = Field::new(field.name(), field.data_type().clone(), true);
    let mut decoder = ReaderBuilder::new_with_field(nullable).with_batch_size(raw.len()).build_decoder().ok()?;
    for value in raw {
        // The first byte is the version of jsonb's binary format. A value of its own ends with a space.
        let text = value.map_or(&b"null"[..], |bytes| bytes.get(1..).unwrap_or_default());
        for part in [text, b" "] {
            if decoder.decode(part).ok()? != part.len() {
                return None;
            }
        }
    }
    let batch = decoder.flush().ok()??;
    (batch.num_rows() == raw.len()).then(|| Arc::clone(batch.column(0)))
}

/// A value as it came, whatever its type.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, bytes: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(bytes))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
