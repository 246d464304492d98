//! Values at the edges of their types.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, Decimal128Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array, Int64Array,
        LargeStringArray, ListArray, RecordBatch, StringArray, StringViewArray, StructArray, TimestampMicrosecondArray,
        TimestampNanosecondArray, TimestampSecondArray, UInt32Array, UInt64Array,
    },
    datatypes::{DataType, Field, Float64Type, Int32Type, TimeUnit},
};
use millstream_core::{Error, Merge, Role, Sink, Table};
use millstream_testkit::rows::{rows, texts};

use crate::support::{Database, Way, column, counts, partition, ready, table, write};

fn values_table(columns: &[(&str, ArrayRef)]) -> Table {
    table("odd", columns.iter().map(|(name, values)| column(name, values.data_type().clone(), Role::Value)).collect())
}

pub async fn unusual_types_come_back_as_they_went(way: Way) {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let name = Arc::new(Field::new("name", DataType::Utf8, true));
    let amount = Arc::new(Field::new("amount", DataType::Decimal128(18, 2), true));
    let amounts = Decimal128Array::from(vec![Some(-1), None, Some(1_234_567_890_123_450)]);
    let nested = StructArray::from(vec![
        (name, Arc::new(StringArray::from(vec![Some("a \"b\" \\ \n 東"), None, Some("")])) as ArrayRef),
        (amount, Arc::new(amounts.with_precision_and_scale(18, 2).unwrap()) as ArrayRef),
    ]);
    let fixed =
        FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some([0, 255]), None, Some([1, 2])].into_iter(), 2);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i8", Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(i8::MAX)]))),
        ("u32", Arc::new(UInt32Array::from(vec![Some(u32::MAX), None, Some(0)]))),
        ("u64", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(0)]))),
        ("f32", Arc::new(Float32Array::from(vec![Some(f32::NAN), Some(f32::INFINITY), Some(f32::MIN_POSITIVE)]))),
        ("f64", Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(f64::NEG_INFINITY), Some(5e-324)]))),
        ("large", Arc::new(LargeStringArray::from(vec![Some("x"), None, Some("")]))),
        ("view", Arc::new(StringViewArray::from(vec![Some("longer than twelve bytes"), None, Some("")]))),
        ("fixed", Arc::new(fixed.unwrap())),
        ("s", Arc::new(TimestampSecondArray::from(vec![Some(-1), None, Some(1_795_000_000)]).with_timezone("+09:00"))),
        ("ns", Arc::new(TimestampNanosecondArray::from(vec![Some(-1_000), None, Some(1_795_000_000_123_456_000)]))),
        ("list", Arc::new(list)),
        ("nested", Arc::new(nested)),
    ];
    let table = values_table(&columns);
    let database = Database::create(way).await;
    let sink = database.sink(&table);
    let start = ready(&sink).await;
    let written = rows(&table, columns.into_iter().map(|(_, values)| values).collect());
    write(&sink, &start, std::slice::from_ref(&written)).await.unwrap();
    let held = sink.snapshot().await.unwrap();
    assert_eq!(held.rows[0].schema(), table.schema());
    assert_eq!(texts(&held.rows), texts(&[written]));
    database.drop().await;
}

/// The write must be `Poison`, say what is wrong without the value, and change nothing. A secret of digits alone could be
/// a part of the server's port or of the database's name, which the message does say.
async fn refused(database: &Database, table: &Table, row: RecordBatch, secret: &str) {
    let sink = database.sink(table);
    sink.prepare(true).await.unwrap();
    let start = sink.fence(&partition(0)).await.unwrap().unwrap();
    match write(&sink, &start, &[row]).await {
        Err(Error::Poison(cause)) => {
            let said = cause.to_string();
            assert!(!said.contains(secret), "{said}");
        }
        other => panic!("expected Poison, got {other:?}"),
    }
    assert_eq!(sink.fence(&partition(0)).await.unwrap(), Some(start));
}

