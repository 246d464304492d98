//! Random schedules of two processes over one store: the result is always that of one pass.

use millstream_core::{Late, Log, OnGap, Sink};
use millstream_testkit::{Failure, rows};
use proptest::{prelude::*, sample::Index};

use crate::{
    narrowing::ALL,
    oracle::one_pass,
    world::{Declared, Member, TOPIC, World, partition, pushed_of},
    yielding::die_after,
};

/// One delivery to one of the two processes.
#[derive(Clone, Debug)]
struct Delivery {
    to: usize,
    from: Index,
    len: usize,
    /// Which of its records a trigger leaves out; `None` for a consumer's own read.
    left_out: Option<u32>,
    failures: Vec<Failure>,
    letters_fail: bool,
    log_fails: bool,
    /// The process dies after this many steps.
    dies_after: Option<usize>,
    /// From here on, the other process gets the same records at the same time.
    also: Option<usize>,
}

fn record() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        8 => "[abc]",
        1 => Just("bad".to_owned()),
        1 => Just("poison ".to_owned()),
        1 => Just("unstorable ".to_owned()),
    ];
    // Record timestamps are long after 1970: most events are old, and a few come from a clock that is far wrong.
    let time_us = prop_oneof![12 => (0_i64..40).prop_map(|ms| ms * 1_000), 1 => Just(4_000_000_000_000_000)];
    (text, time_us).prop_map(|(text, us)| format!("{text}@{us}"))
}

fn failure() -> impl Strategy<Value = Failure> {
    use Failure::{Fenced, RetryAfter, RetryBefore, Stop, TooLargeAfter, TooLargeBefore};
    prop::sample::select(vec![RetryBefore, RetryAfter, RetryAfter, TooLargeBefore, TooLargeAfter, Fenced, Stop])
}

