//! Tables without an entity: streams of events, and their channel.

use futures::StreamExt as _;
use millstream_core::{Connect as _, Env, Rows, Table, TableStore as _};
use millstream_redis::Redis;

use crate::{
    entities::set_back,
    support::{Database, Row, alerts, held, partition, ready, texts, write},
};

const STREAM: &str = "alert:{transaction/1/0}";

/// Sinks for the rows of [`alerts`] take the batches of `balances`, which have the same columns.
const OF: [Row<'static>; 3] =
    [("ann", Some(1), None, 0), ("bob", None, Some("say \"hi\""), 4), ("cid", Some(-3), None, 12)];

#[tokio::test]
async fn rows_are_appended_by_position_and_told_once() {
    let database = Database::create().await;
    // Channels are of the whole server: no other test has this table.
    let sink = database.sink(&Table { name: "told".into(), ..alerts() });
    let start = ready(&*sink).await;
    let mut channel = redis::Client::open(&*database.url).unwrap().get_async_pubsub().await.unwrap();
    channel.subscribe("told").await.unwrap();
    write(&*sink, &start, &OF).await.unwrap();
    set_back(&database, &start).await;
    let two = write(&*sink, &start, &OF[..2]).await.unwrap();
    let newer = ("dan", None, None, 13);
    write(&*sink, &two, &[OF[2], newer]).await.unwrap();
    assert_eq!(held(&*sink).await, texts(&[&OF[..], &[newer]].concat()));
    let ids: Vec<(String, Vec<String>)> = database.ask("XRANGE", &["told:{transaction/1/0}", "-", "+"]).await;
    let ids: Vec<_> = ids.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["0-1", "4-1", "12-1", "13-1"]);
    let mut messages = channel.on_message();
    for expected in [
        r#"{"account":"ann","amount":1,"_offset":0,"_timestamp":"2027-01-15T08:00:00Z"}"#,
        r#"{"account":"bob","note":"say \"hi\"","_offset":4,"_timestamp":"2027-01-15T08:00:00.004000Z"}"#,
        r#"{"account":"cid","amount":-3,"_offset":12,"_timestamp":"2027-01-15T08:00:00.012000Z"}"#,
        r#"{"account":"dan","_offset":13,"_timestamp":"2027-01-15T08:00:00.013000Z"}"#,
    ] {
        let message = tokio::time::timeout(std::time::Duration::from_secs(10), messages.next()).await.unwrap().unwrap();
        assert_eq!(message.get_payload::<String>().unwrap(), expected);
    }
    let ttl: i64 = database.ask("TTL", &["told:{transaction/1/0}"]).await;
    assert!((600_000..=604_800).contains(&ttl), "a week: {ttl}");
}

#[tokio::test]
async fn a_stream_is_cut_and_may_expire() {
    let database = Database::create().await;
    let settings = [
        ("MILLSTREAM_REDIS_URL", &*database.url),
        ("MILLSTREAM_REDIS_STREAM_MAX", "100"),
        ("MILLSTREAM_REDIS_STREAM_TTL_S", "60"),
    ];
    let store = Redis::open(&Env::of(settings)).unwrap().unwrap();
    let sink = store.sink("test.function", alerts()).unwrap();
    let mut fence = ready(&*sink).await;
    let of: Vec<Row<'_>> = (0..3_000).map(|offset| ("ann", Some(offset), None, offset)).collect();
    for part in of.chunks(1_000) {
        fence = write(&*sink, &fence, part).await.unwrap();
    }
    let length: i64 = database.ask("XLEN", &[STREAM]).await;
    assert!((100..400).contains(&length), "about 100: {length}");
    assert_eq!(held(&*sink).await, texts(&of[3_000 - length as usize..]), "the newest ones");
    assert!((1..=60).contains(&database.ask::<i64>("TTL", &[STREAM]).await));
    database.ask::<i64>("DEL", &[STREAM]).await;
    assert_eq!(held(&*sink).await.len(), 0);
    let next = [("ann", None, None, 3_000)];
    write(&*sink, &fence, &next).await.unwrap();
    assert_eq!(held(&*sink).await, texts(&next));
    assert_eq!(sink.holding().await.unwrap().rows, Rows::Present, "an expired stream is no lost table");
}

#[tokio::test]
async fn many_and_long_rows_go_in_parts() {
    let database = Database::create().await;
    let sink = database.sink(&alerts());
    let start = ready(&*sink).await;
    let long = "x".repeat(300_000);
    let of: Vec<Row<'_>> =
        (0..1_200).map(|offset| ("ann", None, (offset % 100 == 0).then_some(&*long), offset)).collect();
    write(&*sink, &start, &of).await.unwrap();
    assert_eq!(held(&*sink).await, texts(&of));
}

/// What a process has appended after the store had lost the fence, and before the fence was created again.
#[tokio::test]
async fn entries_of_a_lost_fence_are_no_rows() {
    let database = Database::create().await;
    let sink = database.sink(&alerts());
    let start = ready(&*sink).await;
    database.ask::<String>("XADD", &[STREAM, "9-1", "_fence", "1", "account", "late"]).await;
    assert_eq!(held(&*sink).await.len(), 0);
    write(&*sink, &start, &OF[..2]).await.unwrap();
    assert_eq!(held(&*sink).await, texts(&OF[..2]), "they make way for what was below them");
    // And the other way round: the process that comes late has the lost fence.
    let newer = "99999999999999999";
    database.ask::<()>("DEL", &[STREAM]).await;
    database.ask::<String>("XADD", &[STREAM, "2-1", "_fence", newer, "account", "ann"]).await;
    let fence = sink.fence(&partition(0)).await.unwrap().unwrap();
    let error = write(&*sink, &fence, &OF[2..]).await.unwrap_err();
    assert!(error.is_retry(), "{error}");
    assert_eq!(database.ask::<i64>("XLEN", &[STREAM]).await, 1);
}
