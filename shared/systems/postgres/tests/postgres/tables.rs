//! Tables, views and references.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Date32Array, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use millstream_core::{Error, Fence, Merge, Role, Sink, Table, View};
use millstream_postgres::{newest_rows, read_table};
use millstream_testkit::{rows::texts, sessions};

use crate::support::{Database, Way, adopt, column, connect, counts, moved, partition, ready, table, write};

async fn stopped(database: &Database, table: &Table, create: bool) -> String {
    match database.sink(table).prepare(create).await {
        Err(Error::Stop(cause)) => cause.to_string(),
        other => panic!("expected Stop, got {other:?}"),
    }
}

pub async fn a_table_that_does_not_fit_is_described(way: Way) {
    let database = Database::create(way).await;
    let table = counts(false);
    let said = stopped(&database, &table, false).await;
    for part in ["table counts is missing", "table millstream_fences is missing", "millstream up"] {
        assert!(said.contains(part), "{said}");
    }
    database.execute("CREATE TABLE counts (key integer, other text NOT NULL, more text NOT NULL DEFAULT '')").await;
    let said = stopped(&database, &table, true).await;
    for part in
        ["counts.key is integer, not bigint", "no column n bigint", "counts.other is NOT NULL", "`millstream rebuild`"]
    {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains("more"), "{said}");
    // A table without its index: created if allowed, unless the rows there refuse it.
    database
        .execute("DROP TABLE counts; CREATE TABLE counts (key bigint, n bigint); CREATE INDEX ON counts (key)")
        .await;
    assert!(stopped(&database, &table, false).await.contains("no unique index on (\"key\")"));
    database.execute("INSERT INTO counts VALUES (NULL, 1), (NULL, 2)").await;
    stopped(&database, &table, true).await;
    database.execute("TRUNCATE counts").await;
    database.sink(&table).prepare(true).await.unwrap();
    // A primary key does as well.
    database.execute("DROP TABLE counts; CREATE TABLE counts (key bigint PRIMARY KEY, n bigint)").await;
    database.sink(&table).prepare(false).await.unwrap();
    database.drop().await;
}

pub async fn fences_from_before_topic_ids_get_their_column(way: Way) {
    let database = Database::create(way).await;
    let table = counts(false);
    let start = ready(&database.sink(&table)).await;
    database.execute("ALTER TABLE millstream_fences DROP COLUMN topic_id").await;
    let said = stopped(&database, &table, false).await;
    assert!(said.contains("millstream_fences has no column topic_id") && said.contains("millstream up"), "{said}");
    let (one, two) = (database.sink(&table), database.sink(&table));
    let (first, second) = tokio::join!(one.prepare(true), two.prepare(true));
    first.and(second).unwrap();
    assert_eq!(one.fence(&partition(0)).await.unwrap(), Some(start.clone()), "it is still there, and has no id yet");
    let known = Fence { topic_id: Some("an-id".to_owned()), ..moved(&start, 1) };
    one.write(&partition(0), &start, &known, &[]).await.unwrap();
    assert_eq!(two.fence(&partition(0)).await.unwrap(), Some(known));
    database.drop().await;
}

/// What waits for a lock has all that come later wait as well.
pub async fn a_change_of_a_table_does_not_queue_up_behind_a_long_reader(way: Way) {
    let database = Database::create(way).await;
    let table = counts(false);
    let sink = database.sink(&table);
    ready(&sink).await;
    database.execute("ALTER TABLE millstream_fences DROP COLUMN topic_id").await;
    let reader = connect(&database.direct_url()).await;
    reader.batch_execute("BEGIN; SELECT * FROM millstream_fences").await.unwrap();
    let prepared = tokio::time::timeout(std::time::Duration::from_secs(20), sink.prepare(true)).await;
    match prepared.expect("it gives up") {
        Err(Error::Retry(cause)) => assert!(cause.to_string().contains("a long query"), "{cause}"),
        other => panic!("expected Retry, got {other:?}"),
    }
    reader.batch_execute("COMMIT").await.unwrap();
    sink.prepare(true).await.unwrap();
    database.drop().await;
}

