//! Values of every type in a table with an entity, and values that no function has written.

use std::sync::{Arc, Mutex};

use arrow::{
    array::{
        ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
        ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
    },
    datatypes::{Int32Type, Int64Type},
};
use millstream_core::{Column, Error, Fence, OddRow, Role, Table, TakeOddRow, TakeRows, meta};
use millstream_testkit::rows::{assert_columns, texts as all_texts};

use crate::support::{Database, balances, moved, partition, ready, texts, write};

#[tokio::test]
async fn every_type_comes_back_as_it_went() {
    let columns: Vec<(&str, ArrayRef)> = vec![
        (meta::OFFSET, Arc::new(Int64Array::from(vec![0, 1, 2, 3]))),
        ("who", Arc::new(BinaryArray::from_vec(vec![b"\0", b"\xff}", b"", b"abc"]))),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]))),
        ("number", Arc::new(Float64Array::from(vec![Some(-0.1), Some(f64::INFINITY), None, Some(f64::NAN)]))),
        (
            "money",
            Arc::new(
                Decimal128Array::from(vec![Some(-1), Some(0), None, Some(10_i128.pow(38) - 1)])
                    .with_precision_and_scale(38, 6)
                    .unwrap(),
            ),
        ),
        ("text", Arc::new(StringArray::from(vec![Some(""), Some("a\r\n\"b\""), None, Some("東京")]))),
        ("day", Arc::new(Date32Array::from(vec![Some(-719_162), Some(0), None, Some(20_000)]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), Some(0), None, Some(1_795_000_000_123_456)]))),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
                Some(vec![Some(1), None]),
                Some(vec![]),
                None,
                Some(vec![Some(-5)]),
            ])),
        ),
    ];
    let column = |(name, values): &(&str, ArrayRef)| Column {
        name: (*name).into(),
        data_type: values.data_type().clone(),
        nullable: true,
        role: if *name == "who" { Role::Entity } else { Role::Value },
    };
    let table =
        Table { name: "every".into(), columns: columns.iter().map(column).collect(), combine: None, view: None };
    let values = columns.into_iter().map(|(_, values)| values).collect();
    let written = RecordBatch::try_new(table.schema(), values).unwrap();
    let database = Database::create().await;
    let sink = database.sink(&table);
    let start: Fence = ready(&*sink).await;
    sink.write(&partition(0), &start, &moved(&start, 4), &[written.slice(0, 1), written.slice(1, 3)]).await.unwrap();
    let found = database.sink(&table).snapshot().await.unwrap().rows;
    assert_columns(&table, &found);
    assert_eq!(all_texts(&found), all_texts(&[written]));
}

#[tokio::test]
async fn what_no_function_has_written_is_found() {
    let database = Database::create().await;
    let sink = database.sink(&balances());
    let start = ready(&*sink).await;
    let of = [("ann", Some(1), None, 0), ("bob", Some(2), None, 1), ("cid", Some(3), None, 2)];
    write(&*sink, &start, &of).await.unwrap();
    database.ask::<i64>("HSET", &["balance:{bob}", "amount", "two"]).await;
    database.ask::<i64>("HSET", &["balance:{eve}", "account", "eve"]).await;
    // Neither a reader's nor another table's rows are this table's.
    database.ask::<i64>("HSET", &["balance:aside:{dan}", "account", "dan"]).await;
    database.ask::<i64>("HSET", &["xbalance:{dan}", "account", "dan"]).await;
    let error = sink.snapshot().await.unwrap_err();
    assert!(matches!(&error, Error::Stop(_)) && !error.to_string().contains("two"), "{error}");

    let (good, odd) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (taken, found) = (Arc::clone(&good), Arc::clone(&odd));
    let take: TakeRows = Arc::new(move |rows| {
        taken.lock().unwrap().push(rows);
        Ok(())
    });
    let take_odd: TakeOddRow = Arc::new(move |row: OddRow| {
        found.lock().unwrap().push(row);
        Ok(())
    });
    sink.scan_with_odd(take, take_odd).await.unwrap();
    assert_eq!(all_texts(&good.lock().unwrap()), texts(&[of[0], of[2]]));
    let mut odd = odd.lock().unwrap();
    odd.sort_by_key(|odd| odd.row.column(0).as_string::<i32>().value(0).to_owned());
    let [bob, eve] = &odd[..] else { panic!("{odd:?}") };
    assert_eq!(bob.unreadable, [(1, "two".to_owned())]);
    assert_eq!(bob.row.column(3).as_primitive::<Int64Type>().value(0), 1);
    assert_eq!(eve.unreadable, [(3, "nothing".to_owned())], "without an offset it is no row of the function");
}
