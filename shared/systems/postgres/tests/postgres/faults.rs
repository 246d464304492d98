//! Lost connections, unknown outcomes, failed authentication.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch};
use millstream_core::{Error, Fence, Sink, Table};
use millstream_postgres::{PostgresSink, pool};
use millstream_testkit::rows::{rows, texts};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

use crate::support::{Database, Way, connect, counts, moved, partition, ready, write};

/// Key 1 with a count of 5, and a sketch where the table has one.
fn one_row(table: &Table) -> RecordBatch {
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1])), Arc::new(Int64Array::from(vec![5]))];
    if table.columns.len() == 3 {
        columns.push(Arc::new(BinaryArray::from_iter_values([b"a"])));
    }
    rows(table, columns)
}

pub async fn a_terminated_write_changed_nothing(way: Way) {
    let database = Database::create(way).await;
    let table = counts(false);
    let sink = database.sink(&table);
    let start = ready(&sink).await;
    let one = write(&sink, &start, &[one_row(&table)]).await.unwrap();
    // Somebody holds the row, so that the write hangs in the middle: the fence has moved, the row has not changed.
    let holder = connect(&database.direct_url()).await;
    holder.batch_execute("BEGIN; UPDATE counts SET n = n").await.unwrap();
    let task = tokio::spawn({
        let (sink, one, rows) = (sink.clone(), one.clone(), one_row(&table));
        async move { write(&sink, &one, &[rows]).await }
    });
    let waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    database.wait_until(&format!("SELECT count(*) {waiting}"), "1").await;
    database.execute(&format!("SELECT pg_terminate_backend(pid) {waiting}")).await;
    match task.await.unwrap() {
        Err(Error::Retry(_)) => {}
        other => panic!("a lost connection must be Retry, got {other:?}"),
    }
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(fence_after_a_loss(&sink).await.as_ref(), Some(&one), "nothing was committed");
    write(&sink, &one, &[one_row(&table)]).await.unwrap();
    assert_eq!(texts(&sink.snapshot().await.unwrap().rows), [["1", "10"]]);
    database.drop().await;
}

