//! What a table holds, and whether it fits.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
        StringArray, TimestampMicrosecondArray,
    },
    datatypes::{DataType, TimeUnit},
};
use millstream_core::{Column, Error, Fence, Role, Table, meta};

use super::{
    SinkHarness,
    sink_fixture::{column, held, moved, open, partition, plain_rows, plain_table},
};
use crate::{
    adopt,
    rows::{assert_columns, rows, texts},
};

pub(super) async fn every_column_type_round_trips(harness: &dyn SinkHarness) {
    let (table, columns) = every_type();
    let written = rows(&table, columns);
    let sink = open(harness, "types", table.clone()).await;
    let fence = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    // Sliced, because rows often are: an adapter that reads the buffers from their beginning would show.
    let parts = [written.slice(0, 1), written.slice(1, 3)];
    sink.write(&partition(0), &fence, &moved(&fence, 4), &parts).await.unwrap();
    let again = open(harness, "types", table.clone()).await;
    let snapshot = again.snapshot().await.unwrap();
    assert_columns(&table, &snapshot.rows);
    assert_eq!(texts(&snapshot.rows), texts(&[written]));
}

pub(super) async fn prepare_may_be_called_again(harness: &dyn SinkHarness) {
    let (table, columns) = every_type();
    let sink = open(harness, "again", table.clone()).await;
    let fence = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    sink.write(&partition(0), &fence, &moved(&fence, 4), &[rows(&table, columns)]).await.unwrap();
    sink.prepare(true).await.unwrap();
    sink.prepare(false).await.unwrap();
    let again = harness.open("again", "suite.function", table).await;
    again.prepare(false).await.unwrap();
    assert_eq!(held(again.as_ref()).await.len(), 4);
    // Two that start at the same moment.
    let left = harness.open("again_at_once", "suite.function", plain_table()).await;
    let right = harness.open("again_at_once", "suite.function", plain_table()).await;
    let (left, right) = tokio::join!(left.prepare(true), right.prepare(true));
    left.unwrap();
    right.unwrap();
}

pub(super) async fn a_missing_table_stops(harness: &dyn SinkHarness) {
    let sink = harness.open("missing", "suite.function", plain_table()).await;
    match sink.prepare(false).await {
        Err(Error::Stop(cause)) => assert!(cause.to_string().contains("plain"), "says which table: {cause}"),
        other => panic!("a missing table that may not be created must Stop, got {other:?}"),
    }
}

pub(super) async fn other_columns_stop(harness: &dyn SinkHarness) {
    let sink = open(harness, "columns", plain_table()).await;
    let fence = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    sink.write(&partition(0), &fence, &moved(&fence, 3), &[plain_rows(0..3)]).await.unwrap();
    let mut retyped = plain_table();
    retyped.columns[1].data_type = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut renamed = plain_table();
    renamed.columns[1].name = "words".into();
    for table in [retyped, renamed] {
        let other = harness.open("columns", "suite.function", table).await;
        for create in [false, true] {
            match other.prepare(create).await {
                Err(Error::Stop(cause)) => {
                    let says = cause.to_string();
                    assert!(says.contains("text") || says.contains("words"), "says which column: {says}");
                }
                other => panic!("columns that don't fit must Stop, got {other:?}"),
            }
        }
    }
    open(harness, "columns", plain_table()).await;
}

pub(super) async fn what_keeps_a_table_from_being_adapted_is_told(harness: &dyn SinkHarness) {
    let sink = open(harness, "adapted_columns", plain_table()).await;
    let start = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    sink.write(&partition(0), &start, &moved(&start, 2), &[plain_rows(0..2)]).await.unwrap();
    let of = |change: fn(&mut Table)| {
        let mut table = plain_table();
        change(&mut table);
        harness.open("adapted_columns", "suite.function", table)
    };
    for other in [
        of(|table| table.columns[0].data_type = DataType::Int32).await,
        of(|table| table.columns[1].data_type = DataType::Date32).await,
    ] {
        assert_ne!(other.misfits().await.unwrap(), [""; 0]);
        let adapted = adopt(other.as_ref(), "suite.function").await;
        assert!(matches!(adapted, Err(Error::Stop(_))), "{adapted:?}");
    }
    assert_eq!(held(sink.as_ref()).await.len(), 2);
    sink.prepare(false).await.unwrap();
    // A store may take it or not, but what it says is what it does.
    let more = of(|table| table.columns.push(column("more", DataType::Int64, Role::Value))).await;
    let misfits = more.misfits().await.unwrap();
    let adapted = adopt(more.as_ref(), "suite.function").await;
    assert_eq!(misfits.is_empty(), adapted.is_ok(), "{misfits:?}, {adapted:?}");
    if adapted.is_ok() {
        assert_eq!(held(more.as_ref()).await.len(), 2);
    }
}

