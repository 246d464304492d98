//! Rows by key.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Date32Array, Int32Array, Int64Array, StringArray, new_empty_array},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};
use millstream_core::{Connect as _, Env, Error, TableStore as _};
use millstream_postgres::Postgres;

use crate::support::{Database, Way};

fn schema(by: &str, data_type: DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(by, data_type, true), Field::new("n", DataType::Int64, true)]))
}

pub async fn references_are_asked_by_key(way: Way) {
    let database = Database::create(way).await;
    database
        .execute(
            "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             CREATE TABLE item (n bigint, i integer, small smallint, name text, code varchar(9), fixed char(5), other text COLLATE blind,
                                id uuid, day date, at timestamp, amount numeric(12,2), flag boolean);
             CREATE INDEX ON item (i);
             INSERT INTO item VALUES
               (1, 1, 1, 'a', 'x', 'ab', 'Ann', '0f8fad5b-d9cb-469f-a165-70867728950e', '2026-11-21', '2026-11-21 05:00', 5, true),
               (2, 2, 2, 'A', 'y', 'cd', 'ann', '7c9e6679-7425-40de-944b-e07fc1f90ae7', '2026-11-22', '2026-11-22', 5.50, false),
               (3, 2, 2, 'ü', 'x', 'ef', NULL, NULL, NULL, NULL, NULL, NULL), (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
             INSERT INTO item (n, i) SELECT n, n FROM generate_series(1000, 9999) AS n",
        )
        .await;
    let store = Postgres::open(&Env::of([("MILLSTREAM_POSTGRES_URL", database.url().as_str())])).unwrap().unwrap();
    let ask = async |by: &str, keys: ArrayRef| {
        let rows = store.read_by_key("item", &schema(by, keys.data_type().clone()), by, &keys).await;
        rows.map(|rows| {
            let numbers =
                rows.iter().flat_map(|rows| rows.column(1).as_primitive::<Int64Type>().values().iter().copied());
            let mut numbers: Vec<i64> = numbers.collect();
            numbers.sort_unstable();
            numbers
        })
    };
    let texts = |keys: &[&str]| Arc::new(StringArray::from(keys.to_vec())) as ArrayRef;
    assert_eq!(ask("i", Arc::new(Int32Array::from(vec![2, 1, 77]))).await.unwrap(), [1, 2, 3]);
    assert_eq!(ask("small", Arc::new(Int64Array::from(vec![2, i64::MAX]))).await.unwrap(), [2, 3]);
    assert_eq!(ask("amount", Arc::new(Int64Array::from(vec![5]))).await.unwrap(), [1], "5.50 is no 5");
    assert_eq!(ask("name", texts(&["a", "ü", "a\0", "b"])).await.unwrap(), [1, 3]);
    assert_eq!(ask("code", texts(&["x"])).await.unwrap(), [1, 3]);
    assert_eq!(
        ask("fixed", texts(&["ab", "cd   "])).await.unwrap(),
        [1],
        "as the join sees it, without blanks at the end"
    );
    assert_eq!(ask("other", texts(&["ann", "ANN"])).await.unwrap(), [2], "whatever the collation takes for equal");
    let uuids = texts(&["0f8fad5b-d9cb-469f-a165-70867728950e", "7C9E6679-7425-40DE-944B-E07FC1F90AE7", "no uuid"]);
    assert_eq!(ask("id", uuids).await.unwrap(), [1]);
    assert_eq!(ask("day", Arc::new(Date32Array::from(vec![20_778]))).await.unwrap(), [1]);
    assert_eq!(ask("day", Arc::new(Date32Array::from(vec![-3_000_000]))).await.unwrap(), [0; 0], "before all days");
    let refused = ask("at", Arc::new(Date32Array::from(vec![20_778]))).await.unwrap_err();
    assert!(matches!(&refused, Error::Stop(_)) && refused.to_string().contains("is a timestamp"), "{refused}");
    assert_eq!(ask("flag", texts(&["true"])).await.unwrap(), [1]);
    assert_eq!(ask("i", new_empty_array(&DataType::Int32)).await.unwrap(), [0; 0]);
    let many: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
    assert_eq!(ask("i", many).await.unwrap().len(), 9_003);

    let key: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    // A value that doesn't fit is no record's fault, and never rounded.
    let whole = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("amount", DataType::Int32, true),
    ]));
    let rows = store.read_by_key("item", &whole, "n", &(Arc::new(Int64Array::from(vec![2])) as _)).await.unwrap();
    assert_eq!(rows[0].column(1).data_type(), &DataType::Decimal128(12, 2), "as it is, for who asked to find out");
    database.execute("UPDATE item SET n = 3000000000 WHERE n = 2").await;
    let narrow =
        Arc::new(Schema::new(vec![Field::new("i", DataType::Int32, true), Field::new("n", DataType::Int32, true)]));
    let error = store.read_by_key("item", &narrow, "i", &(Arc::new(Int32Array::from(vec![2])) as _)).await.unwrap_err();
    assert!(matches!(&error, Error::Stop(_)), "{error:?}");
    database.execute("UPDATE item SET n = 2 WHERE n = 3000000000").await;
    for (table, by, says) in [("nowhere", "i", "no such table"), ("item", "j", "no column j")] {
        let error = store.read_by_key(table, &schema(by, DataType::Int64), by, &key).await.unwrap_err();
        assert!(matches!(&error, Error::Stop(_)) && error.to_string().contains(says), "{error}");
    }
    // The statement is made again when the table has changed.
    database.execute("ALTER TABLE item DROP COLUMN small; ALTER TABLE item ADD COLUMN small text DEFAULT '2'").await;
    let _ = ask("small", Arc::new(Int64Array::from(vec![2]))).await;
    assert_eq!(ask("small", texts(&["2"])).await.unwrap().len(), 9_004);
    drop(store);
    database.drop().await;
}
