//! If everything is refused, the mistake isn't in the records: the function stops before it has moved the whole topic
//! into the dead letters.

use millstream_core::{Batch, Error, Late, Log, TopicPartition};
use millstream_testkit::{Failure, MemoryLog};

use crate::{
    narrowing::ALL,
    world::{Declared, Member, TOPIC, UNSTORABLE, World},
    yielding::die_after,
};

/// Reads from the fence in batches until the end or an error; returns the error's text, if any.
async fn read_on(world: &World, member: &Member, batch: i64, end: i64) -> Option<String> {
    let mut next = member.runner.start(&crate::world::partition()).await.unwrap();
    while next < end {
        match member.runner.process(world.read(next, (next + batch).min(end)).await).await {
            Ok(moved) => next = moved,
            Err(Error::Stop(cause)) => return Some(cause.to_string()),
            Err(error) => panic!("{error}"),
        }
    }
    None
}

fn values(text: &str, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{text} {at}")).collect()
}

#[tokio::test]
async fn a_function_that_has_never_accepted_a_record_stops_soon() {
    for refused in ["bad", "poison", UNSTORABLE] {
        for batch in [1, 70, 2_500] {
            let world = World::with(Declared::default(), values(refused, 2_500));
            let member = world.member().await;
            let said = read_on(&world, &member, batch, 2_500).await.expect("a stop");
            assert!(said.contains("1,000") && said.contains("offset 1000"), "{said}");
            assert_eq!((member.next_offset().await, world.letter_offsets().len()), (1_000, 1_000));
            // On Lambda the process stays alive, and gets the records again.
            assert!(read_on(&world, &member, batch, 2_500).await.is_some());
            assert_eq!((member.next_offset().await, world.letter_offsets().len()), (1_000, 1_000));
            // With a restart, a person confirms that the records are wrong: the function skips as many more.
            let again = world.member().await;
            assert!(read_on(&world, &again, batch, 2_500).await.is_some());
            assert_eq!((again.next_offset().await, world.letter_offsets().len()), (2_000, 2_000));
            assert_eq!(read_on(&world, &world.member().await, batch, 2_500).await, None);
        }
    }
}

#[tokio::test]
async fn a_function_that_worked_survives_a_burst_of_bad_records() {
    let (burst, flood) = (values("bad", 9_000), values("poison", 11_000));
    let records = [vec!["a".to_owned()], burst, vec!["b".to_owned()], flood].concat();
    let world = World::with(Declared::default(), &records);
    let member = world.member().await;
    let said = read_on(&world, &member, 700, records.len() as i64).await.expect("a stop");
    assert!(said.contains("10,000"), "{said}");
    assert_eq!(member.texts().await, ["a", "b"]);
    assert_eq!(member.next_offset().await, 1 + 9_000 + 1 + 10_000);
}

/// Records are tried again after each stop: as soon as one is accepted, the function continues.
#[tokio::test]
async fn an_accepted_record_resets_the_count() {
    let records: Vec<_> = (0..8_000).map(|at| if at % 900 == 899 { "a" } else { "poison" }).collect();
    let world = World::with(Declared::default(), &records);
    assert_eq!(read_on(&world, &world.member().await, 500, 8_000).await, None);
    assert_eq!(world.letter_offsets().len(), 8_000 - 8);
}

/// The pipeline file asks for late events to be dead letters, so any number of them is fine.
#[tokio::test]
async fn late_events_stop_nothing() {
    let declared = Declared { late: Late::DeadLetter, lateness_ms: 1, ..Declared::default() };
    let records = [vec!["a@9000000".to_owned()], vec!["b@1".to_owned(); 12_000]].concat();
    let world = World::with(declared, &records);
    assert_eq!(read_on(&world, &world.member().await, 3_000, 12_001).await, None);
    assert_eq!(world.letter_offsets().len(), 12_000);
}

/// A record that can be decoded, late or not, shows that there is no general mistake: one bad record in six stops
/// nothing.
#[tokio::test]
async fn bad_records_among_late_ones_stop_nothing() {
    let declared = Declared { late: Late::DeadLetter, lateness_ms: 1, ..Declared::default() };
    let around = |at: usize| if at % 6 == 5 { "bad".to_owned() } else { "b@1".to_owned() };
    let records = [vec!["a@9000000".to_owned()], (0..6_600).map(around).collect()].concat();
    for batch in [1, 6, 700] {
        let world = World::with(declared.clone(), &records);
        assert_eq!(read_on(&world, &world.member().await, 1, 1).await, None);
        // A new process, which has not accepted any record yet.
        assert_eq!(read_on(&world, &world.member().await, batch, 6_601).await, None, "batches of {batch}");
        assert_eq!(world.letter_offsets().len(), 6_600);
    }
}

/// A mistake in the pipeline file refuses the records of every partition: they count together.
#[tokio::test]
async fn partitions_without_an_accepted_record_count_together() {
    const PARTITIONS: i32 = 30;
    let mut world = World::new(Declared::default());
    world.log = MemoryLog::with_topic(TOPIC, PARTITIONS);
    for number in 0..PARTITIONS {
        world.log.append(TOPIC, number, values("bad", 100));
    }
    let member = world.member().await;
    let partition = |number| TopicPartition::new(TOPIC, 1, number);
    let (mut stops, mut letters) = (0, 0);
    for number in 0..PARTITIONS {
        let batch = world.log.read(&partition(number), 0..100, ALL).await.unwrap();
        match member.runner.process(batch).await {
            Ok(_) => letters += 100,
            Err(Error::Stop(_)) => stops += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((stops, letters, world.letters.all().len()), (PARTITIONS - 10, 1_000, 1_000));
}

/// Two partitions: the first has as many bad records as are allowed, the second one bad record.
async fn two_partitions() -> (World, Batch, Batch) {
    let mut world = World::new(Declared::default());
    world.log = MemoryLog::with_topic(TOPIC, 2);
    world.log.append(TOPIC, 0, values("bad", 1_000));
    world.log.append(TOPIC, 1, ["bad"]);
    let many = world.log.read(&TopicPartition::new(TOPIC, 1, 0), 0..1_000, ALL).await.unwrap();
    let one = world.log.read(&TopicPartition::new(TOPIC, 1, 1), 0..1, ALL).await.unwrap();
    (world, many, one)
}

#[tokio::test]
async fn a_failed_write_does_not_count_for_other_partitions() {
    let (world, many, one) = two_partitions().await;
    let member = world.member().await;
    member.sink.fail_next(Failure::RetryBefore);
    assert!(member.runner.process(many).await.unwrap_err().is_retry());
    assert_eq!(member.runner.process(one).await.unwrap(), 1);
}

/// As when its partition is revoked during the write.
#[tokio::test]
async fn a_cancelled_write_does_not_count_for_other_partitions() {
    for steps in 0.. {
        let (world, many, one) = two_partitions().await;
        let member = world.slow_member(1).await;
        if let Some(done) = die_after(steps, member.runner.process(many)).await {
            assert_eq!(done.unwrap(), 1_000);
            assert!(matches!(member.runner.process(one).await, Err(Error::Stop(_))), "the first partition used it up");
            break;
        }
        assert_eq!(member.runner.process(one).await.expect("one is allowed"), 1, "after {steps} steps");
    }
}
