//! Missing records, whatever the cause.

use millstream_core::{BatchBuilder, Error, OnGap, Start};

use crate::world::{Declared, TOPIC, World, partition};

const WORDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn on_gap(on_gap: OnGap) -> Declared {
    Declared { on_gap, ..Declared::default() }
}

#[tokio::test]
async fn what_a_host_left_out_is_read_from_the_log_in_parts() {
    let world = World::with(Declared { max_records: 2, ..Declared::default() }, WORDS);
    let member = world.member().await;
    assert_eq!(member.runner.process(world.pushed(&[5])).await.unwrap(), 6);
    assert_eq!(member.texts().await, WORDS);
    assert_eq!(member.runner.stats().healed_records(), 5);
}

#[tokio::test]
async fn holes_inside_a_pushed_batch_are_looked_up() {
    let world = World::with(Declared::default(), WORDS);
    world.log.compact_away(TOPIC, 0, 1);
    let member = world.member().await;
    assert_eq!(member.runner.process(world.pushed(&[0, 2, 5])).await.unwrap(), 6);
    assert_eq!(member.texts().await, ["a", "c", "d", "e", "f"]);
}

#[tokio::test]
async fn a_batch_that_begins_below_the_fence_and_has_a_hole_at_it() {
    let world = World::with(Declared::default(), WORDS);
    let member = world.member().await;
    member.runner.process(world.pushed(&[0, 1, 2])).await.unwrap();
    assert_eq!(member.runner.process(world.pushed(&[1, 2, 5])).await.unwrap(), 6);
    assert_eq!(member.texts().await, WORDS);
}

#[tokio::test]
async fn a_healed_end_of_aborted_records_is_passed() {
    let world = World::with(Declared::default(), WORDS);
    let member = world.member().await;
    member.runner.process(world.pushed(&[0])).await.unwrap();
    for offset in 1..5 {
        world.log.compact_away(TOPIC, 0, offset);
    }
    assert_eq!(member.runner.process(world.pushed(&[5])).await.unwrap(), 6);
    assert_eq!(member.texts().await, ["a", "f"]);
}

#[tokio::test]
async fn unread_records_that_retention_deleted_stop_the_function() {
    let world = World::with(Declared::default(), WORDS);
    let member = world.member().await;
    member.runner.process(world.pushed(&[0])).await.unwrap();
    world.log.delete_below(TOPIC, 0, 4);
    let error = member.runner.process(world.pushed(&[4, 5])).await.unwrap_err();
    assert!(matches!(error, Error::Stop(_)), "{error}");
    assert_eq!((member.texts().await, member.next_offset().await), (vec!["a".to_owned()], 1));
}

/// The hole may be legitimate, but below the log's low end that can no longer be checked.
#[tokio::test]
async fn a_hole_below_the_logs_low_end_stops_the_function() {
    let world = World::with(Declared::default(), WORDS);
    let member = world.member().await;
    member.runner.process(world.pushed(&[0])).await.unwrap();
    let batch = world.pushed(&[1, 3, 4]);
    world.log.delete_below(TOPIC, 0, 5);
    assert!(matches!(member.runner.process(batch).await, Err(Error::Stop(_))));
    assert_eq!(member.next_offset().await, 1);
}

#[tokio::test]
async fn on_gap_fail_stops_and_on_gap_skip_goes_on() {
    let world = World::with(on_gap(OnGap::Fail), WORDS);
    let member = world.member().await;
    let error = member.runner.process(world.pushed(&[1])).await.unwrap_err();
    assert!(matches!(&error, Error::Stop(_)) && error.to_string().contains("0..1"), "{error}");

    let world = World::with(on_gap(OnGap::Skip), WORDS);
    let member = world.member().await;
    assert_eq!(member.runner.process(world.pushed(&[1, 4])).await.unwrap(), 5);
    assert_eq!(member.texts().await, ["b", "e"]);
}

#[tokio::test]
async fn a_log_that_fails_temporarily_loses_nothing() {
    let world = World::with(Declared::default(), WORDS);
    let member = world.member().await;
    world.log.fail_next_reads(1);
    assert!(member.runner.process(world.pushed(&[3])).await.unwrap_err().is_retry());
    assert_eq!(member.runner.process(world.pushed(&[3])).await.unwrap(), 4);
    assert_eq!(member.texts().await, ["a", "b", "c", "d"]);
}

/// On Lambda the first record of a partition is what wakes the function: its fence must not be created after that
/// record.
#[tokio::test]
async fn a_first_delivery_is_not_lost_to_start_latest() {
    let world = World::with(Declared { start: Start::Latest, ..Declared::default() }, WORDS);
    let member = world.member().await;
    assert_eq!(member.runner.process(world.pushed(&[4, 5])).await.unwrap(), 6);
    assert_eq!(member.texts().await, ["e", "f"]);
}

#[tokio::test]
async fn start_latest_begins_after_the_existing_records() {
    let world = World::with(Declared { start: Start::Latest, ..Declared::default() }, WORDS);
    let member = world.member().await;
    assert_eq!(member.runner.start(&partition()).await.unwrap(), 6);
    world.log.append(TOPIC, 0, ["g"]);
    // A trigger that began earlier delivers old records too. They are below the fence.
    assert_eq!(member.runner.process(world.pushed(&[3, 4, 5, 6])).await.unwrap(), 7);
    assert_eq!(member.texts().await, ["g"]);
}

/// Some hosts skip a failed batch and may never deliver again. For them, a schedule sends an empty batch at the log's
/// end.
#[tokio::test]
async fn an_empty_batch_at_the_end_of_the_log_catches_up() {
    let world = World::with(Declared { max_records: 2, ..Declared::default() }, WORDS);
    let member = world.member().await;
    member.runner.process(world.pushed(&[0])).await.unwrap();
    let end = BatchBuilder::new(partition()).finish_read(6, 6);
    assert_eq!(member.runner.process(end).await.unwrap(), 6);
    assert_eq!(member.texts().await, WORDS);
}