pub async fn sessions_join_in_a_view(way: Way) {
    let database = Database::create(way).await;
    let table = sessions::table();
    let sinks = [database.sink(&table), database.sink(&table)];
    sinks[0].prepare(true).await.unwrap();
    let events = sessions::events(7);
    sessions::write([sinks[0].clone(), sinks[1].clone()], &events).await;
    let row = "visitor || '|' || began || '|' || ended || '|' || n";
    let shown = database.ask(&format!("SELECT string_agg({row}, ';') FROM visits")).await;
    let mut shown: Vec<Vec<_>> = shown.split(';').map(|row| row.split('|').map(str::to_owned).collect()).collect();
    shown.sort();
    assert_eq!(shown, sessions::expected(&events));
    database.drop().await;
}

fn with_view(select: &str, columns: &[(&str, DataType)]) -> Table {
    let columns = columns.iter().map(|(name, data_type)| ((*name).to_owned(), data_type.clone())).collect();
    let (name, select, together) = ("seen".to_owned(), select.to_owned(), vec!["key".to_owned()]);
    Table { view: Some(View { name, columns, select, together }), ..counts(false) }
}

pub async fn a_view_follows_its_statement(way: Way) {
    let database = Database::create(way).await;
    let first = with_view("SELECT key, n FROM counts WHERE n > 0", &[("key", DataType::Int64), ("n", DataType::Int64)]);
    assert!(stopped(&database, &first, false).await.contains("view seen is missing"));
    let sink = database.sink(&first);
    let start = ready(&sink).await;
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1])), Arc::new(Int64Array::from(vec![5]))];
    write(&sink, &start, &[millstream_testkit::rows::rows(&first, columns)]).await.unwrap();
    database.execute("GRANT SELECT ON seen TO PUBLIC").await;
    // Another expression with the same columns keeps the rights; the check alone says that it is out of date.
    let second = with_view(
        "SELECT key, n * 2 AS n FROM counts WHERE 'it''s' <> ''",
        &[("key", DataType::Int64), ("n", DataType::Int64)],
    );
    assert!(stopped(&database, &second, false).await.contains("created from another statement"));
    database.sink(&second).prepare(true).await.unwrap();
    assert_eq!(database.ask("SELECT n FROM seen").await, "10");
    assert_eq!(database.ask("SELECT relacl IS NOT NULL FROM pg_class WHERE relname = 'seen'").await, "true");
    // Other columns: re-created, with the rights that it had.
    let third = with_view("SELECT n::text AS label FROM counts", &[("label", DataType::Utf8)]);
    database.sink(&third).prepare(true).await.unwrap();
    assert_eq!(database.ask("SELECT label FROM seen").await, "5");
    let given = "SELECT count(*) FROM pg_class, aclexplode(relacl) WHERE relname = 'seen' AND grantee = 0";
    assert_eq!(database.ask(given).await, "1");
    database.sink(&third).prepare(false).await.unwrap();
    // Something depends on it: a person decides.
    database.execute("CREATE VIEW mine AS SELECT label FROM seen").await;
    assert!(stopped(&database, &second, true).await.contains("depend"));
    database.drop().await;
}

pub async fn a_table_is_adapted_to_another_plan(way: Way) {
    let database = Database::create(way).await;
    let columns = [("key", DataType::Int64), ("n", DataType::Int64)];
    let first = with_view("SELECT key, n FROM counts", &columns);
    let sink = database.sink(&first);
    let start = ready(&sink).await;
    let one = |values: [Option<i64>; 2]| -> Vec<ArrayRef> {
        values.iter().map(|value| Arc::new(Int64Array::from(vec![*value])) as ArrayRef).collect()
    };
    let fence = write(&sink, &start, &[millstream_testkit::rows::rows(&first, one([Some(1), Some(5)]))]).await.unwrap();
    database.execute("GRANT SELECT ON seen TO PUBLIC; COMMENT ON TABLE counts IS 'mine'").await;

    let top = column("top", DataType::Int64, Role::State(Merge::Max));
    let wider = table("counts", [counts(false).columns, vec![top]].concat());
    let select = "SELECT key, n, top FROM counts";
    let view = with_view(select, &[("key", DataType::Int64), ("n", DataType::Int64), ("top", DataType::Int64)]).view;
    let wider = Table { view, ..wider };
    assert!(stopped(&database, &wider, true).await.contains("no column top"), "only on request");
    let adapted = database.sink(&wider);
    adopt(&adapted).await.unwrap();
    let rows = [one([Some(1), Some(2)]), one([Some(9), None])[..1].to_vec()].concat();
    write(&adapted, &fence, &[millstream_testkit::rows::rows(&wider, rows)]).await.unwrap();
    assert_eq!(database.ask("SELECT key || ',' || n || ',' || top FROM seen").await, "1,7,9");
    let given = "SELECT count(*) FROM pg_class, aclexplode(relacl) WHERE relname = 'seen' AND grantee = 0";
    assert_eq!(database.ask(given).await, "1");
    assert_eq!(database.ask("SELECT obj_description('counts'::regclass)").await, "mine");

    // One misfit, and nothing of it is done.
    let mut other = wider.clone();
    other.columns[1].data_type = DataType::Utf8;
    other.columns.push(column("more", DataType::Int64, Role::State(Merge::Max)));
    let refused = adopt(&database.sink(&other)).await.unwrap_err().to_string();
    assert!(refused.contains("counts.n is bigint, not text"), "{refused}");
    assert_eq!(
        database
            .ask("SELECT count(*) FROM pg_attribute WHERE attrelid = 'counts'::regclass AND attname = 'more'")
            .await,
        "0"
    );
    database.drop().await;
}

