use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use millstream_core::{Column, Error, Fence, Result, Role, Sink, Table, TopicPartition, meta};

use super::{SinkHarness, check, sink_merge, sink_tables};
use crate::rows::{rows, texts};

/// Runs every check of the [`Sink`] contract. Panics at the first that fails.
pub async fn sink(harness: &dyn SinkHarness) {
    check("sink: a fence is none until it is created", fence_is_none_before(harness)).await;
    check("sink: first writers agree on the fence", first_writers_agree(harness)).await;
    check("sink: how many partitions there were at first", first_partitions_are_kept(harness)).await;
    check("sink: a write moves the fence and shows the rows", write_moves_and_shows(harness)).await;
    check("sink: no rows move the fence too", no_rows_move_the_fence(harness)).await;
    check("sink: all of a fence round trips", all_of_a_fence_round_trips(harness)).await;
    check("sink: a write from elsewhere than the fence is fenced", writes_from_elsewhere_are_fenced(harness)).await;
    check("sink: of two instances one wins", one_of_two_wins(harness)).await;
    check("sink: a zombie changes nothing", a_zombie_changes_nothing(harness)).await;
    check("sink: fences of other partitions, generations, functions", fences_are_separate(harness)).await;
    check("sink: partitions are written at once", partitions_at_once(harness)).await;
    check("sink: a reader sees rows and fence of one instant", readers_see_one_instant(harness)).await;
    sink_tables::run(harness).await;
    if harness.merges() {
        sink_merge::run(harness).await;
    }
}

/// A table that rows are appended to: `_offset` and `text`.
pub(super) fn plain_table() -> Table {
    let column = |name: &str, data_type| Column { name: name.into(), data_type, nullable: true, role: Role::Value };
    let columns = vec![column(meta::OFFSET, DataType::Int64), column("text", DataType::Utf8)];
    Table { name: "plain".into(), columns, combine: None, view: None }
}

/// One row per offset.
pub(super) fn plain_rows(offsets: impl IntoIterator<Item = i64>) -> RecordBatch {
    let offsets: Int64Array = offsets.into_iter().collect::<Vec<_>>().into();
    let texts: ArrayRef =
        Arc::new(StringArray::from_iter_values(offsets.values().iter().map(|at| format!("row {at}"))));
    rows(&plain_table(), vec![Arc::new(offsets), texts])
}

/// Opens and prepares.
pub(super) async fn open(harness: &dyn SinkHarness, store: &str, table: Table) -> Arc<dyn Sink> {
    let sink = harness.open(store, "suite.function", table).await;
    sink.prepare(true).await.unwrap();
    sink
}

/// The fence after `from` has moved to `next_offset`.
pub(super) fn moved(from: &Fence, next_offset: i64) -> Fence {
    Fence { next_offset, last_timestamp_ms: Some(1_700_000_000_000 + next_offset), ..from.clone() }
}

/// The partition that most checks use.
pub(super) fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("transaction", 1, number)
}

/// Everything that the sink holds, as text.
pub(super) async fn held(sink: &dyn Sink) -> Vec<Vec<String>> {
    texts(&sink.snapshot().await.unwrap().rows)
}

/// Panics unless it is `Fenced`, with the right offset where it names one.
fn assert_fenced(result: Result<()>, at: i64) {
    match result {
        Err(Error::Fenced { current }) => {
            assert!(current.is_none_or(|current| current == at), "the fence is at {at}, not {current:?}");
        }
        other => panic!("expected Fenced, got {other:?}"),
    }
}

async fn fence_is_none_before(harness: &dyn SinkHarness) {
    let sink = open(harness, "none", plain_table()).await;
    assert_eq!(sink.fence(&partition(0)).await.unwrap(), None);
    let snapshot = sink.snapshot().await.unwrap();
    assert_eq!((snapshot.fences.len(), texts(&snapshot.rows).len()), (0, 0));
    // Nobody may write before the fence was created, for nobody knows what lies below.
    let (from, to) = (Fence::starting_at(0), Fence::starting_at(5));
    match sink.write(&partition(0), &from, &to, &[plain_rows(0..5)]).await {
        Err(Error::Fenced { current: None }) => {}
        other => panic!("a write without a fence must be Fenced without an offset, got {other:?}"),
    }
    assert_eq!(sink.fence(&partition(0)).await.unwrap(), None);
    assert_eq!(held(sink.as_ref()).await.len(), 0);
}

