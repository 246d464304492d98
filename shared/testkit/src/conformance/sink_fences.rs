//! Fences: created once, kept whole, one for each partition, generation and function.

use millstream_core::{Error, Fence, TopicPartition};

use super::{
    SinkHarness,
    sink_fixture::{held, moved, open, partition, plain_rows, plain_table},
};
use crate::rows::texts;

pub(super) async fn a_fence_is_none_until_it_is_created(harness: &dyn SinkHarness) {
    let sink = open(harness, "none", plain_table()).await;
    assert_eq!(sink.fence(&partition(0)).await.unwrap(), None);
    let snapshot = sink.snapshot().await.unwrap();
    assert_eq!((snapshot.fences.len(), texts(&snapshot.rows).len()), (0, 0));
    // No writer may write before the fence was created: what lies below is not known.
    let (from, to) = (Fence::starting_at(0), Fence::starting_at(5));
    match sink.write(&partition(0), &from, &to, &[plain_rows(0..5)]).await {
        Err(Error::Fenced { current: None }) => {}
        other => panic!("a write without a fence must be Fenced without an offset, got {other:?}"),
    }
    assert_eq!(sink.fence(&partition(0)).await.unwrap(), None);
    assert_eq!(held(sink.as_ref()).await.len(), 0);
}

pub(super) async fn first_writers_agree_on_the_fence(harness: &dyn SinkHarness) {
    let first = open(harness, "agree", plain_table()).await;
    let second = open(harness, "agree", plain_table()).await;
    assert_eq!(first.create_fence(&partition(0), Fence::starting_at(7)).await.unwrap(), Fence::starting_at(7));
    assert_eq!(second.create_fence(&partition(0), Fence::starting_at(9)).await.unwrap(), Fence::starting_at(7));
    assert_eq!(second.fence(&partition(0)).await.unwrap(), Some(Fence::starting_at(7)));
    for number in 1..9 {
        let (first, second, partition) = (first.clone(), second.clone(), partition(number));
        let (left, right) = tokio::join!(
            first.create_fence(&partition, Fence::starting_at(100)),
            second.create_fence(&partition, Fence::starting_at(200)),
        );
        let (left, right) = (left.unwrap(), right.unwrap());
        assert_eq!(left, right, "two first writers must agree");
        assert_eq!(first.fence(&partition).await.unwrap(), Some(left));
    }
}

pub(super) async fn the_first_number_of_partitions_is_kept(harness: &dyn SinkHarness) {
    let first = open(harness, "begun", plain_table()).await;
    let second = open(harness, "begun", plain_table()).await;
    let begun = tokio::join!(first.begin_topic("transaction", 1, 3), second.begin_topic("transaction", 1, 4));
    let (one, other) = (begun.0.unwrap(), begun.1.unwrap());
    assert!(one == other && (3..=4).contains(&one), "two first callers must agree: {one}, {other}");
    assert_eq!(second.begin_topic("transaction", 1, 7).await.unwrap(), one, "it is kept for good");
    assert_eq!(second.begin_topic("transaction", 2, 7).await.unwrap(), 7, "each generation has a number of its own");
    assert_eq!(first.begin_topic("transactions", 1, 9).await.unwrap(), 9);
    assert_eq!(first.fence(&partition(0)).await.unwrap(), None, "no partition has a fence by that");
    let fence = first.create_fence(&partition(0), Fence::starting_at(5)).await.unwrap();
    first.write(&partition(0), &fence, &moved(&fence, 6), &[plain_rows([5])]).await.unwrap();
    let snapshot = second.snapshot().await.unwrap();
    assert_eq!(snapshot.fences, [(partition(0), moved(&fence, 6))], "a snapshot has the fences of partitions");
    assert_eq!(texts(&snapshot.rows).len(), 1);
    let again = open(harness, "begun", plain_table()).await;
    assert_eq!(again.begin_topic("transaction", 1, 1).await.unwrap(), one);
}

pub(super) async fn all_of_a_fence_round_trips(harness: &dyn SinkHarness) {
    let sink = open(harness, "round_trip", plain_table()).await;
    let start = sink.create_fence(&partition(0), Fence::starting_at(9_000_000_000)).await.unwrap();
    let upstream = [("orders/1/0".to_owned(), (i64::MAX - 1, 3)), ("ørders/2/11".to_owned(), (0, 0))];
    let full = Fence {
        start_offset: start.start_offset,
        next_offset: 9_000_000_003,
        last_timestamp_ms: Some(1_700_000_000_123),
        max_event_time_us: Some(-62_135_596_800_000_000),
        upstream: upstream.into(),
        topic_id: Some("f7sq-2LMTYqzm1ZzJ9bQ0w".to_owned()),
        rows: 7_000_000_000,
    };
    sink.write(&partition(0), &start, &full, &[plain_rows([9_000_000_000])]).await.unwrap();
    let again = open(harness, "round_trip", plain_table()).await;
    assert_eq!(again.fence(&partition(0)).await.unwrap(), Some(full.clone()));
    assert_eq!(again.snapshot().await.unwrap().fences, [(partition(0), full.clone())]);
    // A fence that was created with more than its offset keeps it too.
    let created = Fence { start_offset: 4, ..full.clone() };
    assert_eq!(sink.create_fence(&partition(1), created.clone()).await.unwrap(), created);
    assert_eq!(again.fence(&partition(1)).await.unwrap(), Some(created));
    // A fence that was created before the topic's id was known gets the id with a write.
    let later = sink.create_fence(&partition(2), Fence::starting_at(4)).await.unwrap();
    let known = Fence { topic_id: full.topic_id, ..moved(&later, 5) };
    sink.write(&partition(2), &later, &known, &[plain_rows([4])]).await.unwrap();
    assert_eq!(again.fence(&partition(2)).await.unwrap(), Some(known));
}

pub(super) async fn fences_are_separate(harness: &dyn SinkHarness) {
    let sink = open(harness, "separate", plain_table()).await;
    let start = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    sink.write(&partition(0), &start, &moved(&start, 4), &[plain_rows(0..4)]).await.unwrap();
    let others = [
        partition(1),
        TopicPartition::new("transaction", 2, 0),
        TopicPartition::new("transaction.v2", 1, 0),
        TopicPartition::new("transaction-1", 1, 0),
    ];
    for other in &others {
        assert_eq!(sink.fence(other).await.unwrap(), None, "{other}");
        let fence = sink.create_fence(other, Fence::starting_at(40)).await.unwrap();
        sink.write(other, &fence, &moved(&fence, 44), &[plain_rows(40..44)]).await.unwrap();
    }
    assert_eq!(sink.fence(&partition(0)).await.unwrap(), Some(moved(&start, 4)));
    let mut found: Vec<_> = sink.snapshot().await.unwrap().fences.into_iter().map(|(partition, _)| partition).collect();
    found.sort();
    let mut expected = [vec![partition(0)], others.to_vec()].concat();
    expected.sort();
    assert_eq!(found, expected);
    let stranger = harness.open("separate", "suite.stranger", plain_table()).await;
    stranger.prepare(true).await.unwrap();
    assert_eq!(stranger.fence(&partition(0)).await.unwrap(), None, "another function has fences of its own");
    assert_eq!(stranger.snapshot().await.unwrap().fences, []);
}