pub async fn results_do_not_become_states(way: Way) {
    let database = Database::create(way).await;
    let plain = table("seen", counts(false).columns);
    ready(&database.sink(&plain)).await;
    let columns = [("key", DataType::Int64), ("n", DataType::Int64)];
    let states = with_view("SELECT key, n FROM counts", &columns);
    let said = stopped(&database, &states, true).await;
    assert!(said.contains("seen is a table, and must be a view"), "{said}");
    assert!(adopt(&database.sink(&states)).await.is_err());
    database.drop().await;
}

pub async fn what_would_refuse_the_rows_of_another_plan_is_found(way: Way) {
    let database = Database::create(way).await;
    let narrow = counts(false);
    ready(&database.sink(&narrow)).await;
    let adapt = async |table: &Table| adopt(&database.sink(table)).await.map_err(|error| error.to_string());
    // More keys: the old index would refuse the second row of a key.
    let mut wider = narrow.clone();
    wider.columns.push(column("more", DataType::Int64, Role::Key));
    database.execute("ALTER TABLE counts ADD COLUMN more bigint").await;
    let refused = adapt(&wider).await.unwrap_err();
    assert!(refused.contains("unique index") && refused.contains("drop it first"), "{refused}");
    database.execute("DROP INDEX counts_key_idx").await;
    adapt(&wider).await.unwrap();
    // Plain rows where rows merged.
    let plain =
        table("counts", vec![column("key", DataType::Int64, Role::Value), column("n", DataType::Int64, Role::Value)]);
    assert!(adapt(&plain).await.unwrap_err().contains("unique index"));
    // A null where there was none.
    database.execute("DROP TABLE counts; CREATE TABLE counts (key bigint NOT NULL, n bigint NOT NULL)").await;
    adapt(&plain).await.unwrap();
    database.execute("INSERT INTO counts VALUES (NULL, NULL)").await;
    // A view takes no rows.
    database.execute("DROP TABLE counts; CREATE VIEW counts AS SELECT 1::bigint AS key, 2::bigint AS n").await;
    assert!(adapt(&plain).await.unwrap_err().contains("counts is no table"));
    database.drop().await;
}

pub async fn a_view_of_somebody_else_is_left_alone(way: Way) {
    let database = Database::create(way).await;
    database.execute("CREATE VIEW seen AS SELECT 1::bigint AS key").await;
    let other = with_view("SELECT key, n FROM counts", &[("key", DataType::Int64), ("n", DataType::Int64)]);
    let said = stopped(&database, &other, true).await;
    assert!(said.contains("seen has the columns (key), not (key, n)"), "{said}");
    let same = with_view("SELECT key FROM counts", &[("key", DataType::Int64)]);
    database.sink(&same).prepare(true).await.unwrap();
    assert_eq!(database.ask("SELECT key FROM seen").await, "1");
    database.drop().await;
}