pub(super) async fn names_that_need_quoting(harness: &dyn SinkHarness) {
    let mut table = plain_table();
    table.name = "Order".into();
    table.columns[1].name = "Größe_In \"cm\"".into();
    table.columns.push(Column { name: "select".into(), ..table.columns[0].clone() });
    let sink = open(harness, "quoting", table.clone()).await;
    let fence = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let plain = plain_rows(0..2);
    let written = rows(&table, [plain.columns(), &plain.columns()[..1]].concat());
    sink.write(&partition(0), &fence, &moved(&fence, 2), std::slice::from_ref(&written)).await.unwrap();
    let snapshot = open(harness, "quoting", table.clone()).await.snapshot().await.unwrap();
    assert_columns(&table, &snapshot.rows);
    assert_eq!(texts(&snapshot.rows), texts(&[written]));
}

pub(super) async fn an_unstorable_value_is_poison(harness: &dyn SinkHarness) {
    let Some((table, row)) = harness.unstorable() else { return };
    let sink = open(harness, "unstorable", table).await;
    let fence = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    match sink.write(&partition(0), &fence, &moved(&fence, 1), std::slice::from_ref(&row)).await {
        Err(Error::Poison(_)) => {}
        other => panic!("a row that can't be stored must be Poison, got {other:?}"),
    }
    assert_eq!(sink.fence(&partition(0)).await.unwrap(), Some(fence.clone()));
    assert_eq!(held(sink.as_ref()).await.len(), 0);
    sink.write(&partition(0), &fence, &moved(&fence, 1), &[row.slice(0, 0)]).await.unwrap();
}

/// One column of every type that a function's SQL can give, as rows that try its limits.
fn every_type() -> (Table, Vec<ArrayRef>) {
    let columns: Vec<(&str, ArrayRef)> = vec![
        (meta::OFFSET, Arc::new(Int64Array::from(vec![0, 1, 2, 3]))),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]))),
        ("small", Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(0), None, Some(i32::MAX)]))),
        ("big", Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(-1), None, Some(i64::MAX)]))),
        ("number", Arc::new(Float64Array::from(vec![Some(-0.1), Some(1.0 / 3.0), None, Some(f64::MAX)]))),
        ("money", Arc::new(decimals(vec![Some(-1), Some(0), None, Some(999_999_999_999_999_999)], 18, 2))),
        ("huge", Arc::new(decimals(vec![Some(10i128.pow(38) - 1), Some(1), None, Some(1 - 10i128.pow(38))], 38, 6))),
        (
            "text",
            Arc::new(StringArray::from(vec![Some(""), Some("Zürich 東京 🏦"), None, Some("a\tb\n\"c\\d',{}\\N")])),
        ),
        ("bytes", Arc::new(BinaryArray::from_opt_vec(vec![Some(b""), Some(b"\0\xff\\x"), None, Some(b"abc")]))),
        ("day", Arc::new(Date32Array::from(vec![Some(-719_162), Some(0), None, Some(20_000)]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(times()).with_timezone("UTC"))),
        ("local", Arc::new(TimestampMicrosecondArray::from(times()))),
    ];
    let column = |(name, values): &(&str, ArrayRef)| Column {
        name: (*name).into(),
        data_type: values.data_type().clone(),
        nullable: true,
        role: Role::Value,
    };
    let table =
        Table { name: "every_type".into(), columns: columns.iter().map(column).collect(), combine: None, view: None };
    (table, columns.into_iter().map(|(_, values)| values).collect())
}

fn decimals(values: Vec<Option<i128>>, precision: u8, scale: i8) -> Decimal128Array {
    Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap()
}

/// Year 1, before 1970 with a fraction, none, and now.
fn times() -> Vec<Option<i64>> {
    vec![Some(-62_135_596_800_000_000), Some(-1), None, Some(1_795_000_000_123_456)]
}
