//! Letters in a topic against the conformance suite, and how far a listing looks back.

use std::sync::Arc;

use millstream_core::{DeadLetter, DeadLetters, TopicPartition};
use millstream_testkit::{MemoryLog, conformance::DeadLettersCheck};
use millstream_topic::TopicDeadLetters;

async fn conforms(partitions: i32, check: DeadLettersCheck) {
    let log = MemoryLog::with_topic("letters", partitions);
    check.run(&TopicDeadLetters::new(Arc::new(log), "letters")).await;
}

mod one_partition {
    millstream_testkit::dead_letter_tests!(super::conforms, 1);
}

mod three_partitions {
    millstream_testkit::dead_letter_tests!(super::conforms, 3);
}

/// A listing is bounded, even if other functions have many letters.
#[tokio::test]
async fn a_listing_looks_back_only_a_limited_number_of_offsets() {
    let log = Arc::new(MemoryLog::with_topic("letters", 1));
    let letters = TopicDeadLetters::new(log.clone(), "letters");
    let partition = TopicPartition::new("words", 1, 0);
    let letter = |function: &str, offset| DeadLetter {
        function: function.into(),
        position: partition.at(offset),
        timestamp_ms: 0,
        key: None,
        value: None,
        headers: vec![],
        value_bytes: 0,
        reason: "x".into(),
    };
    letters.put(&[letter("quiet", 0), letter("quiet", 1)]).await.unwrap();
    letters.put(&(0..99_999).map(|offset| letter("loud", offset)).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(letters.list(Some("quiet"), 10).await.unwrap(), [letter("quiet", 1)]);
    assert_eq!(letters.find(Some("quiet"), &partition.at(0)).await.unwrap(), [letter("quiet", 0)]);
}