/// Listens at a port of `host`, and forwards bytes both ways until `swallow` drops the server's.
pub async fn proxy(host: &str, to: String, swallow: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind((host, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&to).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
            let swallow = swallow.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                    // The server has answered, so it has committed; the client loses the connection.
                    if swallow.load(Ordering::SeqCst) || to_client.write_all(&buffer[..read]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

pub async fn a_lost_answer_is_cleared_up_by_the_fence(way: Way) {
    for table in [counts(false), counts(true)] {
        let database = Database::create(way).await;
        let url = database.url();
        let (sign_in, rest) = url.split_once('@').unwrap();
        let (address, name) = rest.split_once('/').unwrap();
        let swallow = Arc::new(AtomicBool::new(false));
        let port = proxy("127.0.0.1", address.to_owned(), swallow.clone()).await;
        let through = pool(&format!("{sign_in}@127.0.0.1:{port}/{name}"), 1).unwrap();
        let sink = PostgresSink::new(through, "test.function", table.clone()).unwrap();
        let start = ready(&sink).await;
        swallow.store(true, Ordering::SeqCst);
        match write(&sink, &start, &[one_row(&table)]).await {
            Err(Error::Retry(_)) => {}
            other => panic!("a lost answer must be Retry, got {other:?}"),
        }
        swallow.store(false, Ordering::SeqCst);
        // What was lost was the answer to the one statement, or to BEGIN: the fence tells which.
        let fence = sink.fence(&partition(0)).await.unwrap().unwrap();
        if table.columns.len() == 2 {
            assert_eq!(fence, moved(&start, 1), "the write was made");
            match write(&sink, &start, &[one_row(&table)]).await {
                Err(Error::Fenced { current: Some(1) }) => {}
                other => panic!("the same write again must be fenced, got {other:?}"),
            }
        } else {
            assert_eq!(fence, start, "a transaction that never ended changed nothing");
            write(&sink, &start, &[one_row(&table)]).await.unwrap();
        }
        assert_eq!(database.ask("SELECT sum(n) FROM counts").await, "5");
        database.drop().await;
    }
}

pub async fn a_connection_lost_while_idle_is_replaced(way: Way) {
    let database = Database::create(way).await;
    let sink = database.sink(&counts(false));
    let start = ready(&sink).await;
    let others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()";
    database.execute(&format!("SELECT pg_terminate_backend(pid) {others}")).await;
    assert_eq!(fence_after_a_loss(&sink).await, Some(start));
    database.drop().await;
}

/// The first call may still find the dead connection; it says `Retry`, at most once per connection.
async fn fence_after_a_loss(sink: &PostgresSink) -> Option<Fence> {
    let mut tries = 0;
    loop {
        match sink.fence(&partition(0)).await {
            Ok(fence) => return fence,
            Err(Error::Retry(_)) if tries < 8 => tries += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

pub async fn a_failed_authentication_says_what_to_check(way: Way) {
    let database = Database::create(way).await;
    let fence = async |url: &str| {
        let sink = PostgresSink::new(pool(url, 1).unwrap(), "test.function", counts(false)).unwrap();
        sink.fence(&partition(0)).await.unwrap_err()
    };
    let url = database.url();
    let (address, rest) = url.split_once('@').unwrap().1.split_once('/').unwrap();
    let name = rest.split('?').next().unwrap();
    let wrong = fence(&format!("postgres://millstream:hunter2@{address}/{name}")).await;
    let said = wrong.to_string();
    assert!(said.contains(address) && !said.contains("hunter2"), "{said}");
    let missing = fence(&url.replace(name, "no_such_database")).await;
    let nobody = fence(&format!("postgres://millstream:hunter2@127.0.0.1:1/{name}")).await;
    assert!(matches!(nobody, Error::Retry(_)), "a server that is away may come back: {nobody}");
    if matches!(way, Way::Direct) {
        assert!(matches!(&wrong, Error::Stop(_)) && said.contains("password"), "{said}");
        assert!(matches!(&missing, Error::Stop(_)) && missing.to_string().contains("create the database"), "{missing}");
    }
    database.drop().await;
}

/// What never ends in its time is made smaller, so that it ends; what did so once may have met a lock.
pub async fn a_write_whose_time_is_up_twice_is_too_large(way: Way) {
    let database = Database::create(way).await;
    let name = database.ask("SELECT current_database()").await;
    database.execute(&format!("ALTER DATABASE {name} SET statement_timeout = '1s'")).await;
    for table in [counts(false), counts(true)] {
        let sink = database.sink(&table);
        let start = ready(&sink).await;
        database
            .execute(
                "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ \
                 BEGIN PERFORM pg_sleep(0.15); RETURN NEW; END $$; \
                 CREATE TRIGGER slow BEFORE INSERT ON counts FOR EACH ROW EXECUTE FUNCTION slow()",
            )
            .await;
        let many = |from: i64, count: i64| {
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + count));
            let mut columns = vec![keys.clone(), keys];
            if table.columns.len() == 3 {
                columns.push(Arc::new(BinaryArray::from_iter_values((0..count).map(|_| b"a"))));
            }
            [rows(&table, columns)]
        };
        match write(&sink, &start, &many(0, 16)).await {
            Err(Error::Retry(_)) => {}
            other => panic!("the first time it may be passing: expected Retry, got {other:?}"),
        }
        // Half as many are slow as well: no further patience is shown before they are made fewer.
        for count in [16, 8] {
            match write(&sink, &start, &many(0, count)).await {
                Err(Error::TooLarge(cause)) => assert!(cause.to_string().contains("57014"), "{cause}"),
                other => panic!("{count} rows: expected TooLarge, got {other:?}"),
            }
        }
        assert_eq!(sink.fence(&partition(0)).await.unwrap().as_ref(), Some(&start), "nothing was written");
        let four = write(&sink, &start, &many(0, 4)).await.unwrap();
        assert!(matches!(write(&sink, &four, &many(4, 9)).await, Err(Error::TooLarge(_))));
        // As many as were too slow are written in time: from now on it is as in the beginning.
        database.execute("DROP TRIGGER slow ON counts").await;
        let all = write(&sink, &four, &many(4, 9)).await.unwrap();
        database.execute("CREATE TRIGGER slow BEFORE INSERT ON counts FOR EACH ROW EXECUTE FUNCTION slow()").await;
        assert!(matches!(write(&sink, &all, &many(13, 16)).await, Err(Error::Retry(_))));
        assert_eq!(database.ask("SELECT count(*) FROM counts").await, "13");
        database.execute("DROP TABLE counts; DELETE FROM millstream_fences").await;
    }
    database.drop().await;
}

/// A statement that no client waits for any more is cancelled: otherwise such writes would queue up for the lock.
#[tokio::test]
async fn a_write_whose_time_is_up_is_called_off() {
    for way in [Way::Direct, Way::Tls] {
        let database = Database::create(way).await;
        let table = counts(false);
        let sink = database.sink(&table);
        let start = ready(&sink).await;
        let owner = connect(&database.direct_url()).await;
        owner.batch_execute("BEGIN; LOCK TABLE counts IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let writing = tokio::spawn({
            let (sink, rows) = (sink.clone(), one_row(&table));
            async move { write(&sink, &start, &[rows]).await }
        });
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'counts'::regclass";
        database.wait_until(waiting, "1").await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(31)).await;
        tokio::time::resume();
        let error = writing.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("no answer within 30 s"), "{error}");
        database.wait_until(waiting, "0").await;
        owner.batch_execute("COMMIT").await.unwrap();
        database.drop().await;
    }
}
