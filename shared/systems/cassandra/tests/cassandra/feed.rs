//! The change feed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    util::display::{ArrayFormatter, FormatOptions},
};
use millstream_cassandra::{Cassandra, Does, Gate, Statement, Verdict};
use millstream_core::{
    Batch, Encode, Error, FIRST_REDRIVE, Feed, Fence, Limits, Log, Result, Sink, TableStore as _, TopicPartition,
    Watermarks,
};
use scylla::statement::Consistency;

use crate::{
    stand_in::Service,
    support::{FUNCTION, Keyspace, logins, partition, rows, wait_for_my_turn, write},
};

/// All columns that it is given, with `,` between them.
struct Plain;

impl Encode for Plain {
    fn encode(&self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let options = FormatOptions::new().with_null("null");
        let columns: Vec<_> =
            rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        let text = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join(",");
        Ok((0..rows.num_rows()).map(|row| text(row).into_bytes()).collect())
    }
}

const ROOMY: Limits = Limits { max_records: 100_000, max_bytes: 64 << 20, max_wait_ms: 100 };

fn feed(keyspace: &Keyspace) -> Arc<dyn Log> {
    feed_of(&keyspace.store())
}

fn feed_of(store: &Cassandra) -> Arc<dyn Log> {
    let feed = Feed { function: FUNCTION.into(), table: logins(), topic: "login".into(), encode: Arc::new(Plain) };
    store.feed(feed).unwrap()
}

/// A reader of a feed stays out of the way of the function's compare-and-swap.
struct ReadsPlainly;

impl Gate for ReadsPlainly {
    fn judge(&self, statement: &Statement<'_>) -> Verdict {
        assert_eq!(
            (statement.does, statement.consistency),
            (Does::Read, Consistency::LocalQuorum),
            "{}",
            statement.cql
        );
        Verdict::Send
    }
}

/// The partition as the reader of the feed calls it.
fn fed(number: i32) -> TopicPartition {
    TopicPartition::new("logins", 1, number)
}

/// Offset, key, value and time of each record.
fn records(batch: &Batch) -> Vec<(i64, String, String, i64)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let one = |row| {
        let (key, value) = (text(batch.keys().value(row)), text(batch.values().value(row)));
        (batch.offsets().value(row), key, value, batch.timestamps_ms().value(row))
    };
    (0..batch.len()).map(one).collect()
}

fn record(offset: i64, user: &str, value: &str, time_ms: i64) -> (i64, String, String, i64) {
    (offset, user.to_owned(), value.to_owned(), time_ms)
}

