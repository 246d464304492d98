//! Writes: rows and fence move together, also while others write and read.

use std::sync::Arc;

use millstream_core::{Error, Fence, Result, Sink};

use super::{
    SinkHarness,
    sink_fixture::{held, moved, open, partition, plain_rows, plain_table},
};
use crate::rows::texts;

pub(super) async fn a_write_moves_the_fence_and_shows_its_rows(harness: &dyn SinkHarness) {
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

pub(super) async fn a_write_without_rows_moves_the_fence(harness: &dyn SinkHarness) {
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

pub(super) async fn a_write_from_another_offset_is_fenced(harness: &dyn SinkHarness) {
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

pub(super) async fn one_of_two_writers_wins(harness: &dyn SinkHarness) {
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
            Ok(()) if !harness.is_atomic() => {}
            other => panic!("the loser must be told to read the fence again, got {other:?}"),
        }
        fence = ends[winner].clone();
        for sink in &sinks {
            assert_eq!(sink.fence(&partition(0)).await.unwrap().as_ref(), Some(&fence));
        }
    }
    assert_eq!(held(sinks[0].as_ref()).await, texts(&[plain_rows(0..fence.next_offset)]));
}

pub(super) async fn a_zombie_changes_nothing(harness: &dyn SinkHarness) {
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

pub(super) async fn partitions_are_written_at_once(harness: &dyn SinkHarness) {
    let sinks = [open(harness, "at_once", plain_table()).await, open(harness, "at_once", plain_table()).await];
    let tasks: Vec<_> =
        (0..6).map(|number| tokio::spawn(write_all(sinks[number as usize % 2].clone(), number))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let expected: Vec<_> = (0..6).map(|number| plain_rows(number * 1_000..number * 1_000 + WRITES * 3)).collect();
    assert_eq!(held(sinks[0].as_ref()).await, texts(&expected));
}

pub(super) async fn readers_see_one_instant(harness: &dyn SinkHarness) {
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

/// Panics unless it is `Fenced`, with the right offset where it names one.
fn assert_fenced(result: Result<()>, at: i64) {
    match result {
        Err(Error::Fenced { current }) => {
            assert!(current.is_none_or(|current| current == at), "the fence is at {at}, not {current:?}");
        }
        other => panic!("expected Fenced, got {other:?}"),
    }
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
