//! Dead letters: their content, and when they are durable.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_core::{
    DeadLetter, DeadLetters, Error, Fence, Log, MAX_LETTER_KEY_BYTES, MAX_LETTER_VALUE_BYTES, NewRecord, Position,
    Producer, Result, Sink, Transform,
};
use millstream_testkit::{Call, Failure};

use crate::{
    world::{Declared, TOPIC, World, partition},
    yielding::die_after,
};

/// A store that refuses every letter, as too large for its topic.
struct Refuses;

#[async_trait]
impl DeadLetters for Refuses {
    async fn put(&self, _: &[DeadLetter]) -> Result<()> {
        Err(Error::poison("a record is larger than the topic takes"))
    }

    async fn list(&self, _: Option<&str>, _: usize) -> Result<Vec<DeadLetter>> {
        Ok(vec![])
    }

    async fn find(&self, _: Option<&str>, _: &Position) -> Result<Vec<DeadLetter>> {
        Ok(vec![])
    }

    async fn copy(&self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }

    async fn remove(&self, _: &str, _: &[Position]) -> Result<()> {
        Ok(())
    }

    async fn positions(&self, _: &str, _: &mut (dyn FnMut(Position) + Send)) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_letter_that_cannot_be_stored_stops_the_function() {
    let world = World::with(Declared::default(), ["a", "bad", "c"]);
    let member = world.member_with(Arc::new(Refuses), 1).await;
    let done = die_after(1_000, member.runner.process(world.pushed(&[0, 1, 2]))).await;
    let error = done.expect("an end").unwrap_err();
    assert!(matches!(error, Error::Stop(_)), "{error}");
    assert_eq!(member.texts().await, [""; 0]);
}

#[tokio::test]
async fn letters_are_durable_before_the_fence_passes_them() {
    let world = World::with(Declared::default(), ["a", "bad", "c"]);
    let member = world.member().await;
    world.letters.fail_next(2);
    for _ in 0..2 {
        assert!(member.runner.process(world.pushed(&[0, 1, 2])).await.unwrap_err().is_retry());
        assert_eq!(member.next_offset().await, 0);
    }
    assert_eq!(member.runner.process(world.pushed(&[0, 1, 2])).await.unwrap(), 3);
    world.journal.assert_letters_before_fence(&[partition().at(1)]);
    assert_eq!(member.runner.stats().dead_letters(), 1);
}

/// While a database is unavailable, the same letters are not sent with every attempt.
#[tokio::test]
async fn a_stored_letter_is_not_sent_again() {
    let world = World::with(Declared::default(), ["a", "bad", "c", "bad", "poison", "f", "bad"]);
    let member = world.member().await;
    for failure in [Failure::RetryBefore, Failure::Fenced, Failure::RetryBefore] {
        member.sink.fail_next(failure);
    }
    world.letters.fail_next(1);
    for _ in 0..3 {
        assert!(member.runner.process(world.read(0, 7).await).await.unwrap_err().is_retry());
    }
    assert_eq!(member.runner.process(world.read(0, 7).await).await.unwrap(), 7);
    let mut sent: Vec<_> = world
        .journal
        .calls()
        .into_iter()
        .filter_map(|call| if let Call::Letters(positions) = call { Some(positions) } else { None })
        .flat_map(|positions| positions.into_iter().map(|position| position.offset))
        .collect();
    sent.sort();
    assert_eq!(sent, [1, 3, 4, 6]);
    // Another process sends the letter again: it can't know that it is stored.
    assert_eq!(member.runner.stats().dead_letters(), 4);
}

/// The function was reset, or the sink was restored to an earlier state: its letters may be gone as well.
#[tokio::test]
async fn letters_are_sent_again_when_the_fence_goes_back() {
    let world = World::with(Declared::default(), ["a", "b", "bad", "d"]);
    let member = world.member().await;
    member.runner.process(world.read(0, 2).await).await.unwrap();
    member.sink.fail_next(Failure::RetryBefore);
    assert!(member.runner.process(world.read(2, 4).await).await.unwrap_err().is_retry());
    assert_eq!(world.letter_offsets(), [2]);
    let there = member.sink.fence(&partition()).await.unwrap().unwrap();
    member.sink.write(&partition(), &there, &Fence { next_offset: 0, ..there.clone() }, &[]).await.unwrap();
    assert_eq!(member.runner.process(world.read(0, 4).await).await.unwrap(), 4);
    let puts = world.journal.calls().into_iter().filter(|call| matches!(call, Call::Letters(_))).count();
    assert_eq!((puts, member.next_offset().await), (2, 4));
}

#[tokio::test]
async fn a_reason_is_cut_between_characters() {
    struct Chatty;

    #[async_trait]
    impl Transform for Chatty {
        async fn apply(&self, _: &str, _: RecordBatch) -> Result<Vec<RecordBatch>> {
            Err(Error::poison(format!("x{}", "é".repeat(500_000))))
        }
    }

    let world = World::with(Declared { transform: Arc::new(Chatty), ..Declared::default() }, ["a"]);
    world.member().await.runner.process(world.read(0, 1).await).await.unwrap();
    let reason = world.letters.all().remove(0).reason;
    assert_eq!((reason.len(), reason.trim_end_matches('é')), (1_023, "x"));
}

#[tokio::test]
async fn a_letter_is_cut_to_fit_one_message() {
    let world = World::new(Declared::default());
    let (key, value) = (vec![b'k'; 200_000], [b"bad".to_vec(), vec![b'v'; 999_000]].concat());
    let headers = vec![("trace".to_owned(), b"1".to_vec())];
    let record = NewRecord { key: Some(key.clone()), value: Some(value.clone()), headers, ..NewRecord::default() };
    world.log.send(TOPIC, vec![record, NewRecord { partition: Some(0), ..NewRecord::default() }]).await.unwrap();
    let batch = world.log.read(&partition(), 0..2, crate::narrowing::ALL).await.unwrap();
    world.member().await.runner.process(batch).await.unwrap();
    let letters = world.letters.all();
    let large = &letters[0];
    assert!(large.key.as_deref() == Some(&key[..MAX_LETTER_KEY_BYTES]), "the key is cut");
    assert!(large.value.as_deref() == Some(&value[..MAX_LETTER_VALUE_BYTES]), "the value is cut");
    assert_eq!((large.value_bytes, large.headers.len()), (value.len(), 1));
    assert_eq!((&letters[1].key, &letters[1].value, letters[1].value_bytes), (&None, &None, 0));
}
