//! The change feed.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    util::display::{ArrayFormatter, FormatOptions},
};
use azure_data_cosmos::fault_injection::{FaultInjectionErrorType, FaultOperationType};
use millstream_core::{
    Batch, Encode, Error, FIRST_REDRIVE, Feed, Fence, Limits, Log, Result, Sink, TableStore as _, TopicPartition,
    Watermarks,
};
use millstream_cosmos::Cosmos;

use crate::support::{Account, FUNCTION, logins, partition, rows, rule, write};

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

fn feed_of(store: &Cosmos) -> Arc<dyn Log> {
    let feed = Feed { function: FUNCTION.into(), table: logins(), topic: "login".into(), encode: Arc::new(Plain) };
    store.feed(feed).unwrap()
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

/// An account, a sink that writes, and the feed as another process reads it.
async fn prepared() -> (Account, Arc<dyn Sink>, Arc<dyn Log>) {
    let account = Account::create();
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    let feed = feed_of(&account.store().await);
    (account, sink, feed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_ends_at_the_fence_and_vouches_for_its_holes() {
    let (account, sink, feed) = prepared().await;
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
    let no_fence = rule(
        Some(FaultOperationType::ReplaceItem),
        Some("millstream_fences"),
        FaultInjectionErrorType::ConnectionError,
    );
    let ahead = account.store_with(vec![Arc::new(no_fence.build())]).await;
    let died = ahead.sink(FUNCTION, logins()).unwrap();
    let died = died.write(&partition(0), &fence, &to, &[rows(&[("di", None, 10_007, 9)])]).await;
    assert!(died.is_err(), "{died:?}");
    let there = account.items("logins").await;
    assert!(there.iter().any(|item| item["row"]["user"] == "di"), "the row is there");

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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_way_without_rows_is_made_in_steps() {
    let (_account, sink, feed) = prepared().await;
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_before_a_fault_is_given() {
    let (account, sink, _) = prepared().await;
    let batch = rows(&[("ann", None, 9_998, 1), ("bo", None, 10_001, 1)]);
    write(sink.as_ref(), &partition(0), 9_990, 10_005, batch).await;
    let fault = |of| Arc::new(rule(Some(of), Some("logins"), FaultInjectionErrorType::ServiceUnavailable).build());
    let refuses = fault(FaultOperationType::QueryItem);
    // After the rows of one bucket, and before those of the next.
    let feed = feed_of(&account.interrupted_store(1, vec![Arc::clone(&refuses)]).await);
    let first = feed.read(&fed(0), 9_990..10_005, ROOMY).await.unwrap();
    assert!(refuses.hit_count() > 0);
    assert_eq!((first.range(), records(&first)), (9_990..9_999, vec![record(9_998, "ann", "ann,null", 1)]));
    let failed = feed.read(&fed(0), 9_999..10_005, ROOMY).await;
    assert!(matches!(failed, Err(Error::Retry(_))), "nothing was read: {failed:?}");
    refuses.disable();
    let rest = feed.read(&fed(0), 9_999..10_005, ROOMY).await.unwrap();
    assert_eq!((rest.range(), records(&rest)), (9_999..10_005, vec![record(10_001, "bo", "bo,null", 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redriven_rows_and_other_topics_are_not_in_the_feed() {
    let (account, sink, feed) = prepared().await;
    write(sink.as_ref(), &partition(0), 0, 5, rows(&[("ann", None, 4, 1)])).await;
    write(sink.as_ref(), &TopicPartition::new("login", FIRST_REDRIVE + 1, 0), 0, 9, rows(&[("bo", None, 2, 1)])).await;
    write(sink.as_ref(), &TopicPartition::new("other", 1, 7), 0, 9, rows(&[("cy", None, 3, 1)])).await;
    assert_eq!(feed.partitions("logins").await.unwrap(), 1);
    let all = feed.read(&fed(0), 0..5, ROOMY).await.unwrap();
    assert_eq!(records(&all), [record(4, "ann", "ann,null", 1)]);
    let public = account.sink(&logins()).await.snapshot().await.unwrap();
    let users = public.rows.iter().map(|rows| rows.column(0).as_string::<i32>().len()).sum::<usize>();
    assert_eq!(users, 3, "a snapshot has them all");
}

/// A report may start before the function that keeps the events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_nobody_has_prepared_is_waited_for() {
    let account = Account::create();
    let feed = feed_of(&account.store().await);
    for _ in 0..2 {
        let asked = feed.partitions("logins").await;
        assert!(matches!(&asked, Err(Error::Retry(_))), "{asked:?}");
        assert!(!feed.has_begun(&fed(0)).await.unwrap());
    }
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    write(sink.as_ref(), &partition(0), 0, 1, rows(&[("ann", None, 0, 1)])).await;
    assert_eq!(feed.partitions("logins").await.unwrap(), 1);
}