pub async fn the_newest_rows_are_those_of_the_latest_window(way: Way) {
    let database = Database::create(way).await;
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns = vec![
        column("word", DataType::Utf8, Role::Key),
        column("first_at", time.clone(), Role::State(Merge::Min)),
        column("window", time.clone(), Role::Key),
        column("n", DataType::Int64, Role::State(Merge::Sum)),
    ];
    let plain = table("words", columns);
    let view = View {
        name: "words_seen".to_owned(),
        columns: vec![("window".to_owned(), time), ("twice".to_owned(), DataType::Int64)],
        select: "SELECT \"window\", n * 2 AS twice FROM words".to_owned(),
        together: vec!["word".to_owned(), "window".to_owned()],
    };
    let seen = Table { view: Some(view), ..plain.clone() };
    database.sink(&seen).prepare(true).await.unwrap();
    database
        .execute(
            "INSERT INTO words VALUES ('b', '2026-01-03Z', '2026-01-01Z', 1), ('c', '2026-01-01Z', '2026-01-03Z', 3), \
             (NULL, NULL, '2026-01-02Z', 2)",
        )
        .await;
    let (names, rows) = newest_rows(&database.pool(), &plain, 2).await.unwrap();
    assert_eq!(names, ["word", "first_at", "window", "n"]);
    let shown: Vec<_> = rows.iter().map(|row| (row[0].as_str(), row[3].as_str())).collect();
    assert_eq!(shown, [("c", "3"), ("null", "2")]);
    let (names, rows) = newest_rows(&database.pool(), &seen, 9).await.unwrap();
    assert_eq!((names, rows.len(), rows[0][1].as_str()), (vec!["window".to_owned(), "twice".to_owned()], 3, "6"));
    // Without a time nothing says what is newest.
    assert_eq!(newest_rows(&database.pool(), &counts(false), 9).await.unwrap().1.len(), 0);
    database.drop().await;
}

pub async fn references_are_read(way: Way) {
    let database = Database::create(way).await;
    database
        .execute(
            "CREATE TABLE branch (id integer, name varchar(20), fee numeric, opened timestamp, day date, extra text);
             INSERT INTO branch VALUES (1, 'Zürich', 1.50, '2026-11-21 10:00:00.000001', '2026-11-21', ''), (2, NULL, -3, NULL, NULL, NULL)",
        )
        .await;
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("fee", DataType::Decimal128(10, 2), true),
        Field::new("opened", utc, true),
        Field::new("day", DataType::Date32, true),
    ]));
    let pool = database.pool();
    let read = read_table(&pool, "branch", &schema).await.unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 2])),
        Arc::new(StringArray::from(vec![Some("Zürich"), None])),
        Arc::new(Decimal128Array::from(vec![150, -300]).with_precision_and_scale(10, 2).unwrap()),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1_795_255_200_000_001), None]).with_timezone("UTC")),
        Arc::new(Date32Array::from(vec![Some(20_778), None])),
    ];
    let expected = arrow::array::RecordBatch::try_new(schema, columns).unwrap();
    assert_eq!(texts(&read), texts(&[expected]));
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let fails = async |name: &str, column: &str, data_type| {
        let schema = Arc::new(Schema::new(vec![Field::new(column, data_type, false)]));
        match read_table(&pool, name, &schema).await {
            Err(Error::Stop(cause)) => cause.to_string(),
            other => panic!("expected Stop, got {other:?}"),
        }
    };
    assert!(fails("nowhere", "id", DataType::Int64).await.contains("no such table"));
    assert!(fails("branch", "city", DataType::Utf8).await.contains("no column city"));
    assert!(fails("branch", "name", DataType::Utf8).await.contains("null"), "a null where none is allowed");
    database.execute("UPDATE branch SET fee = 1.005").await;
    assert!(fails("branch", "fee", DataType::Decimal128(10, 2)).await.contains("fee"), "never rounded in silence");
    for (column, data_type) in [("opened", utc), ("day", DataType::Date32)] {
        for infinite in ["infinity", "-infinity"] {
            database.execute(&format!("UPDATE branch SET {column} = '{infinite}' WHERE id = 2")).await;
            database.execute("UPDATE branch SET opened = coalesce(opened, now()), day = coalesce(day, now())").await;
            let told = fails("branch", column, data_type.clone()).await;
            assert!(told.contains(&format!(" of column {column}: `infinity`")) && told.contains("NULL"), "{told}");
        }
    }
    // A table that a value does not fit costs no connection.
    for _ in 0..8 {
        fails("branch", "fee", DataType::Decimal128(10, 2)).await;
    }
    assert!(database.sink(&table("x", vec![column("a", DataType::Int64, Role::Value)])).prepare(true).await.is_ok());
    database.drop().await;
}