fn delivery() -> impl Strategy<Value = Delivery> {
    let what = (0_usize..2, any::<Index>(), 1_usize..12, prop::option::of(any::<u32>()));
    let fails = (prop::collection::vec(failure(), 0..3), prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    let ends = (prop::option::weighted(0.3, 1_usize..60), prop::option::weighted(0.4, 0_usize..6));
    (what, fails, ends).prop_map(|((to, from, len, left_out), (failures, letters_fail, log_fails), (dies, also))| {
        Delivery { to, from, len, left_out, failures, letters_fail, log_fails, dies_after: dies, also }
    })
}

#[derive(Clone, Debug)]
struct Schedule {
    records: Vec<String>,
    holes: Vec<Index>,
    deliveries: Vec<Delivery>,
    last_cut: usize,
    late: bool,
    max_records: usize,
    by_position: bool,
}

fn schedule() -> impl Strategy<Value = Schedule> {
    (
        prop::collection::vec(record(), 1..30),
        prop::collection::vec(any::<Index>(), 0..5),
        prop::collection::vec(delivery(), 0..14),
        1_usize..9,
        any::<bool>(),
        1_usize..10,
        any::<bool>(),
    )
        .prop_map(|(records, holes, deliveries, last_cut, late, max_records, by_position)| Schedule {
            records,
            holes,
            deliveries,
            last_cut,
            late,
            max_records,
            by_position,
        })
}

async fn deliver(world: &World, members: &mut [Member; 2], step: &Delivery, high: i64) {
    let from = step.from.index(high as usize) as i64;
    let to = (from + step.len as i64).min(high);
    let Ok(read) = world.log.read(&partition(), from..to, ALL).await else { return };
    let batch = match step.left_out {
        None => Some(read),
        Some(left_out) => pushed_of(&read, |offset| left_out & (1 << (offset % 32)) == 0),
    };
    let Some(batch) = batch else { return };
    step.failures.iter().for_each(|failure| members[step.to].sink.fail_next(*failure));
    world.letters.fail_next(usize::from(step.letters_fail));
    world.log.fail_next_reads(usize::from(step.log_fails));
    let end = batch.range().end;
    let polls = step.dies_after.unwrap_or(usize::MAX);
    let work = die_after(polls, members[step.to].runner.process(batch.clone()));
    let outcome = match step.also.and_then(|skip| batch.after(batch.range().start + skip as i64)) {
        None => work.await,
        Some(other) => tokio::join!(work, members[1 - step.to].runner.process(other)).0,
    };
    match outcome {
        Some(Ok(next)) => assert!(next >= end, "acknowledged up to {next}, delivered up to {end}"),
        Some(Err(_)) => {}
        // Half of the dead ones come back as a new process; the other half only abandoned the call and keep their
        // state.
        None if polls.is_multiple_of(2) => members[step.to] = world.slow_member(1).await,
        None => {}
    }
    let fence = members[0].sink.fence(&partition()).await.unwrap().map_or(0, |fence| fence.next_offset);
    if let Some(Ok(next)) = outcome {
        assert!(next <= fence, "acknowledged up to {next}, the fence is at {fence}");
    }
}

const LATENESS_MS: i64 = 10;

/// The current watermark, and the rows below it: windows that end below it may be closed, since later records are late.
async fn closed(member: &Member) -> (i64, Vec<String>) {
    let snapshot = member.sink.snapshot().await.unwrap();
    let newest_us = snapshot.fences.iter().find_map(|(_, fence)| fence.max_event_time_us);
    let watermark_us = newest_us.map_or(i64::MIN, |newest_us| newest_us - LATENESS_MS * 1_000);
    let texts = rows::texts(&snapshot.rows).into_iter().map(|row| row[0].clone());
    (watermark_us, texts.filter(|text| time_us(text) < watermark_us).collect())
}

fn time_us(text: &str) -> i64 {
    text.rsplit_once('@').unwrap().1.parse().unwrap()
}

async fn run(schedule: Schedule) {
    let declared = Declared {
        late: if schedule.late { Late::DeadLetter } else { Late::Merge },
        lateness_ms: LATENESS_MS,
        max_records: schedule.max_records,
        on_gap: OnGap::Heal,
        by_position: schedule.by_position,
        ..Declared::default()
    };
    let world = World::with(declared, &schedule.records);
    let high = schedule.records.len() as i64;
    // The last record stays: a log ends with a record or a marker, and there are no markers here.
    for hole in schedule.holes.iter().map(|hole| hole.index(high as usize) as i64).filter(|hole| hole + 1 < high) {
        world.log.compact_away(TOPIC, 0, hole);
    }
    let expected = one_pass(&world.log.all(&partition()), &world.declared);
    let mut members = [world.slow_member(1).await, world.slow_member(2).await];
    let mut closings = Vec::new();
    for step in &schedule.deliveries {
        deliver(&world, &mut members, step, high).await;
        closings.push(closed(&members[0]).await);
    }

    // Finally nothing fails any more, and the remaining processes read the log from the fence.
    world.letters.fail_next(0);
    world.log.fail_next_reads(0);
    let mut attempts = 0;
    let mut next = 0;
    while next < high {
        attempts += 1;
        assert!(attempts < 500, "it does not finish");
        let to = (next + schedule.last_cut as i64).min(high);
        let batch = world.log.read(&partition(), next..to, ALL).await.unwrap();
        next = members[attempts % 2].runner.process(batch).await.unwrap_or(next);
    }

    let fence = members[0].sink.fence(&partition()).await.unwrap().unwrap();
    let rows = members[0].sink.texts().await.into_iter().map(|row| (row[0].clone(), row[1].parse().unwrap()));
    let mut rows: Vec<(String, i64)> = rows.collect();
    rows.sort();
    let letters = world.letters.all();
    let untimely = |reason: &str| reason.starts_with("late:") || reason.starts_with("ahead:");
    let late_or_not =
        letters.iter().map(|letter| (letter.position.offset, untimely(&letter.reason))).collect::<Vec<_>>();
    assert_eq!(rows, expected.rows);
    for (watermark_us, texts) in closings.into_iter().filter(|_| schedule.late) {
        let rows = expected.rows.iter().map(|(text, _)| text.clone());
        let below: Vec<_> = rows.filter(|text| time_us(text) < watermark_us).collect();
        assert_eq!(texts, below, "a closed window has changed");
    }
    assert_eq!(late_or_not, expected.letters);
    assert_eq!((fence.next_offset, fence.max_event_time_us), (high, expected.newest_us));
    let positions: Vec<_> = letters.into_iter().map(|letter| letter.position).collect();
    world.journal.assert_letters_before_fence(&positions);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_schedule_gives_the_result_of_one_pass(schedule in schedule()) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(schedule));
    }
}
