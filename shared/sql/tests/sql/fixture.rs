//! Events, their decoded rows, and the table that a statement computes from them.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, Decimal128Array, Float64Array, Int32Array, Int64Array, ListBuilder, RecordBatch,
        StringArray, StringBuilder, TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    util::display::{ArrayFormatter, FormatOptions},
};
use millstream_core::Error;
use millstream_sql::{Input, Planned, ReferenceTable, Statement, plan};

pub fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

pub fn tags() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("branch", DataType::Utf8, true),
        Field::new("amount", DataType::Decimal128(18, 2), true),
        Field::new("count", DataType::Int64, true),
        Field::new("price", DataType::Float64, true),
        Field::new("tags", tags(), true),
        Field::new("at", utc(), false),
        Field::new("_topic", DataType::Utf8, false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_timestamp", utc(), false),
        Field::new("_key", DataType::Utf8, true),
        Field::new("_order", DataType::Binary, false),
    ]))
}

#[derive(Clone, Debug)]
pub struct Event {
    pub branch: Option<&'static str>,
    pub cents: Option<i64>,
    pub count: Option<i64>,
    pub price: f64,
    pub at_s: i64,
}

pub fn event(branch: &'static str, cents: i64, at_s: i64) -> Event {
    Event { branch: Some(branch), cents: Some(cents), count: Some(cents), price: cents as f64 / 8.0, at_s }
}

/// Events as decoded rows; `first` is the offset of the first one.
pub fn rows(events: &[Event], first: i64) -> RecordBatch {
    let times =
        || TimestampMicrosecondArray::from_iter_values(events.iter().map(|e| e.at_s * 1_000_000)).with_timezone("UTC");
    let mut lists = ListBuilder::new(StringBuilder::new());
    for event in events {
        lists.values().append_value(event.branch.unwrap_or("none"));
        lists.values().append_value("all");
        lists.append(true);
    }
    let offsets = first..first + events.len() as i64;
    let order = offsets
        .clone()
        .zip(events)
        .map(|(offset, event)| [(event.at_s as u64).to_be_bytes(), (offset as u64).to_be_bytes()].concat());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(events.iter().map(|e| e.branch))),
        Arc::new(
            Decimal128Array::from_iter(events.iter().map(|e| e.cents.map(i128::from)))
                .with_precision_and_scale(18, 2)
                .unwrap(),
        ),
        Arc::new(Int64Array::from_iter(events.iter().map(|e| e.count))),
        Arc::new(Float64Array::from_iter_values(events.iter().map(|e| e.price))),
        Arc::new(lists.finish()),
        Arc::new(times()),
        Arc::new(StringArray::from_iter_values(events.iter().map(|_| "t"))),
        Arc::new(Int32Array::from_iter_values(events.iter().map(|_| 0))),
        Arc::new(Int64Array::from_iter_values(offsets)),
        Arc::new(times()),
        Arc::new(StringArray::from_iter(events.iter().map(|_| None::<&str>))),
        Arc::new(BinaryArray::from_iter_values(order)),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

pub fn statement(sql: &str) -> Statement<'_> {
    let named = |name: &str| Input { name: name.into(), schema: schema() };
    let fields = vec![Field::new("name", DataType::Utf8, false), Field::new("city", DataType::Utf8, true)];
    let branches = ReferenceTable::new("branches", Arc::new(Schema::new(fields.clone())));
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["a", "b"])), Arc::new(StringArray::from(vec![Some("Rome"), None]))];
    branches.set(vec![RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()]);
    Statement {
        sql,
        inputs: vec![named("t"), named("u")],
        references: vec![Arc::new(branches)],
        into: "out",
        carried: &[],
    }
}

pub async fn planned(sql: &str) -> Planned {
    plan(&statement(sql)).await.unwrap_or_else(|error| panic!("{error}\n{sql}"))
}

pub async fn refused(sql: &str) -> String {
    match plan(&statement(sql)).await {
        Ok(planned) => panic!("was planned: {:?}\n{sql}", planned.table),
        Err(error) => error.to_string(),
    }
}

/// The columns that `planned` reads of the events.
pub fn decoded(planned: &Planned, events: &[Event], first: i64) -> RecordBatch {
    let all = rows(events, first);
    let read: Vec<usize> = (0..schema().fields().len())
        .filter(|index| planned.columns["t"].contains(schema().field(*index).name()))
        .collect();
    all.project(&read).unwrap()
}

/// The table as readers see it, after the events came in the given batches: sorted lines.
pub async fn table(planned: &Planned, batches: &[&[Event]]) -> Result<Vec<String>, Error> {
    let mut states = Vec::new();
    let mut first = 0;
    for batch in batches {
        states.extend(planned.transform.apply("t", decoded(planned, batch, first)).await?);
        first += batch.len() as i64;
    }
    merged(planned, states).await
}

/// The rows that readers see after these rows were written.
pub async fn merged(planned: &Planned, rows: Vec<RecordBatch>) -> Result<Vec<String>, Error> {
    let shown = match &planned.table.combine {
        None => rows,
        Some(combine) => vec![combine.finish(&combine.combine(&rows).await?).await?.0],
    };
    Ok(lines(&shown))
}

/// Rows as sorted lines.
pub fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        let options = FormatOptions::default().with_null("null");
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
        lines.extend(
            (0..batch.num_rows())
                .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|")),
        );
    }
    lines.sort();
    lines
}

pub async fn shown(sql: &str, events: &[Event]) -> Vec<String> {
    table(&planned(sql).await, &[events]).await.unwrap()
}

pub fn few() -> Vec<Event> {
    vec![event("a", 150, 0), event("b", -25, 1), event("a", 50, 2), event("a", 1, 3)]
}
