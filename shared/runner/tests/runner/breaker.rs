//! When everything is refused, it is not the records that are wrong: the function stops before it has emptied the topic into
//! the dead letters.

use millstream_core::{Error, Late};

use crate::world::{Declared, Member, UNSTORABLE, World};

/// Reads on from the fence in batches until the end or an error; the error's text, if any.
async fn read_on(world: &World, member: &Member, batch: i64, end: i64) -> Option<String> {
    let mut next = member.runner.start(&crate::world::partition()).await.unwrap();
    while next < end {
        match member.runner.process(world.read(next, (next + batch).min(end)).await).await {
            Ok(moved) => next = moved,
            Err(Error::Stop(fault)) => return Some(fault.to_string()),
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
            // On Lambda the process lives on, and gets the records again.
            assert!(read_on(&world, &member, batch, 2_500).await.is_some());
            assert_eq!((member.next_offset().await, world.letter_offsets().len()), (1_000, 1_000));
            // A restart is how a person says that the records are what is wrong: it goes on for as many more.
            let again = world.member().await;
            assert!(read_on(&world, &again, batch, 2_500).await.is_some());
            assert_eq!((again.next_offset().await, world.letter_offsets().len()), (2_000, 2_000));
            assert_eq!(read_on(&world, &world.member().await, batch, 2_500).await, None);
        }
    }
}

#[tokio::test]
async fn a_function_that_worked_rides_out_a_burst() {
    let (burst, flood) = (values("bad", 9_000), values("poison", 11_000));
    let records = [vec!["a".to_owned()], burst, vec!["b".to_owned()], flood].concat();
    let world = World::with(Declared::default(), &records);
    let member = world.member().await;
    let said = read_on(&world, &member, 700, records.len() as i64).await.expect("a stop");
    assert!(said.contains("10,000"), "{said}");
    assert_eq!(member.texts().await, ["a", "b"]);
    assert_eq!(member.next_offset().await, 1 + 9_000 + 1 + 10_000);
}

/// It is tried again each time: as soon as something is accepted, the function goes on.
#[tokio::test]
async fn what_is_accepted_ends_the_run() {
    let records: Vec<_> = (0..8_000).map(|at| if at % 900 == 899 { "a" } else { "poison" }).collect();
    let world = World::with(Declared::default(), &records);
    assert_eq!(read_on(&world, &world.member().await, 500, 8_000).await, None);
    assert_eq!(world.letter_offsets().len(), 8_000 - 8);
}

/// Late events are what the pipeline file asks for, however many there are.
#[tokio::test]
async fn late_events_stop_nothing() {
    let declared = Declared { late: Late::DeadLetter, lateness_ms: 1, ..Declared::default() };
    let records = [vec!["a@9000000".to_owned()], vec!["b@1".to_owned(); 12_000]].concat();
    let world = World::with(declared, &records);
    assert_eq!(read_on(&world, &world.member().await, 3_000, 12_001).await, None);
    assert_eq!(world.letter_offsets().len(), 12_000);
}
