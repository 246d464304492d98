//! One device with a wrong clock must not make the events of all others late.

use millstream_core::{Late, Sink};

use crate::world::{AHEAD_MS, Declared, World, partition};

const NOW_MS: i64 = 1_700_000_000_000;

fn declared(ahead_ms: Option<i64>) -> Declared {
    Declared { late: Late::DeadLetter, lateness_ms: 1_000, ahead_ms, ..Declared::default() }
}

/// Each record's timestamp, and how many milliseconds its event is ahead of it.
async fn rows_of(declared: Declared, records: &[(i64, i64)]) -> (Vec<i64>, Vec<String>, Option<i64>) {
    let world = World::new(declared);
    for (stamp_ms, ahead_ms) in records {
        let at_ms = if *stamp_ms == -1 { NOW_MS } else { *stamp_ms } + ahead_ms;
        world.append_at(*stamp_ms, &format!("x@{}", at_ms * 1_000 + 999)).await;
    }
    let member = world.member().await;
    member.runner.process(world.read(0, records.len() as i64).await).await.unwrap();
    let mut rows: Vec<i64> = member.sink.texts().await.into_iter().map(|row| row[1].parse().unwrap()).collect();
    rows.sort();
    let reasons = world.letters.all().into_iter().map(|letter| letter.reason).collect();
    let fence = member.sink.fence(&partition()).await.unwrap().unwrap();
    (rows, reasons, fence.max_event_time_us.map(|us| us / 1_000 - NOW_MS))
}

#[tokio::test]
async fn an_event_far_ahead_is_a_dead_letter_and_makes_none_late() {
    let records =
        [(NOW_MS, 0), (NOW_MS, AHEAD_MS + 1), (NOW_MS, 30_000_000_000_000), (NOW_MS + 1, 0), (NOW_MS, -2_000)];
    let (rows, reasons, newest_ms) = rows_of(declared(Some(AHEAD_MS)), &records).await;
    assert_eq!((rows, newest_ms), (vec![0, 3], Some(1)));
    assert!(reasons[0].starts_with("ahead: dated 3600001 ms"), "{}", reasons[0]);
    assert!(reasons[1].starts_with("ahead:") && reasons[2].starts_with("late:"), "{reasons:?}");
}

/// Only events ahead of the record's own timestamp: old events, replays and records without a timestamp are unaffected.
#[tokio::test]
async fn nothing_else_is_ahead() {
    let records = [(NOW_MS, AHEAD_MS), (NOW_MS - 999_999_999, AHEAD_MS), (-1, AHEAD_MS * 9), (0, AHEAD_MS), (1, 0)];
    let merge = Declared { late: Late::Merge, ..declared(Some(AHEAD_MS)) };
    assert_eq!(rows_of(merge, &records).await.0, [0, 1, 2, 3, 4]);
    let exact = Declared { late: Late::Merge, ..declared(Some(0)) };
    assert_eq!(rows_of(exact, &[(NOW_MS, 0), (NOW_MS, 1)]).await.0, [0], "timestamps have no microseconds");
    assert_eq!(rows_of(Declared { late: Late::Merge, ..declared(None) }, &[(NOW_MS, 30_000_000_000_000)]).await.0, [0]);
}

/// `ahead` applies with every setting of `late`: other functions may read the same windows.
#[tokio::test]
async fn functions_that_merge_late_events_refuse_events_ahead_too() {
    let merge = Declared { late: Late::Merge, ..declared(Some(AHEAD_MS)) };
    let (rows, reasons, newest_ms) = rows_of(merge, &[(NOW_MS, AHEAD_MS * 2), (NOW_MS, 5)]).await;
    assert_eq!((rows, reasons.len(), newest_ms), (vec![1], 1, Some(5)));
}

/// Some producers write 0 or seconds as the timestamp. Such a timestamp means nothing, and no event is ahead of it.
#[tokio::test]
async fn a_timestamp_before_2001_counts_as_missing() {
    let world = World::new(declared(Some(AHEAD_MS)));
    for stamp_ms in [0, NOW_MS / 1_000, 999_999_999_999, 1_000_000_000_000] {
        world.append_at(stamp_ms, &format!("x@{}", NOW_MS * 1_000)).await;
    }
    let member = world.member().await;
    member.runner.process(world.read(0, 4).await).await.unwrap();
    assert_eq!((member.texts().await.len(), world.letter_offsets()), (3, vec![3]));
}