pub async fn what_has_no_place_is_poison(way: Way) {
    let database = Database::create(way).await;
    ready(&database.sink(&counts(false))).await;
    let late = i64::MIN + 1;
    let nested = StructArray::from(vec![(
        Arc::new(Field::new("name", DataType::Utf8, true)),
        Arc::new(StringArray::from(vec!["k4711\0"])) as ArrayRef,
    )]);
    let cases: Vec<(&str, ArrayRef)> = vec![
        ("nul", Arc::new(StringArray::from(vec!["k4711\0"]))),
        ("nested_nul", Arc::new(nested)),
        ("early", Arc::new(TimestampMicrosecondArray::from(vec![late]))),
        ("early_s", Arc::new(TimestampSecondArray::from(vec![late]))),
        ("too_large", Arc::new(arrow::array::Date32Array::from(vec![i32::MIN]))),
    ];
    for (name, values) in cases {
        let table = Table { name: name.to_owned(), ..values_table(&[("value", values.clone())]) };
        refused(&database, &table, rows(&table, vec![values]), "k4711").await;
    }
    // A sum that leaves its type, narrower in Arrow than in PostgreSQL.
    let sum = |data_type| table("sums", vec![column("n", data_type, Role::State(Merge::Sum))]);
    let table = sum(DataType::Decimal128(5, 2));
    let most = || Arc::new(Decimal128Array::from(vec![99_999]).with_precision_and_scale(5, 2).unwrap());
    let sink = database.sink(&table);
    sink.prepare(true).await.unwrap();
    let start = sink.fence(&partition(0)).await.unwrap().unwrap();
    write(&sink, &start, &[rows(&table, vec![most()])]).await.unwrap();
    refused(&database, &table, rows(&table, vec![most()]), "999.99").await;
    database.execute("DROP TABLE sums").await;
    // What a constraint of the user's refuses.
    let table = values_table(&[("value", Arc::new(StringArray::from(vec!["k4711"])))]);
    database.sink(&table).prepare(true).await.unwrap();
    database.execute("ALTER TABLE odd ADD CHECK (value <> 'k4711'); CREATE UNIQUE INDEX ON odd (value)").await;
    refused(&database, &table, rows(&table, vec![Arc::new(StringArray::from(vec!["k4711"]))]), "k4711").await;
    refused(&database, &table, rows(&table, vec![Arc::new(StringArray::from(vec!["twice", "twice"]))]), "twice").await;
    // A key longer than an index takes.
    let table = crate::support::table(
        "long",
        vec![column("key", DataType::Utf8, Role::Key), column("n", DataType::Int64, Role::State(Merge::Sum))],
    );
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec![incompressible()])), Arc::new(Int64Array::from(vec![1]))];
    refused(&database, &table, rows(&table, columns), "\u{1}").await;
    database.drop().await;
}

/// A text that PostgreSQL can't compress below the limit of an index.
fn incompressible() -> String {
    let mut state = 1_u64;
    let mut next = || {
        // Knuth's linear congruential generator: the same text each time.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 33) as u8 % 90)
    };
    (0..20_000).map(|_| next()).collect()
}

pub async fn keys_that_are_the_same_only_to_postgres_merge_in_writes_of_their_own(way: Way) {
    let key = |data_type| {
        table("zero", vec![column("key", data_type, Role::Key), column("n", DataType::Int64, Role::State(Merge::Sum))])
    };
    let table = key(DataType::Float64);
    let row = |keys: Vec<f64>| {
        let n = Int64Array::from(vec![1; keys.len()]);
        rows(&table, vec![Arc::new(arrow::array::PrimitiveArray::<Float64Type>::from(keys)), Arc::new(n)])
    };
    let database = Database::create(way).await;
    let sink = database.sink(&table);
    let start = ready(&sink).await;
    match write(&sink, &start, &[row(vec![0.0, -0.0])]).await {
        Err(Error::Poison(_)) => {}
        other => panic!("expected Poison, which makes the runner cut the batch, got {other:?}"),
    }
    let one = write(&sink, &start, &[row(vec![0.0])]).await.unwrap();
    write(&sink, &one, &[row(vec![-0.0])]).await.unwrap();
    assert_eq!(database.ask("SELECT sum(n) || ' in ' || count(*) FROM zero").await, "2 in 1");
    // Times that differ by less than a microsecond are one key as well.
    let table = Table { name: "moment".to_owned(), ..key(DataType::Timestamp(TimeUnit::Nanosecond, None)) };
    let sink = database.sink(&table);
    sink.prepare(true).await.unwrap();
    let at = |ns| {
        rows(&table, vec![Arc::new(TimestampNanosecondArray::from(vec![ns])), Arc::new(Int64Array::from(vec![1]))])
    };
    let mut fence = sink.fence(&partition(0)).await.unwrap().unwrap();
    for ns in [1_000, 1_001] {
        fence = write(&sink, &fence, &[at(ns)]).await.unwrap();
    }
    assert_eq!(database.ask("SELECT sum(n) || ' in ' || count(*) FROM moment").await, "2 in 1");
    database.drop().await;
}
