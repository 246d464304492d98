//! The store beside its sinks: references, what readers see, and what is wrong with a set-up.

use std::sync::Arc;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, TimestampMicrosecondType},
};
use millstream_cassandra::Cassandra;
use millstream_core::{Claim, Connect as _, Env, Error, Owner, Rows, TableStore as _};

use crate::{
    stand_in::Service,
    support::{FUNCTION, Keyspace, logins, partition, rows, setting, wait_for_my_turn, write},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_is_anybodys_table() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cassandra).await;
    keyspace.query("CREATE TABLE $.\"Rates\" (name text PRIMARY KEY, level int, at timestamp, tags set<text>)").await;
    for row in ["('a', 1, 1500)", "('b', null, null)"] {
        keyspace.query(&format!("INSERT INTO $.\"Rates\" (name, level, at) VALUES {row}")).await;
    }
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Schema::new(vec![field("at", time), field("level", DataType::Int32), field("name", DataType::Utf8)]);
    let store = keyspace.store();
    let read = store.read_reference("Rates", &Arc::new(schema)).await.unwrap();
    let rows: usize = read.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 2);
    let a = read[0].column(2).as_string::<i32>().iter().position(|name| name == Some("a")).unwrap();
    assert_eq!(read[0].column(0).as_primitive::<TimestampMicrosecondType>().value(a), 1_500_000);
    assert_eq!(read[0].column(1).as_primitive::<Int64Type>().value(a), 1);
    let said = async |table: &str, column: &str| {
        let schema = Schema::new(vec![field(column, DataType::Utf8)]);
        match store.read_reference(table, &Arc::new(schema)).await {
            Err(Error::Stop(cause)) => cause.to_string(),
            other => panic!("must stop, got {other:?}"),
        }
    };
    assert!(said("rates", "name").await.ends_with("there is no such table"));
    assert!(said("Rates", "size").await.ends_with("it has no column size"));
    assert!(said("Rates", "tags").await.contains("column tags is a CQL set<text>"));
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_is_asked_by_its_partition_key_and_an_event_store_by_its_entity() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cassandra).await;
    keyspace.query("CREATE TABLE $.\"Rates\" (id int, part int, level int, PRIMARY KEY (id, part))").await;
    for row in ["(1, 1, 10)", "(1, 2, 20)", "(2, 1, 30)"] {
        keyspace.query(&format!("INSERT INTO $.\"Rates\" (id, part, level) VALUES {row}")).await;
    }
    let store = keyspace.store();
    let numbers = Arc::new(Schema::new(["id", "level"].map(|name| Field::new(name, DataType::Int64, true)).to_vec()));
    let ask = async |by: &str, keys: Vec<i64>| {
        let keys: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from(keys));
        let rows = store.read_by_key("Rates", &numbers, by, &keys).await?;
        let levels = rows.iter().flat_map(|rows| rows.column(1).as_primitive::<Int64Type>().values().iter().copied());
        let mut levels: Vec<i64> = levels.collect();
        levels.sort_unstable();
        Ok::<_, Error>(levels)
    };
    // One of the keys is beyond what the column holds.
    assert_eq!(ask("id", vec![1, 3, i64::MAX]).await.unwrap(), [10, 20]);
    assert_eq!(ask("id", (0..1_000).collect()).await.unwrap(), [10, 20, 30]);
    assert_eq!(ask("id", vec![]).await.unwrap(), [0; 0]);
    let said = ask("level", vec![10]).await.unwrap_err();
    assert!(matches!(&said, Error::Stop(_)) && said.to_string().contains("is not its partition key"), "{said}");

    let sink = keyspace.sink(&logins());
    sink.prepare(true).await.unwrap();
    let owner = Owner { function: FUNCTION.into(), fingerprint: "1".into(), declaration: "{}".into() };
    sink.begin_term(sink.claim(&owner, &Claim::First).await.unwrap().unwrap().term);
    let logged_in = rows(&[("ann", Some("first"), 1, 1), ("bo", None, 2, 1), ("ann", Some("second"), 3, 1)]);
    write(sink.as_ref(), &partition(0), 0, 5, logged_in).await;
    let users = Arc::new(Schema::new(["user", "note"].map(|name| Field::new(name, DataType::Utf8, true)).to_vec()));
    let too_long = "x".repeat(70_000);
    let keys: arrow::array::ArrayRef =
        Arc::new(arrow::array::StringArray::from(vec!["ann", "bo", "cy", "", "\u{e9}", &too_long]));
    let found = store.read_by_key("logins", &users, "user", &keys).await.unwrap();
    let notes = found.iter().flat_map(|rows| rows.column(1).as_string::<i32>().iter());
    let mut notes: Vec<_> = notes.map(|note| note.unwrap_or("none")).collect();
    notes.sort_unstable();
    assert_eq!(notes, ["none", "second"], "the newest row of each");
    let all = store.read_all_by_key("logins", &users, "user").await.unwrap();
    assert_eq!(all.iter().map(RecordBatch::num_rows).sum::<usize>(), 2, "what an audit joins");
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_the_rows_below_the_fence() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cassandra).await;
    let (store, sink) = (keyspace.store(), keyspace.sink(&logins()));
    sink.prepare(true).await.unwrap();
    assert_eq!(sink.holding().await.unwrap().rows, Rows::Empty);
    let public = Arc::new(Schema::new(vec![Field::new("user", DataType::Utf8, true)]));
    assert!(matches!(store.read_public(&logins(), &public).await, Err(Error::Stop(_))), "nobody owns it");
    let owner = Owner { function: FUNCTION.into(), fingerprint: "1".into(), declaration: "{}".into() };
    sink.begin_term(sink.claim(&owner, &Claim::First).await.unwrap().unwrap().term);
    write(sink.as_ref(), &partition(0), 0, 5, rows(&[("ann", None, 3, 1), ("bo", None, 1, 1)])).await;
    let read = store.read_public(&logins(), &public).await.unwrap();
    assert_eq!(read.iter().map(|rows| (rows.num_columns(), rows.num_rows())).collect::<Vec<_>>(), [(1, 2)]);
    assert_eq!(store.newest_rows(&logins(), 5).await.unwrap(), None);
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_up_that_is_wrong_says_what_to_do() {
    let open = |points: &str, keyspace: &str| {
        let env = [("MILLSTREAM_CASSANDRA_CONTACT_POINTS", points), ("MILLSTREAM_CASSANDRA_KEYSPACE", keyspace)];
        Cassandra::open(&Env::of(env)).unwrap().unwrap().sink(FUNCTION, logins()).unwrap()
    };
    let missing = open(&setting("MILLSTREAM_TEST_CASSANDRA"), "nowhere");
    let said = missing.prepare(true).await.unwrap_err();
    assert!(matches!(&said, Error::Stop(_)) && said.to_string().contains("create the keyspace"), "{said}");
    let said = missing.fence(&partition(0)).await.unwrap_err();
    assert!(matches!(&said, Error::Stop(_)), "{said}");
    // Nothing listens there: it may come back.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let away = open(&format!("127.0.0.1:{port}"), "nowhere").prepare(true).await.unwrap_err();
    assert!(matches!(away, Error::Retry(_)), "{away}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_encrypted_and_certificates_checked() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cassandra).await;
    let prepare = async |ca: &str| {
        let env = [
            ("MILLSTREAM_CASSANDRA_CONTACT_POINTS", setting("MILLSTREAM_TEST_CASSANDRA")),
            ("MILLSTREAM_CASSANDRA_KEYSPACE", keyspace.name.clone()),
            ("MILLSTREAM_CASSANDRA_CA_FILE", setting(ca)),
        ];
        Cassandra::open(&Env::of(env)).unwrap().unwrap().sink(FUNCTION, logins()).unwrap().prepare(true).await
    };
    prepare("MILLSTREAM_TEST_CA").await.unwrap();
    let refused = prepare("MILLSTREAM_TEST_OTHER_CA").await.unwrap_err();
    assert!(matches!(&refused, Error::Stop(_)) && refused.to_string().contains("CA_FILE"), "{refused}");
    keyspace.drop().await;
}
