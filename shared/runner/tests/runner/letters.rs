//! Dead letters: what they hold, and when they are durable.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{
    DeadLetter, DeadLetters, Error, Log, MAX_LETTER_KEY_BYTES, MAX_LETTER_VALUE_BYTES, NewRecord, Producer, Result,
};

use crate::{
    world::{Declared, TOPIC, World, partition},
    yielding::die_after,
};

/// A place that takes no letter: it is too large for its topic.
struct Refuses;

#[async_trait]
impl DeadLetters for Refuses {
    async fn put(&self, _: &[DeadLetter]) -> Result<()> {
        Err(Error::poison("a record is larger than the topic takes"))
    }

    async fn list(&self, _: Option<&str>, _: usize) -> Result<Vec<DeadLetter>> {
        Ok(vec![])
    }
}

#[tokio::test]
async fn a_letter_that_nobody_takes_stops_the_function() {
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

#[tokio::test]
async fn a_letter_holds_what_fits_one_message() {
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
