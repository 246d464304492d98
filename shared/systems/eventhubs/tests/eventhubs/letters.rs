//! Dead letters in an event hub, and what else is written over AMQP.

use std::sync::Arc;

use millstream_core::{
    Compression, Connect as _, Error, Log as _, LogStore as _, NewRecord, Producer as _, partition_of,
};
use millstream_emulators::event_hubs::EventHubsDouble;
use millstream_eventhubs::EventHubs;
use millstream_testkit::conformance::DeadLettersCheck;
use millstream_topic::TopicDeadLetters;

use crate::support::{HUB, ROOMY, env_with, open, partition, values, within_limit};

fn open_to_send(double: &EventHubsDouble) -> EventHubs {
    let connection = double.connection_string_to_send();
    EventHubs::open(&env_with(double, &[("MILLSTREAM_EVENTHUBS_CONNECTION", &connection)])).unwrap().unwrap()
}

async fn conforms(partitions: i32, check: DeadLettersCheck) {
    let double = EventHubsDouble::start_standard();
    double.create("bank.dead-letters", partitions);
    check.run(&TopicDeadLetters::new(Arc::new(open_to_send(&double)), "bank.dead-letters")).await;
}

mod one_partition {
    millstream_testkit::dead_letter_tests!(super::conforms, 1);
}

/// All checks but those of large letters, which take long and know no partitions, and that of the order of a listing: each partition
/// stamps its own part of what is put at once, a millisecond before another or after it.
mod three_partitions {
    millstream_testkit::each_check! { [super::conforms, 3] dead_letter_checks
        letters::{
            all_of_a_letter_comes_back,
            a_letter_that_comes_twice_is_one,
            a_letter_is_found_by_its_position,
            every_position_is_visited,
            copies_stand_under_both_functions,
            a_removed_letter_is_gone_until_it_comes_again,
            older_letters_are_listed_when_newer_ones_were_removed,
        }
    }
}

