//! A topic that was made anew is found out; a healthy one never is.

use millstream_core::{Error, Start};

use crate::world::{Declared, Member, TOPIC, World, partition};

async fn three_done(world: &World) -> Member {
    let member = world.member().await;
    member.runner.process(world.read(0, 3).await).await.unwrap();
    member
}

fn stopped<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Stop(_)) && error.to_string().contains("generation"), "{error}");
}

#[tokio::test]
async fn a_shorter_topic_is_found_out() {
    let world = World::with(Declared::default(), ["a", "b", "c"]);
    let member = three_done(&world).await;
    world.log.recreate(TOPIC, 1);
    stopped(member.runner.start(&partition()).await);
    world.log.append(TOPIC, 0, ["x"]);
    stopped(member.runner.process(world.pushed(&[0])).await);
    stopped(member.runner.start(&partition()).await);
}

#[tokio::test]
async fn a_longer_topic_is_found_out_by_the_last_record_below_the_fence() {
    let world = World::with(Declared::default(), ["a", "b", "c"]);
    let member = three_done(&world).await;
    world.log.recreate(TOPIC, 1);
    world.log.append(TOPIC, 0, ["u", "v", "w", "x", "y"]);
    stopped(member.runner.start(&partition()).await);
    stopped(member.runner.process(world.pushed(&[0, 1])).await);
    // It reaches over the fence: the part below it is no redelivery either.
    stopped(member.runner.process(world.pushed(&[0, 1, 2, 3, 4])).await);
    stopped(member.runner.process(world.pushed(&[2, 3])).await);
    assert_eq!(member.texts().await, ["a", "b", "c"]);
}

/// Replays and several producers write times in any order; a log without times writes -1.
#[tokio::test]
async fn times_out_of_order_stop_nothing() {
    for times in [[900, 500, 100, 700], [-1, -1, -1, -1], [5, 5, 5, 5], [100, 500, 200, 1]] {
        let world = World::new(Declared::default());
        for (time_ms, text) in times.into_iter().zip(["a", "b", "c", "d"]) {
            world.append_at(time_ms, text).await;
        }
        let member = three_done(&world).await;
        for again in [&[0][..], &[1], &[0, 1, 2], &[1, 2, 3], &[2]] {
            member.runner.process(world.pushed(again)).await.unwrap();
        }
        assert_eq!(member.runner.start(&partition()).await.unwrap(), 4);
        assert_eq!(member.texts().await, ["a", "b", "c", "d"]);
    }
}

#[tokio::test]
async fn compaction_and_retention_around_the_fence_stop_nothing() {
    type Change = fn(&World);
    let changes: [Change; 5] = [
        |world| world.log.compact_away(TOPIC, 0, 2),
        |world| world.log.compact_away(TOPIC, 0, 0),
        |world| world.log.delete_below(TOPIC, 0, 2),
        |world| world.log.delete_below(TOPIC, 0, 3),
        |world| (0..3).for_each(|offset| world.log.compact_away(TOPIC, 0, offset)),
    ];
    for change in changes {
        let world = World::with(Declared::default(), ["a", "b", "c"]);
        let member = three_done(&world).await;
        let redelivered = world.pushed(&[2]);
        change(&world);
        assert_eq!(member.runner.start(&partition()).await.unwrap(), 3);
        assert_eq!(member.runner.process(redelivered).await.unwrap(), 3);
        world.log.append(TOPIC, 0, ["d"]);
        assert_eq!(world.member().await.runner.process(world.pushed(&[3])).await.unwrap(), 4);
        assert_eq!(member.texts().await, ["a", "b", "c", "d"]);
    }
}

/// The fence may stand behind a hole (transaction markers): then there is no record to compare, and none is missed.
#[tokio::test]
async fn a_fence_behind_a_hole_stops_nothing() {
    let world = World::with(Declared::default(), ["a", "b", "c"]);
    world.log.compact_away(TOPIC, 0, 2);
    let member = three_done(&world).await;
    assert_eq!(member.runner.start(&partition()).await.unwrap(), 3);
    world.log.append(TOPIC, 0, ["d"]);
    assert_eq!(member.runner.start(&partition()).await.unwrap(), 3);
    assert_eq!(member.runner.process(world.pushed(&[0, 1])).await.unwrap(), 3);
}

#[tokio::test]
async fn an_empty_new_topic_is_a_beginning() {
    let world = World::new(Declared { start: Start::Latest, ..Declared::default() });
    let member = world.member().await;
    assert_eq!(member.runner.start(&partition()).await.unwrap(), 0);
    assert_eq!(member.runner.start(&partition()).await.unwrap(), 0);
}
