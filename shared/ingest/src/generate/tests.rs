use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use millstream_core::{ManualClock, TopicPartition};
use millstream_testkit::MemoryLog;

use super::*;
use crate::testing::{Notes, TokioClock, described};

fn events() -> Events {
    let (topic, function) =
        described("{n: bigint not null, at: timestamp not null}", "rate_per_s: 100", "{n: sequence, at: now}", "n");
    Events::new(&topic, &function, 1).unwrap()
}

/// Generates for `for_ms`; returns the count and the number of positions reported.
async fn run(pace: Pace, notes: &Arc<Notes>, clock: &Arc<TokioClock>, for_ms: u64) -> (u64, usize) {
    let told = AtomicUsize::new(0);
    let stopping = || clock.elapsed_ms() >= for_ms;
    let sent = |positions: &[Position]| {
        told.fetch_add(positions.len(), Ordering::Relaxed);
    };
    let count = generate(&mut events(), pace, "t", notes.clone(), clock.clone(), stopping, sent).await.unwrap();
    (count, told.into_inner())
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_kept_in_small_batches() {
    let clock = TokioClock::new();
    let notes = Arc::new(Notes::new(&clock));
    let (count, told) = run(Pace::PerSecond(12_345.0), &notes, &clock, 60_001).await;
    // The last look is one tick before the end at the earliest.
    assert!((740_453..=740_712).contains(&count), "60 s × 12,345 a second: {count}");
    assert_eq!(told as u64, count);
    let times = notes.times_ms();
    assert!(times.windows(2).all(|pair| (20..=21).contains(&(pair[1] - pair[0]))), "a batch each tick");
    for (at_ms, records) in notes.sends.lock().unwrap().iter() {
        assert_eq!(records[0].timestamp_ms, Some(TokioClock::START_US / 1_000 + *at_ms as i64));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_topic_is_caught_up_with_by_one_second_at_most() {
    let clock = TokioClock::new();
    let notes = Arc::new(Notes { takes_ms: 5_000, ..Notes::new(&clock) });
    let (count, _) = run(Pace::PerSecond(100.0), &notes, &clock, 20_000).await;
    let sizes: Vec<_> = notes.sends.lock().unwrap().iter().map(|(_, records)| records.len()).collect();
    assert_eq!(sizes[1..], [100; 3], "one second's worth after each 5 s");
    assert_eq!(count as usize, sizes.iter().sum::<usize>());
}

#[tokio::test(start_paused = true)]
async fn transient_errors_are_retried_ever_more_slowly_with_the_same_records() {
    let clock = TokioClock::new();
    let notes = Arc::new(Notes { failing: 9.into(), ..Notes::new(&clock) });
    let (count, told) = run(Pace::EveryMs(60_000), &notes, &clock, 30_000).await;
    let times = notes.times_ms();
    let waits: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]) / 10 * 10).collect();
    assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
    let sends = notes.sends.lock().unwrap();
    assert!(sends.iter().all(|(_, records)| *records == sends[0].1));
    assert_eq!((count, told), (1, 1), "what failed is not counted");
}

#[tokio::test(start_paused = true)]
async fn it_stops_while_the_topic_is_away() {
    let clock = TokioClock::new();
    let notes = Arc::new(Notes { failing: usize::MAX.into(), ..Notes::new(&clock) });
    assert_eq!(run(Pace::EveryMs(1_000), &notes, &clock, 20_000).await, (0, 0));
    assert!((20_000..20_200).contains(&clock.elapsed_ms()), "{} ms", clock.elapsed_ms());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_while_the_clock_stands_still() {
    let clock = Arc::new(ManualClock::at_us(5_000_000));
    let looks = AtomicUsize::new(0);
    let stopping = || match looks.fetch_add(1, Ordering::Relaxed) {
        100 => {
            clock.advance_us(500_000);
            false
        }
        looks => looks > 101,
    };
    let log = MemoryLog::with_topic("t", 2);
    let positions = Mutex::new(Vec::new());
    let sent = |acknowledged: &[Position]| positions.lock().unwrap().extend_from_slice(acknowledged);
    let pace = Pace::PerSecond(100.0);
    let log_of = Arc::new(log.clone());
    let count = generate(&mut events(), pace, "t", log_of, clock.clone(), stopping, sent).await.unwrap();
    let held: usize = (0..2).map(|partition| log.all(&TopicPartition::new("t", 1, partition)).len()).sum();
    assert_eq!((count, held), (50, 50));
    assert_eq!(positions.lock().unwrap().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_transient_ends_it() {
    let log = Arc::new(MemoryLog::new());
    let (mut events, pace) = (events(), Pace::EveryMs(1));
    let error = generate(&mut events, pace, "t", log, TokioClock::new(), || false, |_| ()).await.unwrap_err();
    assert_eq!(error.to_string(), "sending to topic t: topic t does not exist: create it with `millstream up`");
}