async fn first_writers_agree(harness: &dyn SinkHarness) {
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

async fn first_partitions_are_kept(harness: &dyn SinkHarness) {
    let first = open(harness, "begun", plain_table()).await;
    let second = open(harness, "begun", plain_table()).await;
    let begun = tokio::join!(first.begin_topic("transaction", 1, 3), second.begin_topic("transaction", 1, 4));
    let (one, other) = (begun.0.unwrap(), begun.1.unwrap());
    assert!(one == other && (3..=4).contains(&one), "two first callers must agree: {one}, {other}");
    assert_eq!(second.begin_topic("transaction", 1, 7).await.unwrap(), one, "it is kept for good");
    assert_eq!(second.begin_topic("transaction", 2, 7).await.unwrap(), 7, "each generation begins anew");
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

async fn write_moves_and_shows(harness: &dyn SinkHarness) {
    let sink = open(harness, "write", plain_table()).await;
    let mut fence = sink.create_fence(&partition(0), Fence::starting_at(10)).await.unwrap();
    for next in [13, 14, 20] {
        let to = moved(&fence, next);
        let half = (fence.next_offset + next) / 2;
        let parts = [plain_rows(fence.next_offset..half), plain_rows(half..next)];
        sink.write(&partition(0), &fence, &to, &parts).await.unwrap();
        assert_eq!(sink.fence(&partition(0)).await.unwrap().as_ref(), Some(&to));
        fence = to;
    }
    let again = open(harness, "write", plain_table()).await;
    for sink in [sink, again] {
        let snapshot = sink.snapshot().await.unwrap();
        assert_eq!(snapshot.fences, [(partition(0), fence.clone())]);
        assert_eq!(texts(&snapshot.rows), texts(&[plain_rows(10..20)]));
    }
}

async fn no_rows_move_the_fence(harness: &dyn SinkHarness) {
    let sink = open(harness, "no_rows", plain_table()).await;
    let start = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let (five, nine, last) = (moved(&start, 5), moved(&start, 9), moved(&start, 12));
    sink.write(&partition(0), &start, &five, &[]).await.unwrap();
    sink.write(&partition(0), &five, &nine, &[plain_rows([])]).await.unwrap();
    let again = open(harness, "no_rows", plain_table()).await;
    assert_eq!(again.fence(&partition(0)).await.unwrap(), Some(nine.clone()));
    again.write(&partition(0), &nine, &last, &[plain_rows(9..12)]).await.unwrap();
    assert_eq!(held(again.as_ref()).await, texts(&[plain_rows(9..12)]));
}

async fn all_of_a_fence_round_trips(harness: &dyn SinkHarness) {
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
    };
    sink.write(&partition(0), &start, &full, &[plain_rows([9_000_000_000])]).await.unwrap();
    let again = open(harness, "round_trip", plain_table()).await;
    assert_eq!(again.fence(&partition(0)).await.unwrap(), Some(full.clone()));
    assert_eq!(again.snapshot().await.unwrap().fences, [(partition(0), full.clone())]);
    // A fence that was created with more than its offset keeps it too.
    let created = Fence { start_offset: 4, ..full.clone() };
    assert_eq!(sink.create_fence(&partition(1), created.clone()).await.unwrap(), created);
    assert_eq!(again.fence(&partition(1)).await.unwrap(), Some(created));
    // A fence from before the topic's id was known gets it with a write.
    let later = sink.create_fence(&partition(2), Fence::starting_at(4)).await.unwrap();
    let known = Fence { topic_id: full.topic_id, ..moved(&later, 5) };
    sink.write(&partition(2), &later, &known, &[plain_rows([4])]).await.unwrap();
    assert_eq!(again.fence(&partition(2)).await.unwrap(), Some(known));
}

async fn writes_from_elsewhere_are_fenced(harness: &dyn SinkHarness) {
    let sink = open(harness, "elsewhere", plain_table()).await;
    let start = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let ten = moved(&start, 10);
    sink.write(&partition(0), &start, &ten, &[plain_rows(0..10)]).await.unwrap();
    let again = open(harness, "elsewhere", plain_table()).await;
    for sink in [&sink, &again] {
        // The same write again, a longer one, one from the middle, one from ahead of the fence.
        for (from, to) in [(0, 10), (0, 15), (5, 15), (20, 25)] {
            let result =
                sink.write(&partition(0), &moved(&start, from), &moved(&start, to), &[plain_rows(from..to)]).await;
            assert_fenced(result, 10);
        }
    }
    assert_eq!(again.fence(&partition(0)).await.unwrap(), Some(ten.clone()));
    assert_eq!(held(again.as_ref()).await, texts(&[plain_rows(0..10)]));
    again.write(&partition(0), &ten, &moved(&ten, 12), &[plain_rows(10..12)]).await.unwrap();
    assert_eq!(held(sink.as_ref()).await, texts(&[plain_rows(0..12)]));
}

async fn one_of_two_wins(harness: &dyn SinkHarness) {
    let sinks = [open(harness, "race", plain_table()).await, open(harness, "race", plain_table()).await];
    let mut fence = sinks[0].create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    for _ in 0..20 {
        let ends = [moved(&fence, fence.next_offset + 3), moved(&fence, fence.next_offset + 5)];
        let write = |which: usize| {
            let (sink, from, to) = (sinks[which].clone(), fence.clone(), ends[which].clone());
            tokio::spawn(async move {
                sink.write(&partition(0), &from, &to, &[plain_rows(from.next_offset..to.next_offset)]).await
            })
        };
        let (left, right) = tokio::join!(write(0), write(1));
        let results = [left.unwrap(), right.unwrap()];
        // The one that went further, where both may win.
        let winner = results.iter().rposition(Result::is_ok).expect("one of two writers must win");
        match &results[1 - winner] {
            Err(Error::Fenced { .. } | Error::Retry(_)) => {}
            Ok(()) if !harness.atomic() => {}
            other => panic!("the loser must be told to read the fence again, got {other:?}"),
        }
        fence = ends[winner].clone();
        for sink in &sinks {
            assert_eq!(sink.fence(&partition(0)).await.unwrap().as_ref(), Some(&fence));
        }
    }
    assert_eq!(held(sinks[0].as_ref()).await, texts(&[plain_rows(0..fence.next_offset)]));
}

async fn a_zombie_changes_nothing(harness: &dyn SinkHarness) {
    let zombie = open(harness, "zombie", plain_table()).await;
    let start = zombie.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let two = moved(&start, 2);
    zombie.write(&partition(0), &start, &two, &[plain_rows(0..2)]).await.unwrap();
    // It sleeps; the new owner goes on with other batch ends.
    let owner = open(harness, "zombie", plain_table()).await;
    let mut fence = owner.fence(&partition(0)).await.unwrap().unwrap();
    for next in [5, 6, 11] {
        let to = moved(&fence, next);
        owner.write(&partition(0), &fence, &to, &[plain_rows(fence.next_offset..next)]).await.unwrap();
        fence = to;
    }
    for end in [4, 5, 8, 30] {
        let result = zombie.write(&partition(0), &two, &moved(&two, end), &[plain_rows(2..end)]).await;
        assert_fenced(result, 11);
    }
    assert_eq!(zombie.fence(&partition(0)).await.unwrap(), Some(fence.clone()), "it must see the owner's fence now");
    zombie.write(&partition(0), &fence, &moved(&fence, 12), &[plain_rows(11..12)]).await.unwrap();
    assert_eq!(held(owner.as_ref()).await, texts(&[plain_rows(0..12)]));
}

async fn fences_are_separate(harness: &dyn SinkHarness) {
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

/// How many writes each partition gets where several are written at once.
const WRITES: i64 = 15;

/// Writes `WRITES` times three rows to one partition.
async fn write_all(sink: Arc<dyn Sink>, number: i32) {
    let base = i64::from(number) * 1_000;
    let mut fence = sink.create_fence(&partition(number), Fence::starting_at(base)).await.unwrap();
    for _ in 0..WRITES {
        let to = moved(&fence, fence.next_offset + 3);
        sink.write(&partition(number), &fence, &to, &[plain_rows(fence.next_offset..to.next_offset)]).await.unwrap();
        fence = to;
    }
}

async fn partitions_at_once(harness: &dyn SinkHarness) {
    let sinks = [open(harness, "at_once", plain_table()).await, open(harness, "at_once", plain_table()).await];
    let tasks: Vec<_> =
        (0..6).map(|number| tokio::spawn(write_all(sinks[number as usize % 2].clone(), number))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let expected: Vec<_> = (0..6).map(|number| plain_rows(number * 1_000..number * 1_000 + WRITES * 3)).collect();
    assert_eq!(held(sinks[0].as_ref()).await, texts(&expected));
}

async fn readers_see_one_instant(harness: &dyn SinkHarness) {
    let sink = open(harness, "instant", plain_table()).await;
    let reader = open(harness, "instant", plain_table()).await;
    let writers: Vec<_> = (0..2).map(|number| tokio::spawn(write_all(sink.clone(), number))).collect();
    loop {
        let done = writers.iter().all(|writer| writer.is_finished());
        let snapshot = reader.snapshot().await.unwrap();
        let below: i64 = snapshot.fences.iter().map(|(_, fence)| fence.next_offset - fence.start_offset).sum();
        assert_eq!(texts(&snapshot.rows).len() as i64, below, "a snapshot holds the rows below its fences, no others");
        if done {
            assert_eq!(below, 2 * 3 * WRITES);
            break;
        }
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
}