fn record(key: &[u8], value: &str) -> NewRecord {
    NewRecord { key: Some(key.to_vec()), value: Some(value.into()), ..NewRecord::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_a_record_comes_back() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let hubs = open_to_send(&double);
    let header = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    let headers = vec![header("a", &[0, 255]), header("a", b""), header("millstream-key", b"k"), header("a", b"2")];
    let records = vec![
        NewRecord { headers: headers.clone(), ..record(&[0, 255], "v") },
        NewRecord { key: Some(b"k".to_vec()), ..NewRecord::default() },
        NewRecord { value: Some(Vec::new()), ..NewRecord::default() },
    ];
    let positions = hubs.send(HUB, records).await.unwrap();
    assert_eq!(positions.iter().map(|at| at.offset).collect::<Vec<_>>(), [-1; 3]);
    let batch = hubs.read(&partition(0), 0..3, ROOMY).await.unwrap();
    assert_eq!(batch.keys().iter().collect::<Vec<_>>(), [Some(&[0_u8, 255][..]), Some(b"k"), None]);
    assert_eq!(values(&batch), [Some(b"v".to_vec()), None, Some(Vec::new())]);
    assert_eq!(batch.headers_of(0), headers);
    assert!(batch.headers_of(1).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_have_their_partitions_and_an_order() {
    let double = EventHubsDouble::start();
    double.create(HUB, 4);
    let hubs = open_to_send(&double);
    let producer = hubs.producer(Compression::default()).unwrap();
    let records: Vec<_> = (0..1_000).map(|at| record(format!("key {}", at % 10).as_bytes(), &at.to_string())).collect();
    let positions = within_limit(producer.send(HUB, records.clone())).await.unwrap();
    for number in 0..4 {
        let expected: Vec<_> = records
            .iter()
            .zip(&positions)
            .filter(|(record, at)| {
                let own = partition_of(record.key.as_deref().unwrap(), 4);
                assert_eq!(own, at.partition.partition);
                own == number
            })
            .map(|(record, _)| record.value.clone())
            .collect();
        let end = hubs.watermarks(&partition(number)).await.unwrap().high;
        assert_eq!(end, expected.len() as i64);
        if end > 0 {
            assert_eq!(values(&hubs.read(&partition(number), 0..end, ROOMY).await.unwrap()), expected);
        }
    }
    assert!(double.senders() <= 4, "{} senders", double.senders());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_was_closed_is_opened_again() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let hubs = open_to_send(&double);
    within_limit(hubs.send(HUB, vec![record(b"k", "0")])).await.unwrap();
    double.close_senders();
    within_limit(hubs.send(HUB, vec![record(b"k", "1")])).await.unwrap();
    double.cut();
    // A lost connection is the caller's affair.
    let mut sent = within_limit(hubs.send(HUB, vec![record(b"k", "2")])).await;
    if sent.as_ref().is_err_and(Error::is_retry) {
        sent = within_limit(hubs.send(HUB, vec![record(b"k", "2")])).await;
    }
    sent.unwrap();
    let high = hubs.watermarks(&partition(0)).await.unwrap().high;
    let mut all = values(&hubs.read(&partition(0), 0..high, ROOMY).await.unwrap());
    all.dedup();
    assert_eq!(all, ["0", "1", "2"].map(|text| Some(text.into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_whose_event_is_rejected_takes_nothing_else_with_it() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let hubs = open_to_send(&double);
    within_limit(hubs.send(HUB, vec![record(b"k", "0")])).await.unwrap();
    for round in 1..4 {
        double.reject(1);
        within_limit(hubs.send(HUB, vec![record(b"k", &round.to_string())])).await.unwrap();
    }
    assert_eq!(double.connections(), 1);
    let all = values(&hubs.read(&partition(0), 0..4, ROOMY).await.unwrap());
    assert_eq!(all, (0..4).map(|round| Some(round.to_string().into())).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_letters_than_the_service_takes_at_once_get_through() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let hubs = open_to_send(&double);
    within_limit(hubs.send(HUB, vec![record(b"k", "first")])).await.unwrap();
    double.limit(100);
    let all: Vec<_> = (0..1_000).map(|number| record(b"k", &number.to_string())).collect();
    within_limit(hubs.send(HUB, all)).await.unwrap();
    let high = hubs.watermarks(&partition(0)).await.unwrap().high;
    // A few were on their way when one before them was rejected.
    assert!((1_001..2_000).contains(&high), "{high}");
    let batch = within_limit(hubs.read(&partition(0), 1..high, ROOMY)).await.unwrap();
    let mut next = 0;
    for value in values(&batch) {
        let number: i64 = String::from_utf8(value.unwrap()).unwrap().parse().unwrap();
        // One that was on its way may get through before the rejected one before it, and comes again after that.
        assert!(number < next + 64, "no more than that are on their way: {number} comes before {next}");
        next = if number == next { next + 1 } else { next };
    }
    assert_eq!((next, double.connections(), double.senders()), (1_000, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_written_is_said() {
    let double = EventHubsDouble::start();
    double.create(HUB, 2);
    let hubs = open_to_send(&double);
    let large = record(b"k", &"x".repeat(256 << 10));
    let fits = record(b"k", &"x".repeat((256 << 10) - 300));
    for refused in [
        hubs.check_sizes(HUB, std::slice::from_ref(&large)).await,
        hubs.send(HUB, vec![fits.clone(), large]).await.map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Poison(_))), "{refused:?}");
    }
    hubs.send(HUB, vec![fits]).await.unwrap();
    let placed = NewRecord { partition: Some(0), ..record(b"k", "v") };
    for (refused, says) in [
        (hubs.send(HUB, vec![placed]).await.map(drop), "must know where"),
        (hubs.ordered_producer(Compression::default()).map(drop), "Kafka endpoint"),
        (open(&double).send(HUB, vec![record(b"k", "v")]).await.map(drop), "`Send`"),
        (hubs.send("missing", vec![record(b"k", "v")]).await.map(drop), "az eventhubs"),
    ] {
        match refused {
            Err(Error::Stop(cause)) => assert!(cause.to_string().contains(says), "{cause}"),
            other => panic!("must be Stop with {says}, got {other:?}"),
        }
    }
}