async fn prepared(service: Service) -> (Keyspace, Arc<dyn Sink>) {
    let keyspace = Keyspace::create(service).await;
    let sink = keyspace.sink(&logins());
    sink.prepare(true).await.unwrap();
    (keyspace, sink)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_ends_at_the_fence_and_vouches_for_its_holes() {
    let _turn = wait_for_my_turn().await;
    let (keyspace, sink) = prepared(Service::Cassandra).await;
    let feed = feed_of(&keyspace.store_behind(Arc::new(ReadsPlainly)));
    assert!(matches!(feed.partitions("logins").await, Err(Error::Retry(_))), "nobody knows yet how many");
    sink.begin_topic("login", 1, 3).await.unwrap();
    assert_eq!(feed.partitions("logins").await.unwrap(), 3);
    let none = feed.watermarks(&fed(0)).await;
    assert!(matches!(none, Err(Error::Retry(_))), "nobody knows yet where the partition begins: {none:?}");

    // Written in another order than that of the offsets, with holes, over two buckets, and with none at the end.
    let batch = rows(&[("bo", None, 10_000, 7), ("ann", Some("a"), 9_998, 5), ("cy", Some("c"), 9_995, 6)]);
    let fence = write(sink.as_ref(), &partition(0), 9_990, 10_007, batch).await;
    // A process that died between its rows and the fence.
    let to = Fence { next_offset: 10_009, ..fence.clone() };
    let ahead = keyspace.store_behind(Arc::new(crate::interrupted::DiesAt("UPDATE")));
    let died = ahead.sink(FUNCTION, logins()).unwrap();
    let died = died.write(&partition(0), &fence, &to, &[rows(&[("di", None, 10_007, 9)])]).await;
    assert!(died.is_err(), "{died:?}");
    let there = keyspace.query("SELECT \"_offset\" FROM $.logins WHERE \"user\" = 'di' ALLOW FILTERING").await;
    assert_eq!(there.len(), 1, "the row is there");

    assert_eq!(feed.watermarks(&fed(0)).await.unwrap(), Watermarks { low: 9_990, high: 10_007 });
    let all = feed.read(&fed(0), 9_990..20_000, ROOMY).await.unwrap();
    assert_eq!((all.range(), all.partition()), (9_990..10_007, &fed(0)));
    let expected =
        [record(9_995, "cy", "cy,c", 6), record(9_998, "ann", "ann,a", 5), record(10_000, "bo", "bo,null", 7)];
    assert_eq!(records(&all), expected);
    assert_eq!(all.gap(9_990), None, "a hole is a record that gave no row");

    // The empty tail, an empty middle, and a limit.
    let tail = feed.read(&fed(0), 10_001..10_007, ROOMY).await.unwrap();
    assert_eq!((tail.range(), tail.len()), (10_001..10_007, 0));
    let middle = feed.read(&fed(0), 9_996..9_998, ROOMY).await.unwrap();
    assert_eq!((middle.range(), middle.len()), (9_996..9_998, 0));
    let two = feed.read(&fed(0), 9_990..10_007, Limits { max_records: 2, ..ROOMY }).await.unwrap();
    assert_eq!((two.range(), records(&two)), (9_990..9_999, expected[..2].to_vec()));
    let small = feed.read(&fed(0), 9_990..10_007, Limits { max_bytes: 1, ..ROOMY }).await.unwrap();
    assert_eq!((small.range(), small.len()), (9_990..9_996, 1));
    assert!(matches!(feed.read(&fed(0), 10_007..10_010, ROOMY).await, Err(Error::Retry(_))));
    assert!(matches!(feed.read(&fed(0), 0..10_010, ROOMY).await, Err(Error::Stop(_))));

    for (since, first) in [(i64::MIN, Some(9_995)), (6, Some(9_995)), (7, Some(10_000)), (8, None)] {
        assert_eq!(feed.first_since(&fed(0), since).await.unwrap(), first, "since {since}");
    }
    assert_eq!(feed.first_since(&fed(1), 0).await.unwrap(), None);
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_way_without_rows_is_made_in_steps() {
    let _turn = wait_for_my_turn().await;
    let (keyspace, sink) = prepared(Service::Keyspaces).await;
    let feed = feed(&keyspace);
    write(sink.as_ref(), &partition(2), 0, 1_000_005, rows(&[("ann", None, 1_000_000, 1)])).await;
    assert_eq!(feed.partitions("logins").await.unwrap(), 3, "a partition with a fence is there");
    let (mut at, mut reads, mut found) = (0, 0, Vec::new());
    while at < 1_000_005 {
        let batch = feed.read(&fed(2), at..1_000_005, ROOMY).await.unwrap();
        assert!(batch.range().start == at && batch.range().end > at);
        found.extend(records(&batch));
        (at, reads) = (batch.range().end, reads + 1);
    }
    assert_eq!((found, reads), (vec![record(1_000_000, "ann", "ann,null", 1)], 2));
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redriven_rows_and_other_topics_are_not_in_the_feed() {
    let _turn = wait_for_my_turn().await;
    let (keyspace, sink) = prepared(Service::Cassandra).await;
    let feed = feed(&keyspace);
    write(sink.as_ref(), &partition(0), 0, 5, rows(&[("ann", None, 4, 1)])).await;
    write(sink.as_ref(), &TopicPartition::new("login", FIRST_REDRIVE + 1, 0), 0, 9, rows(&[("bo", None, 2, 1)])).await;
    write(sink.as_ref(), &TopicPartition::new("other", 1, 7), 0, 9, rows(&[("cy", None, 3, 1)])).await;
    assert_eq!(feed.partitions("logins").await.unwrap(), 1);
    let all = feed.read(&fed(0), 0..5, ROOMY).await.unwrap();
    assert_eq!(records(&all), [record(4, "ann", "ann,null", 1)]);
    let public = keyspace.sink(&logins()).snapshot().await.unwrap();
    let users = public.rows.iter().map(|rows| rows.column(0).as_string::<i32>().len()).sum::<usize>();
    assert_eq!(users, 3, "a snapshot has them all");
    keyspace.drop().await;
}

/// A report may start before the function that keeps the events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_nobody_has_prepared_is_waited_for() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cassandra).await;
    let feed = feed(&keyspace);
    for _ in 0..2 {
        let asked = feed.partitions("logins").await;
        assert!(matches!(&asked, Err(Error::Retry(_))), "{asked:?}");
        assert!(!feed.has_begun(&partition(0)).await.unwrap());
    }
    let sink = keyspace.sink(&logins());
    sink.prepare(true).await.unwrap();
    write(sink.as_ref(), &partition(0), 0, 1, rows(&[("ann", None, 0, 1)])).await;
    assert_eq!(feed.partitions("logins").await.unwrap(), 1);
    keyspace.drop().await;
}

/// A node lists a table a moment before it can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_being_prepared_is_waited_for() {
    let _turn = wait_for_my_turn().await;
    for _ in 0..4 {
        let keyspace = Keyspace::create(Service::Cassandra).await;
        let feed = feed(&keyspace);
        let sink = keyspace.sink(&logins());
        let done = AtomicBool::new(false);
        let asking = async {
            while !done.load(Ordering::Relaxed) {
                let asked = feed.partitions("logins").await;
                assert!(matches!(&asked, Err(Error::Retry(_))), "{asked:?}");
            }
        };
        let preparing = async {
            sink.prepare(true).await.unwrap();
            done.store(true, Ordering::Relaxed);
        };
        tokio::join!(asking, preparing);
        keyspace.drop().await;
    }
}
