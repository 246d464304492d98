//! Two processes on one partition; one of them is behind.

use millstream_core::{Fence, Log, OnGap, Sink, Start};
use millstream_testkit::Failure;

use crate::{
    world::{Declared, TOPIC, World, partition},
    yielding::die_after,
};

const WORDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Member A has cached the fence at offset 2; member B has processed everything up to 6.
async fn one_behind(on_gap: OnGap) -> (World, crate::world::Member) {
    let world = World::with(Declared { on_gap, ..Declared::default() }, WORDS);
    let (behind, ahead) = (world.member().await, world.member().await);
    behind.runner.process(world.pushed(&[0, 1])).await.unwrap();
    ahead.runner.process(world.pushed(&[2, 3, 4, 5])).await.unwrap();
    (world, behind)
}

#[tokio::test]
async fn a_zombie_writes_nothing_twice() {
    let (world, behind) = one_behind(OnGap::Heal).await;
    assert_eq!(behind.runner.process(world.pushed(&[2, 3, 4])).await.unwrap(), 6);
    assert_eq!(behind.runner.process(world.pushed(&[4, 5, 6, 7])).await.unwrap(), 8);
    assert_eq!(behind.texts().await, WORDS);
}

/// A warm Lambda instance gets its next batch after others have processed many: what looks like a gap is in the sink.
#[tokio::test]
async fn a_stale_fence_is_not_a_gap() {
    let (world, behind) = one_behind(OnGap::Heal).await;
    world.log.delete_below(TOPIC, 0, 6);
    assert_eq!(behind.runner.process(world.pushed(&[6, 7])).await.unwrap(), 8);
    assert_eq!(behind.runner.stats().healed_records(), 0);
    assert_eq!(behind.texts().await, WORDS);

    let (world, behind) = one_behind(OnGap::Fail).await;
    assert_eq!(behind.runner.process(world.pushed(&[6, 7])).await.unwrap(), 8);
    assert_eq!(behind.texts().await, WORDS);
}

#[tokio::test]
async fn the_fence_shows_whether_an_unknown_write_succeeded() {
    let world = World::with(Declared::default(), WORDS);
    let member = world.member().await;
    for failure in [Failure::RetryBefore, Failure::RetryAfter] {
        member.sink.fail_next(failure);
        assert!(member.runner.process(world.pushed(&[0, 1, 2])).await.unwrap_err().is_retry());
    }
    assert_eq!(member.runner.process(world.pushed(&[0, 1, 2, 3])).await.unwrap(), 4);
    assert_eq!(member.texts().await, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn endless_fencing_becomes_a_retry() {
    let world = World::with(Declared::default(), WORDS);
    let member = world.member().await;
    for _ in 0..11 {
        member.sink.fail_next(Failure::Fenced);
    }
    assert!(member.runner.process(world.pushed(&[0, 1])).await.unwrap_err().is_retry());
    assert_eq!(member.runner.process(world.pushed(&[0, 1])).await.unwrap(), 2);
    assert_eq!(member.texts().await, ["a", "b"]);
}

/// A failover to a replica that lacks the last commits rolls fence and rows back together.
#[tokio::test]
async fn a_store_that_falls_back_is_filled_again() {
    let mut world = World::with(Declared::default(), WORDS);
    let warm = world.member().await;
    warm.runner.process(world.pushed(&[0, 1, 2, 3])).await.unwrap();
    world.store = Default::default();
    let replica = world.member().await;
    replica.runner.process(world.pushed(&[0, 1])).await.unwrap();
    // Now the batch comes after a gap: the lost records.
    assert_eq!(replica.runner.process(world.pushed(&[4, 5])).await.unwrap(), 6);
    assert_eq!(replica.texts().await, WORDS[..6]);
}

#[tokio::test]
async fn two_first_writers_with_different_watermarks_agree() {
    for start in [Start::Earliest, Start::Latest] {
        let world = World::with(Declared { start, ..Declared::default() }, ["a", "b", "c"]);
        let (first, second) = (world.slow_member(3).await, world.slow_member(1).await);
        let here = partition();
        let more = async {
            tokio::task::yield_now().await;
            world.log.append(TOPIC, 0, ["d", "e"]);
            world.log.delete_below(TOPIC, 0, 1);
            second.runner.start(&here).await.unwrap()
        };
        let (one, other) = tokio::join!(first.runner.start(&here), more);
        let fence = first.sink.fence(&here).await.unwrap().unwrap();
        assert_eq!((one.unwrap(), other), (fence.next_offset, fence.next_offset));
        let topic_id = world.log.topic_id(TOPIC).await.unwrap();
        assert_eq!(fence, Fence { topic_id, ..Fence::starting_at(fence.start_offset) });
        world.log.append(TOPIC, 0, ["f"]);
        second.runner.process(world.read(fence.next_offset, 6).await).await.unwrap();
        first.runner.process(world.read(fence.next_offset, 6).await).await.unwrap();
        assert_eq!(first.texts().await, ["a", "b", "c", "d", "e", "f"][fence.start_offset as usize..]);
    }
}

/// A process dies at every possible step, and another one continues with other batch boundaries.
#[tokio::test]
async fn a_death_at_any_step_changes_nothing() {
    let values = ["a", "bad", "c", "poison", "e", "unstorable", "unstorable", "h"];
    for polls in 1..120 {
        let world = World::with(Declared::default(), values);
        let dying = world.slow_member(1).await;
        let died = die_after(polls, dying.runner.process(world.pushed(&[0, 1, 2, 3, 5, 6, 7]))).await.is_none();
        let next = world.member().await;
        for batch in [world.read(0, 3).await, world.pushed(&[2, 3, 4]), world.read(5, 8).await] {
            next.runner.process(batch).await.unwrap();
        }
        assert_eq!(next.texts().await, ["a", "c", "e", "h"], "dead after {polls} polls");
        assert_eq!(world.letter_offsets(), [1, 3, 5, 6], "dead after {polls} polls");
        let positions: Vec<_> = world.letters.all().into_iter().map(|letter| letter.position).collect();
        world.journal.assert_letters_before_fence(&positions);
        assert!(died || polls > 20, "it has more steps than {polls}");
    }
}
