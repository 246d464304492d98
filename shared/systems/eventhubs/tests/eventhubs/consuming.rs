use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use millstream_core::{Connect as _, Error, Limits, Log as _};
use millstream_emulators::event_hubs::{EventHubsDouble, NewEvent};
use millstream_eventhubs::EventHubs;

use crate::support::{HUB, ROOMY, Sink, consume, env_with, fill, open, partition, within_limit};

#[tokio::test]
async fn events_of_three_partitions_come_from_their_fences() {
    let double = EventHubsDouble::start();
    double.create(HUB, 3);
    for partition in 0..3 {
        fill(&double, partition, 0, 100);
    }
    let sink = Arc::new(Sink::at([(1, 40), (2, 100)]));
    let task = consume(open(&double), &sink, Limits { max_records: 7, ..ROOMY });
    within_limit(sink.until(160)).await;
    fill(&double, 2, 100, 110);
    within_limit(sink.until(170)).await;
    sink.stop();
    within_limit(task).await.unwrap().unwrap();
    for (partition, from, to) in [(0, 0, 100), (1, 40, 100), (2, 100, 110)] {
        sink.check(partition, from, to);
        assert_eq!(sink.fence(partition), Some(to));
        assert_eq!(sink.acknowledged.lock().unwrap().get(&partition), Some(&to));
    }
    assert_eq!(sink.largest.load(Ordering::SeqCst), 7);
}

#[tokio::test]
async fn a_stop_brings_in_what_was_read() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 3);
    let sink = Arc::new(Sink::slow(Duration::from_millis(300)));
    // The batch would be open for an hour.
    let task = consume(open(&double), &sink, Limits { max_wait_ms: 3_600_000, ..ROOMY });
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(sink.count(), 0);
    sink.stop();
    within_limit(task).await.unwrap().unwrap();
    sink.check(0, 0, 3);
}

#[tokio::test]
async fn partitions_that_are_raised_are_found() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let sink = Arc::new(Sink::default());
    let task = consume(open(&double).looking_every(Duration::from_millis(100)), &sink, ROOMY);
    fill(&double, 0, 0, 5);
    within_limit(sink.until(5)).await;
    double.raise(HUB, 3);
    fill(&double, 2, 0, 5);
    within_limit(sink.until(10)).await;
    sink.stop();
    within_limit(task).await.unwrap().unwrap();
    sink.check(2, 0, 5);
    assert_eq!(sink.starts.load(Ordering::SeqCst), 3, "each partition starts once");
}

#[tokio::test]
async fn a_process_reads_the_partitions_of_its_setting() {
    let double = EventHubsDouble::start();
    double.create(HUB, 4);
    (0..4).for_each(|partition| fill(&double, partition, 0, 10));
    let some = |partitions| {
        EventHubs::open(&env_with(&double, &[("MILLSTREAM_EVENTHUBS_PARTITIONS", partitions)])).unwrap().unwrap()
    };
    let sinks = [Arc::new(Sink::default()), Arc::new(Sink::default())];
    let tasks = [consume(some("0-1,3"), &sinks[0], ROOMY), consume(some("2"), &sinks[1], ROOMY)];
    within_limit(sinks[0].until(30)).await;
    within_limit(sinks[1].until(10)).await;
    sinks.iter().for_each(|sink| sink.stop());
    for task in tasks {
        within_limit(task).await.unwrap().unwrap();
    }
    assert_eq!((sinks[0].fence(2), sinks[1].fence(2)), (None, Some(10)));
    let none = within_limit(consume(some("7"), &Arc::new(Sink::default()), ROOMY)).await.unwrap();
    assert!(matches!(none, Err(Error::Stop(_))), "{none:?}");
}

#[tokio::test]
async fn a_sink_that_is_slow_is_not_flooded() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 2_000);
    let sink = Arc::new(Sink::slow(Duration::from_millis(20)));
    let task = consume(open(&double), &sink, Limits { max_records: 10, ..ROOMY });
    within_limit(sink.until(100)).await;
    // Three batches, what a receiver prefetches, and some on their way.
    assert!(double.sent() < 100 + 30 + 300 + 100, "{} events were sent", double.sent());
    sink.stop();
    within_limit(task).await.unwrap().unwrap();
}

#[tokio::test]
async fn retention_that_was_faster_stops_it() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 10);
    double.trim(HUB, 0, 5);
    let ended = within_limit(consume(open(&double), &Arc::new(Sink::at([(0, 3)])), ROOMY)).await.unwrap();
    match ended {
        Err(Error::Stop(cause)) => assert!(cause.to_string().contains("3..5 were deleted"), "{cause}"),
        other => panic!("must be Stop, got {other:?}"),
    }
}

#[tokio::test]
async fn a_hub_that_is_re_created_is_judged_by_the_handler() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 10);
    let hubs = open(&double);
    let id = hubs.topic_id(HUB).await.unwrap();
    let sink = Arc::new(Sink::default());
    let task = consume(hubs.clone(), &sink, ROOMY);
    within_limit(sink.until(10)).await;
    assert_eq!(sink.starts.load(Ordering::SeqCst), 1);
    sink.move_fence(0, 10);
    double.delete(HUB);
    double.create(HUB, 1);
    fill(&double, 0, 0, 20);
    within_limit(async {
        while sink.starts.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_ne!(hubs.topic_id(HUB).await.unwrap(), id);
    sink.stop();
    within_limit(task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_hub_that_is_re_created_while_a_receiver_is_opened_is_the_handlers_affair() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 10);
    double.replace_at_next_receiver(HUB, (0..20).map(|number| NewEvent::of(number.to_string())).collect());
    let sink = Arc::new(Sink::at([(0, 5)]));
    let task = consume(open(&double), &sink, ROOMY);
    within_limit(sink.until(15)).await;
    sink.stop();
    within_limit(task).await.unwrap().unwrap();
    assert_eq!(sink.starts.load(Ordering::SeqCst), 2, "it was asked once more before it was given an event");
    sink.check(0, 5, 20);
}

#[tokio::test]
async fn a_fence_above_the_end_waits_for_the_handler() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 10);
    double.lose(HUB, 0, 5);
    let sink = Arc::new(Sink::at([(0, 10)]));
    let task = consume(open(&double), &sink, ROOMY);
    within_limit(async {
        while sink.starts.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(sink.count(), 0, "nothing is read that is below the fence");
    sink.stop();
    within_limit(task).await.unwrap().unwrap();
    let read = open(&double).read(&partition(0), 10..11, ROOMY).await;
    assert!(matches!(read, Err(Error::Retry(_))), "{read:?}");
}

#[tokio::test]
async fn a_hub_that_is_deleted_stops_it() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 10);
    let sink = Arc::new(Sink::default());
    let task = consume(open(&double), &sink, ROOMY);
    within_limit(sink.until(10)).await;
    double.delete(HUB);
    let ended = within_limit(task).await.unwrap();
    assert!(matches!(ended, Err(Error::Stop(_))), "{ended:?}");
}
