//! Where a partition without a fence begins.

use millstream_core::{Fence, Sink, Start, TopicPartition};
use millstream_testkit::PlainTransform;

use crate::world::{Declared, FUNCTION, TOPIC, World, partition};

fn latest() -> Declared {
    Declared { start: Start::Latest, ..Declared::default() }
}

fn number(number: i32) -> TopicPartition {
    TopicPartition { partition: number, ..partition() }
}

#[tokio::test]
async fn a_partition_that_is_added_later_begins_with_its_first_record() {
    let world = World::with(latest(), ["old", "older"]);
    assert_eq!(world.member().await.runner.start(&partition()).await.unwrap(), 2);
    world.log.grow(TOPIC, 2);
    world.log.append(TOPIC, 1, ["a", "b", "c"]);
    let member = world.member().await;
    assert_eq!(member.runner.start(&number(1)).await.unwrap(), 0);
    // On Lambda: records of the new partition that its trigger has missed are read from the log.
    world.log.grow(TOPIC, 3);
    world.log.append(TOPIC, 2, ["x", "y", "z"]);
    let pushed = crate::world::pushed_of(&world.log.all(&number(2)), |offset| offset >= 1).unwrap();
    assert_eq!(member.runner.process(pushed).await.unwrap(), 3);
    assert_eq!(member.texts().await, ["x", "y", "z"]);
}

/// In a first start, the partitions get their fences one after the other, and from several processes at once.
#[tokio::test]
async fn partitions_of_one_first_start_begin_after_the_existing_records() {
    for yields in 0..4 {
        let world = World::with(latest(), ["a", "b"]);
        world.log.grow(TOPIC, 4);
        for number in 1..4 {
            world.log.append(TOPIC, number, ["a", "b"]);
        }
        let (one, other) = (world.slow_member(yields).await, world.slow_member(1).await);
        let starts = |member: crate::world::Member, numbers: [i32; 2]| async move {
            (
                member.runner.start(&number(numbers[0])).await.unwrap(),
                member.runner.start(&number(numbers[1])).await.unwrap(),
            )
        };
        let begun = tokio::join!(starts(one, [0, 2]), starts(other, [3, 1]));
        assert_eq!(begun, ((2, 2), (2, 2)));
    }
}

/// On Lambda a partition gets its fence with its first event, which may come long after the others'.
#[tokio::test]
async fn a_partition_that_was_quiet_begins_with_its_first_delivered_record() {
    let world = World::with(latest(), ["old", "new"]);
    world.log.grow(TOPIC, 2);
    world.log.append(TOPIC, 1, ["a"]);
    let pushed = |number, from| crate::world::pushed_of(&world.log.all(&number), |offset| offset >= from).unwrap();
    assert_eq!(world.member().await.runner.process(pushed(number(1), 0)).await.unwrap(), 1);
    let member = world.member().await;
    assert_eq!(member.runner.process(pushed(number(0), 1)).await.unwrap(), 2);
    assert_eq!(member.texts().await, ["a", "new"]);
}

/// A store without the number of partitions at the first start.
#[tokio::test]
async fn a_function_that_already_has_fences_takes_the_current_partitions_as_its_first_ones() {
    let world = World::with(latest(), ["old"]);
    let before = world.store.sink(FUNCTION, PlainTransform::Append.table("words"));
    before.create_fence(&partition(), Fence::starting_at(1)).await.unwrap();
    assert_eq!(world.member().await.runner.start(&partition()).await.unwrap(), 1);
    world.log.grow(TOPIC, 2);
    world.log.append(TOPIC, 1, ["a"]);
    let member = world.member().await;
    assert_eq!(member.runner.start(&number(1)).await.unwrap(), 0);
    assert_eq!(member.sink.snapshot().await.unwrap().fences.len(), 2, "only partitions have fences");
}
