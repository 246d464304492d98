//! A re-created topic is detected; a healthy one never stops a function.

use millstream_core::{Error, Log, Sink, Start};

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

/// Deletes the topic and re-creates it with `values`, which get the old records' timestamps.
async fn recreate_alike(world: &World, values: &[&str]) {
    world.log.recreate(TOPIC, 1);
    for (offset, value) in values.iter().enumerate() {
        world.append_at(times()[offset], value).await;
    }
}

fn times() -> Vec<i64> {
    (0..9).map(|offset| 1_800_000_000_000 + offset).collect()
}

async fn alike() -> (World, Member) {
    let world = World::new(Declared::default());
    recreate_alike(&world, &["a", "b", "c"]).await;
    let member = three_done(&world).await;
    (world, member)
}

/// A replay with the old timestamps: only the topic's id differs.
#[tokio::test]
async fn a_topic_that_looks_the_same_is_detected_by_its_id() {
    for values in [&["u", "v", "w"][..], &["u", "v", "w", "x", "y"]] {
        let (world, _) = alike().await;
        assert_eq!(world.member().await.runner.start(&partition()).await.unwrap(), 3);
        recreate_alike(&world, values).await;
        let offsets: Vec<i64> = (0..values.len() as i64).collect();
        stopped(world.member().await.runner.start(&partition()).await);
        stopped(world.member().await.runner.process(world.pushed(&offsets)).await);
        assert_eq!(world.member().await.texts().await, ["a", "b", "c"]);
    }
}

#[tokio::test]
async fn an_older_fence_gets_the_topic_id_with_the_next_write() {
    let world = World::new(Declared::default());
    world.log.without_topic_ids(true);
    recreate_alike(&world, &["a", "b", "c"]).await;
    let member = three_done(&world).await;
    let id = async || member.sink.fence(&partition()).await.unwrap().unwrap().topic_id;
    world.log.without_topic_ids(false);
    let later = world.member().await;
    assert_eq!((later.runner.start(&partition()).await.unwrap(), id().await), (3, None));
    world.append_at(times()[3], "d").await;
    later.runner.process(world.pushed(&[3])).await.unwrap();
    assert_eq!(id().await, world.log.topic_id(TOPIC).await.unwrap());
    // A broker that doesn't tell ids for a while doesn't remove any.
    world.log.without_topic_ids(true);
    world.append_at(times()[4], "e").await;
    world.member().await.runner.process(world.pushed(&[4])).await.unwrap();
    assert!(id().await.is_some());
}

/// A function that doesn't call `start` (Lambda) must not store the id of a topic that isn't the fence's.
#[tokio::test]
async fn an_older_fence_does_not_get_the_id_of_another_topic() {
    let world = World::new(Declared::default());
    world.log.without_topic_ids(true);
    recreate_alike(&world, &["a", "b", "c"]).await;
    three_done(&world).await;
    world.log.recreate(TOPIC, 1);
    world.log.append(TOPIC, 0, ["u", "v", "w", "x"]);
    world.log.without_topic_ids(false);
    stopped(world.member().await.runner.process(world.pushed(&[3])).await);
}

#[tokio::test]
async fn a_log_that_ends_below_the_fence_is_retried_for_a_while() {
    for without_ids in [false, true] {
        let (world, _) = alike().await;
        world.log.without_topic_ids(without_ids);
        let member = world.member().await;
        world.log.tell_end(TOPIC, 0, 1, 11);
        for _ in 0..11 {
            let error = member.runner.start(&partition()).await.unwrap_err();
            assert!(error.is_retry() && error.to_string().contains("ends at offset 1"), "{error}");
        }
        assert_eq!(member.runner.start(&partition()).await.unwrap(), 3);
        // It has recovered: the next time, the function waits as long again.
        world.log.tell_end(TOPIC, 0, 1, 1);
        assert!(member.runner.start(&partition()).await.unwrap_err().is_retry());
    }
}

#[tokio::test]
async fn a_log_that_has_lost_records_stops() {
    let (world, member) = alike().await;
    world.log.lose_from(TOPIC, 0, 2);
    let error = loop {
        match member.runner.start(&partition()).await.unwrap_err() {
            error if error.is_retry() => {}
            error => break error.to_string(),
        }
    };
    assert!(error.contains("same topic") && error.contains("lost records") && !error.contains("re-created"), "{error}");
    // By now other records have their offsets.
    world.append_at(times()[8], "x").await;
    let error = world.member().await.runner.start(&partition()).await.unwrap_err();
    assert!(matches!(&error, Error::Stop(_)) && error.to_string().contains("lost records"), "{error}");
}

#[tokio::test]
async fn a_shorter_topic_is_detected() {
    let world = World::with(Declared::default(), ["a", "b", "c"]);
    let member = three_done(&world).await;
    world.log.recreate(TOPIC, 1);
    stopped(member.runner.start(&partition()).await);
    world.log.append(TOPIC, 0, ["x"]);
    stopped(member.runner.process(world.pushed(&[0])).await);
    stopped(member.runner.start(&partition()).await);
}

#[tokio::test]
async fn a_longer_topic_is_detected_by_the_last_record_below_the_fence() {
    let world = World::with(Declared::default(), ["a", "b", "c"]);
    let member = three_done(&world).await;
    world.log.recreate(TOPIC, 1);
    world.log.append(TOPIC, 0, ["u", "v", "w", "x", "y"]);
    stopped(member.runner.start(&partition()).await);
    stopped(member.runner.process(world.pushed(&[0, 1])).await);
    // The batch reaches past the fence: its part below the fence isn't a redelivery either.
    stopped(member.runner.process(world.pushed(&[0, 1, 2, 3, 4])).await);
    stopped(member.runner.process(world.pushed(&[2, 3])).await);
    assert_eq!(member.texts().await, ["a", "b", "c"]);
}

/// Replays and several producers write timestamps in any order; a log without timestamps writes -1.
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

/// The fence may come after a hole (transaction markers): then there is no record to compare, and none is missing.
#[tokio::test]
async fn a_fence_after_a_hole_stops_nothing() {
    let world = World::with(Declared::default(), ["a", "b", "c"]);
    world.log.compact_away(TOPIC, 0, 2);
    let member = three_done(&world).await;
    assert_eq!(member.runner.start(&partition()).await.unwrap(), 3);
    world.log.append(TOPIC, 0, ["d"]);
    assert_eq!(member.runner.start(&partition()).await.unwrap(), 3);
    assert_eq!(member.runner.process(world.pushed(&[0, 1])).await.unwrap(), 3);
}

#[tokio::test]
async fn a_new_empty_topic_is_a_first_start() {
    let world = World::new(Declared { start: Start::Latest, ..Declared::default() });
    let member = world.member().await;
    assert_eq!(member.runner.start(&partition()).await.unwrap(), 0);
    assert_eq!(member.runner.start(&partition()).await.unwrap(), 0);
}
